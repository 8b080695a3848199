import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { systemClock, type Clock } from '../../../../src/base/time/clock.ts';
import type {
  Binding,
  Exception,
  Identity,
  IdentityGrant,
  Pod,
} from '../../../../src/cache/index/objects.ts';
import { readiness } from '../../../../src/nmi/base/readiness.ts';
import { KubeError, type KubeErrorDetails } from '../../../../src/nmi/kube/api/kube-error.ts';
import type { ReflectorStats, ReflectorTiming } from '../../../../src/nmi/kube/watch/reflector.ts';
import {
  closeDelayMs,
  noFailures,
  retryAfterFailure,
  type Attempt,
  type Failures,
  type ReflectorErrorCode,
} from '../../../../src/nmi/kube/watch/retry-policy.ts';
import {
  watchConditions,
  watchProblems,
  whyBehind,
} from '../../../../src/nmi/kube/watch/watch-report.ts';
import { openWatches, type WatchedResource } from '../../../../src/nmi/kube/watch/watches.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  clientOf,
  countingClock,
  eventually,
  keptLog,
  MapStore,
  quick,
  rawBinding,
  rawPod,
} from './kube-test-bed.ts';

const apiVersion = 'aadpodidentity.k8s.io/v1';
const ofGrants = { containing: 'azureidentitygrants' };

function rawCustom(kind: string, name: string, spec: object) {
  return { apiVersion, kind, metadata: { name, namespace: 'default' }, spec };
}

function putGrant(fake: FakeKube, name = 'shop'): void {
  const spec = { namespaces: [name], clientIDs: ['C'] };
  fake.apply({ apiVersion, kind: 'AzureIdentityGrant', metadata: { name }, spec });
}

interface BedOptions {
  readonly before?: (fake: FakeKube) => void;
  readonly clock?: Clock;
  readonly clientClock?: Clock;
  readonly timing?: Partial<ReflectorTiming>;
  readonly enforcesOwners?: boolean;
}

/** The watches of node-a on a fake API. */
async function openTestBed({
  before,
  clock = systemClock,
  clientClock,
  timing,
  ...options
}: BedOptions = {}) {
  const fake = await openFakeKube({ bookmarkEveryMs: 60_000 });
  before?.(fake);
  const client = await clientOf(fake, clientClock);
  const stores = {
    pods: new MapStore<Pod>(),
    identities: new MapStore<Identity>(),
    bindings: new MapStore<Binding>(),
    exceptions: new MapStore<Exception>(),
    grants: new MapStore<IdentityGrant>(),
  };
  const log = keptLog();
  const watches = openWatches({
    client,
    node: 'node-a',
    stores,
    log,
    clock,
    timing: { ...quick, ...timing },
    ...options,
  });
  return {
    fake,
    stores,
    log,
    watches,
    open: () => eventually('five watches', () => fake.watches() === 5),
    untilGrants: (count: number) =>
      stores.grants.until(`${count} grants`, () => stores.grants.items.size === count),
    askedForGrants: () => fake.requests.filter(({ url }) => url.includes('identitygrants')).length,
    isWaiting: () => watches.stats().grants.phase === 'waiting',
    refusals: () => watches.stats().grants.errorsByKind.refusal,
    takenAsEmpty: () =>
      log.lines.filter(({ message }) => message.includes('taken as empty')).length,
    async [Symbol.asyncDispose]() {
      await watches[Symbol.asyncDispose]();
      await client[Symbol.asyncDispose]();
      await fake[Symbol.asyncDispose]();
    },
  };
}

describe('the five watches', () => {
  it("fill their stores with this node's live pods and all custom resources", async () => {
    await using testBed = await openTestBed({
      before: (fake) => {
        fake.apply(rawPod('mine'));
        fake.apply(rawPod('other', { node: 'node-b' }));
        fake.apply(rawPod('done', { phase: 'Succeeded' }));
        fake.apply(rawPod('broken', { phase: 'Failed' }));
        fake.apply(rawPod('new', { phase: 'Pending' }));
        fake.apply(rawCustom('AzureIdentity', 'id', { clientID: 'c' }));
        fake.apply(rawBinding('b', 'demo'));
        fake.apply(rawCustom('AzurePodIdentityException', 'x', { podLabels: { app: 'mic' } }));
        putGrant(fake);
      },
    });
    const { fake, stores, watches } = testBed;
    assert.equal(watches.synced, false);
    await watches.whenSynced();
    assert.equal(watches.synced, true);
    assert.deepEqual(stores.pods.names(), ['default/mine', 'default/new']);
    assert.equal(stores.identities.items.get('default/id')?.clientId, 'c');
    assert.equal(stores.bindings.items.get('default/b')?.selector, 'demo');
    assert.equal(stores.exceptions.items.get('default/x')?.podLabels['app'], 'mic');
    assert.deepEqual(stores.grants.items.get('/shop')?.clientIds, ['c']);
    assert.equal(watches.stats().pods.objects, 2);
    assert.equal(watches.stats().exceptions.syncedOnce, true);
    await testBed.open();
    for (const plural of ['pods', 'azureidentities']) assert.equal(fake.watches(plural), 1);
    // Pods as a stream, which skips those that are too large; the others by pages.
    const listed = (query: string) => fake.requests.filter(({ url }) => url.includes(query));
    assert.equal(listed('limit=500').length, 4);
    const streams = listed('sendInitialEvents').map(({ url }) => url.split('?')[0]);
    assert.deepEqual(streams, ['/api/v1/pods']);
    assert.ok(fake.requests.every(({ acceptEncoding }) => acceptEncoding === 'gzip'));
    assert.equal(fake.connections, 5, 'a connection is idle');
    const of = (name?: WatchedResource) => watches.ages(name).map(({ resource }) => resource);
    assert.deepEqual(of(), ['pods', 'identities', 'bindings', 'exceptions', 'grants']);
    assert.deepEqual(of('bindings'), ['bindings']);
  });

  it('store 1 MiB of exceptions of a namespace', async () => {
    await using testBed = await openTestBed({
      before: (fake) => {
        for (let at = 0; at < 1_500; at++) {
          const spec = { podLabels: { app: 'mic' } };
          fake.apply(rawCustom('AzurePodIdentityException', `x${at}`, spec));
        }
      },
    });
    const { watches, log } = testBed;
    await watches.whenSynced();
    const { bytes, objects, rejected } = watches.stats().exceptions;
    assert.ok(bytes > 1_047_000 && bytes <= 1_048_576, `${bytes} bytes`);
    assert.ok(objects > 1_000, `${objects} of 1,500`);
    assert.equal(objects + rejected, 1_500);
    const skip = log.lines.find(({ message }) => message.includes('unusable'));
    assert.match(JSON.stringify(skip), /already take 1 MiB/);
  });

  it('are all replaced by a check, if they are silent', async () => {
    await using testBed = await openTestBed({ timing: { checkGraceMs: 10 } });
    const { fake, stores, watches } = testBed;
    await testBed.open();
    fake.goSilent();
    fake.apply(rawPod('unseen'));
    fake.apply(rawBinding('unseen', 'demo'));
    watches.checkNow();
    await stores.pods.until('the pod', () => stores.pods.items.size === 1);
    await stores.bindings.until('the binding', () => stores.bindings.items.size === 1);
    await testBed.open();
  });

  it('stop together and leave nothing behind', async () => {
    const clock = countingClock();
    await using testBed = await openTestBed({ clock, clientClock: clock });
    await testBed.open();
    await testBed.watches[Symbol.asyncDispose]();
    assert.equal(clock.armed, 0);
    await eventually('no watch is left', () => testBed.fake.watches() === 0);
  });
});

describe('grants that are only reported', () => {
  const enforcesOwners = false;

  it('are none without their kind, which counts no error, until it is installed', async () => {
    await using testBed = await openTestBed({
      enforcesOwners,
      timing: { absentEveryMs: 20 },
      before: ({ faults }) => faults.notInstalled.add('azureidentitygrants'),
    });
    const { fake, watches, askedForGrants } = testBed;
    await watches.whenSynced();
    await eventually('it looked again', () => askedForGrants() >= 3);
    assert.deepEqual([testBed.refusals(), testBed.takenAsEmpty()], [0, 1]);
    fake.faults.notInstalled.clear();
    putGrant(fake);
    await testBed.untilGrants(1);
  });

  it('are none without the right to list them, and listed ones are kept', async () => {
    await using testBed = await openTestBed({
      enforcesOwners,
      timing: { absentEveryMs: 20 },
      before: (fake) => {
        fake.faults.failNext(3, 403, ofGrants);
        putGrant(fake);
      },
    });
    const { fake, watches, stores } = testBed;
    await watches.whenSynced();
    await testBed.untilGrants(1);
    fake.faults.failNext(8, 403, ofGrants);
    fake.closeWatches();
    await eventually('it is refused', () => testBed.refusals() === 8);
    assert.equal(stores.grants.items.size, 1);
  });

  it('are soon requested again after a refusal, and at once when they are checked', async () => {
    const clock = new HandClock();
    await using testBed = await openTestBed({
      enforcesOwners,
      clock,
      timing: { absentEveryMs: 60_000 },
      before: (fake) => {
        fake.faults.failNext(4, 403, ofGrants);
        putGrant(fake);
      },
    });
    const { watches, askedForGrants } = testBed;
    await eventually('all are synced', () => {
      clock.advance(1);
      return watches.synced;
    });
    await eventually('it is refused again', () => {
      if (askedForGrants() < 4) clock.advance(10);
      return askedForGrants() === 4;
    });
    assert.ok(clock.monotonicMs() < 15_000, 'the pauses grow from a second');
    // The fourth pause does not end, since no time passes.
    await eventually('the fourth pause begins', testBed.isWaiting);
    assert.equal(watches.stats().grants.stalenessMs, 0, 'a refusal proves that there are none');
    watches.checkNow('grants');
    await testBed.untilGrants(1);
  });
});

describe('grants', () => {
  for (const enforcesOwners of [true, false]) {
    for (const [status, count] of [
      [403, 1],
      [404, 1],
      [403, 30],
      [404, 30],
    ] as const) {
      const where = enforcesOwners ? 'that decide' : 'that are only reported';
      it(`${where} are kept when a starting server answers ${count} times ${status}`, async () => {
        await using testBed = await openTestBed({ enforcesOwners, before: putGrant });
        const { fake, stores, watches } = testBed;
        await eventually('it watches', () => fake.watches('azureidentitygrants') === 1);
        fake.faults.failNext(1, 410, { containing: 'azureidentitygrants?watch' });
        fake.faults.failNext(count, status, { containing: 'azureidentitygrants?limit' });
        fake.closeWatches();
        await eventually('it is listed again', () => watches.stats().grants.relists === 1);
        putGrant(fake, 'office');
        await testBed.untilGrants(2);
        assert.equal(testBed.refusals(), count);
        assert.ok(stores.grants.replaced.every(({ length }) => length > 0));
      });
    }
  }
});

describe('grants that decide', () => {
  it('are kept, and the failure reported, when the right to list them is lost', async () => {
    const clock = new HandClock();
    await using testBed = await openTestBed({ clock, before: putGrant });
    const { fake, stores, watches } = testBed;
    await eventually('it watches', () => fake.watches('azureidentitygrants') === 1);
    fake.faults.failNext(1, 410, ofGrants);
    fake.faults.failNext(Infinity, 403, ofGrants);
    fake.closeWatches();
    await eventually('it is refused for an hour', () => {
      if (testBed.isWaiting()) clock.advance(30_000);
      return (watches.stats().grants.failure?.forMs ?? 0) > 3_600_000;
    });
    assert.equal(stores.grants.items.size, 1);
    const { grants } = watches.stats();
    assert.ok(grants.stalenessMs > 3_600_000, 'nothing proves that they are current');
    const problems = watchProblems(watches.stats());
    assert.deepEqual(
      problems.map(({ resource, reason }) => `${resource}: ${reason}`),
      ['grants: FORBIDDEN: failed on purpose'],
    );
  });

  it('are not synced without the right to list them', async () => {
    await using testBed = await openTestBed({
      before: (fake) => {
        fake.faults.failNext(20, 403, ofGrants);
        putGrant(fake);
      },
    });
    const { watches, stores } = testBed;
    await eventually('it is refused', () => testBed.refusals() >= 10);
    assert.deepEqual([watches.unsynced(), watches.synced], [['grants'], false]);
    await watches.whenSynced();
    assert.deepEqual(watches.unsynced(), []);
    assert.deepEqual(
      stores.grants.replaced.map(({ length }) => length),
      [1],
    );
  });

  it('are none only after a minute without their kind', async () => {
    const clock = new HandClock();
    await using testBed = await openTestBed({
      clock,
      before: ({ faults }) => faults.notInstalled.add('azureidentitygrants'),
    });
    const { fake, watches, isWaiting, askedForGrants } = testBed;
    await eventually('it is missing for almost a minute', () => {
      if (isWaiting()) clock.advance(1_000);
      return clock.monotonicMs() >= 59_000;
    });
    const [problem] = watchConditions(watches, 300_000);
    assert.match(problem?.problem() ?? '', /^waiting for grants \(NOT_FOUND/);
    // Another answer in between: the server was away.
    const asked = askedForGrants();
    fake.faults.failNext(1, 503, ofGrants);
    await eventually('the minute begins again', () => {
      if (askedForGrants() <= asked + 1) clock.advance(20);
      return askedForGrants() > asked + 1;
    });
    const sinceMs = clock.monotonicMs();
    await eventually('they count as none', () => {
      if (isWaiting() && !watches.synced) clock.advance(1_000);
      return watches.synced;
    });
    assert.ok(clock.monotonicMs() - sinceMs >= 59_000, `${clock.monotonicMs() - sinceMs} ms`);
    assert.deepEqual(watchProblems(watches.stats()), []);
    assert.equal(testBed.takenAsEmpty(), 1);
  });

  it('are lost with their kind, after a minute', async () => {
    const clock = new HandClock();
    await using testBed = await openTestBed({ clock, before: putGrant });
    const { fake, stores } = testBed;
    await testBed.untilGrants(1);
    fake.faults.notInstalled.add('azureidentitygrants');
    fake.closeWatches();
    await eventually('it is gone', () => {
      if (testBed.isWaiting()) clock.advance(1_000);
      return stores.grants.items.size === 0;
    });
    assert.ok(clock.monotonicMs() >= 60_000, `${clock.monotonicMs()} ms`);
  });
});

describe('the report of watches', () => {
  const message = 'bindings is forbidden:\nUser "nmi"';
  const refused = { code: 'FORBIDDEN', message, forMs: 40_900, isAbsence: false } as const;
  const absent = { ...refused, code: 'NOT_FOUND', isAbsence: true } as const;
  const reason = 'FORBIDDEN: bindings is forbidden:?User "nmi"';

  type Failing = Partial<Record<WatchedResource, NonNullable<ReflectorStats['failure']>>>;
  const statsOf = (failing: Failing = {}) => {
    const names = ['pods', 'identities', 'bindings', 'exceptions', 'grants'] as const;
    const all = names.map((name) => [name, { failure: failing[name] }]);
    return Object.fromEntries(all) as Record<WatchedResource, ReflectorStats>;
  };
  const failing = statsOf({ bindings: refused, grants: absent });

  it('does not count a kind that the cluster does not have as a failure', () => {
    assert.deepEqual(watchProblems(failing), [{ resource: 'bindings', reason, forMs: 40_900 }]);
    assert.equal(whyBehind(failing), `the watch of bindings has failed for 40 s (${reason})`);
    assert.equal(whyBehind(failing, 'pods'), undefined);
    assert.equal(whyBehind(statsOf()), undefined);
  });

  it('shows at most one bounded line of received text', () => {
    for (const [text, shown] of [
      ['é'.repeat(5_000), `FORBIDDEN: ${'?'.repeat(200)}`],
      ['', 'FORBIDDEN'],
    ] as const) {
      const stats = statsOf({ pods: { ...refused, message: text } });
      assert.equal(whyBehind(stats), `the watch of pods has failed for 40 s (${shown})`);
    }
  });

  it('is not ready while a list is missing, or a watch was not proven current for too long', () => {
    const ages = { pods: 300_001, identities: 12, bindings: 300_000, exceptions: 300_002 } as const;
    const all = Object.entries(ages).map(([resource, stalenessMs]) => ({ resource, stalenessMs }));
    const watches = 'waiting for pods, bindings';
    const stale = 'not proven current: pods for 5 min 0 s, exceptions for 5 min 0 s';
    for (const [unsynced, stats, limitMs, missing] of [
      [['pods', 'bindings'], statsOf(), 400_000, { watches }],
      // The cause, without a constantly changing time.
      [['pods', 'bindings'], failing, 400_000, { watches: `${watches} (${reason})` }],
      [[], failing, 300_000, { watches_current: stale }],
      [[], failing, 400_000, {}],
    ] as const) {
      const group = { unsynced: () => unsynced, ages: () => all, stats: () => stats };
      const report = readiness([{ conditions: watchConditions(group, limitMs) }]);
      assert.deepEqual(report, { ready: Object.keys(missing).length === 0, missing });
    }
  });
});

describe('the retry policy', () => {
  const timing = {
    backoff: { baseMs: 200, capMs: 10_000 },
    outage: { baseMs: 100, capMs: 500 },
    relistJitterMs: 600,
    relistJitterPerObjectMs: 3,
  };

  function retry(
    code: ReflectorErrorCode,
    details: KubeErrorDetails = {},
    before: Failures = noFailures,
    attempt: Partial<Attempt> = {},
  ) {
    const error = code === 'INTERNAL' ? new Error('bug') : new KubeError(code, 'failed', details);
    const usual = { triedMs: 0, awayForMs: 0, objects: 0, chance: 0.5 };
    return retryAfterFailure(error, before, timing, { ...usual, ...attempt });
  }

  const rows: readonly [ReflectorErrorCode, KubeErrorDetails, string, boolean, number, boolean][] =
    [
      // code, details, kind, relists, waits in ms, wakes early
      ['NETWORK', {}, 'outage', false, 75, true],
      ['TIMEOUT', {}, 'outage', false, 75, true],
      ['SERVER', { status: 500 }, 'outage', false, 75, true],
      ['SERVER', { status: 503, retryAfterMs: 2000 }, 'outage', false, 2250, false],
      ['SERVER', { status: 400 }, 'refusal', true, 150, false],
      ['THROTTLED', { status: 429 }, 'refusal', false, 150, false],
      ['THROTTLED', { status: 429, retryAfterMs: 1000 }, 'refusal', false, 1125, false],
      ['UNAUTHORIZED', { status: 401 }, 'refusal', false, 150, false],
      ['FORBIDDEN', { status: 403 }, 'refusal', false, 150, false],
      ['NOT_FOUND', { status: 404 }, 'refusal', false, 150, false],
      ['CONFIG', {}, 'refusal', false, 150, false],
      ['MALFORMED', {}, 'refusal', true, 150, false],
      ['GONE', { status: 410 }, 'expiry', true, 300, false],
      ['INTERNAL', {}, 'exception', true, 150, false],
    ];
  for (const [code, details, kind, isRelist, delayMs, isWakeable] of rows) {
    it(`after ${code} ${JSON.stringify(details)} waits ${delayMs} ms for ${kind}`, () => {
      const failures = { kind, count: 1, waitedMs: 0 };
      const expected = { code, failures, isRelist, delayMs, idleMs: 0, isWakeable };
      assert.deepEqual(retry(code, details), expected);
    });
  }

  it('counts failures of one kind only, and keeps the last wait', () => {
    const before: Failures = { kind: 'outage', count: 5, waitedMs: 70 };
    assert.deepEqual(retry('TIMEOUT', {}, before).failures, { ...before, count: 6 });
    const first = { kind: 'refusal', count: 1, waitedMs: 70 };
    assert.deepEqual(retry('FORBIDDEN', {}, before).failures, first);
  });

  const away = (count: number, waitedMs = 0): Failures => ({ kind: 'outage', count, waitedMs });
  const expired = (count: number, waitedMs = 0): Failures => ({ kind: 'expiry', count, waitedMs });
  const waits: readonly [
    title: string,
    rows: readonly [
      code: ReflectorErrorCode,
      before: Failures,
      attempt: Partial<Attempt>,
      delayMs: number,
      idleMs: number,
      retryAfterMs?: number,
    ][],
  ][] = [
    [
      'subtracts the duration of the attempt from a wait in an outage',
      [
        ['NETWORK', noFailures, { triedMs: 50 }, 25, 0],
        ['NETWORK', noFailures, { triedMs: 700 }, 0, 0],
        ['SERVER', noFailures, { triedMs: 700 }, 2250, 0, 2000],
      ],
    ],
    [
      'spreads relists by their objects, up to a minute, less what was waited before',
      [
        ['GONE', away(3, 250), {}, 50, 0],
        ['GONE', expired(2, 250), {}, 600, 0],
        ['GONE', noFailures, { objects: 1_000 }, 300, 1_500],
        ['GONE', noFailures, { objects: 20_000 }, 300, 30_000],
        ['GONE', noFailures, { objects: 1_000_000 }, 300, 30_000],
        ['GONE', away(3, 800), { objects: 1_000 }, 0, 1_000],
        ['GONE', away(3, 9_000), { objects: 1_000 }, 0, 0],
        ['GONE', expired(1), { objects: 1_000 }, 300, 0],
      ],
    ],
    [
      'waits longer the longer an outage lasts, up to 30 s, unless a request waits',
      [
        ['NETWORK', away(40), { awayForMs: 10_000 }, 375, 0],
        ['NETWORK', away(40), { awayForMs: 60_000 }, 375, 1_875],
        ['NETWORK', away(40), { awayForMs: 60_000, triedMs: 700 }, 0, 1_550],
        ['NETWORK', away(40), { awayForMs: 3_600_000 }, 375, 22_125],
        ['SERVER', away(40), { awayForMs: 3_600_000 }, 2250, 0, 2000],
        // Another failure, long ago.
        ['NETWORK', noFailures, { awayForMs: 3_600_000 }, 75, 0],
      ],
    ],
  ];
  for (const [title, cases] of waits) {
    it(title, () => {
      for (const [code, before, attempt, delay, idle, retryAfterMs] of cases) {
        const { delayMs, idleMs } = retry(code, { retryAfterMs }, before, attempt);
        assert.deepEqual([delayMs, idleMs], [delay, idle], JSON.stringify([before, attempt]));
      }
    });
  }

  it('reopens a watch that was closed too early twice at once, and then within a second', () => {
    const delays = [1, 2, 3, 4, 5, 9].map((closes) => closeDelayMs(timing, closes, 1));
    assert.deepEqual(delays, [0, 0, 200, 400, 800, 1000]);
  });
});
