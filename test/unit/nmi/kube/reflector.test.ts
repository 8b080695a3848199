/**
 * One list and watch through each kind of failure. The contract in `test/cluster/support` runs it over a failing
 * network, on real servers too; the simulation runs it through faults in any order.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { OwnTime } from '../../../../lab/pods/own-time.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import type { ObjectRef, Pod } from '../../../../src/cache/index/objects.ts';
import { Observers } from '../../../../src/cache/index/observers.ts';
import type { KubeClient } from '../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { parseBinding, parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import {
  openReflector,
  type KubeReader,
  type ReflectorOptions,
  type ReflectorStats,
} from '../../../../src/nmi/kube/watch/reflector.ts';
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

type Phase = ReflectorStats['phase'];
type TestBed = Awaited<ReturnType<typeof openTestBed>>;

interface BedOptions extends Partial<ReflectorOptions<ObjectRef>> {
  readonly before?: (fake: FakeKube) => void;
  readonly bookmarkEveryMs?: number;
}

const bindings = {
  name: 'bindings',
  path: '/apis/aadpodidentity.k8s.io/v1/azureidentitybindings',
  query: {},
  parse: parseBinding,
};
const slow = { baseMs: 60_000, capMs: 60_000 };

/** A reflector on a fake API, by default of node-a's pods. */
async function openTestBed(over: BedOptions = {}) {
  const { before, bookmarkEveryMs = 10, ...options } = over;
  const fake = await openFakeKube({ bookmarkEveryMs });
  before?.(fake);
  const client = await clientOf(fake);
  const counted = countWatches(client);
  const store = new MapStore();
  const log = keptLog();
  const reflector = openReflector<ObjectRef>({
    name: 'pods',
    path: '/api/v1/pods',
    query: { fieldSelector: 'spec.nodeName=node-a,status.phase!=Succeeded' },
    parse: parsePod,
    store,
    client: counted.reader,
    clock: systemClock,
    random: Math.random,
    log,
    listsBy: 'stream',
    timing: quick,
    ...options,
  });
  return {
    fake,
    client,
    store,
    log,
    reflector,
    /** Most client watches that were open at once. */
    mostWatches: counted.most,
    phase: () => reflector.stats().phase,
    reaches: (phase: Phase) => eventually(phase, () => reflector.stats().phase === phase),
    /** The counts of failures that are not 0. */
    failures: () =>
      Object.entries(reflector.stats().errorsByKind).flatMap(([kind, count]) =>
        count === 0 ? [] : `${kind} ${count}`,
      ),
    /** Its waits after failures, in milliseconds. */
    waits: () =>
      log.lines.flatMap(({ fields }) => ('retryInMs' in fields ? Number(fields['retryInMs']) : [])),
    /** Requests for all objects, as a stream or page by page; a check requests one object. */
    lists: () =>
      fake.requests
        .map(({ url }) => url)
        .filter((url) => !/[?&]limit=1(?:&|$)/.test(url))
        .filter((url) => !url.includes('watch=true') || url.includes('sendInitialEvents')),
    apply: async (name: string) => {
      fake.apply(rawPod(name));
      await store.until(`${name} came`, () => store.items.has(`default/${name}`));
    },
    async [Symbol.asyncDispose]() {
      await reflector[Symbol.asyncDispose]();
      await client[Symbol.asyncDispose]();
      await fake[Symbol.asyncDispose]();
    },
  };
}

function countWatches(client: KubeClient) {
  let [open, most] = [0, 0];
  const reader: KubeReader = {
    getJson: (...args) => client.getJson(...args),
    async *watch(...args) {
      open += 1;
      most = Math.max(most, open);
      try {
        yield* client.watch(...args);
      } finally {
        open -= 1;
      }
    },
  };
  return { most: () => most, reader };
}

async function openAt(phase: Phase, options?: BedOptions): Promise<TestBed> {
  const testBed = await openTestBed(options);
  await testBed.reaches(phase);
  return testBed;
}

const openWatching = (options?: BedOptions) => openAt('watching', options);
const openWaiting = (options?: BedOptions) => openAt('waiting', options);

const putPods =
  (...names: readonly string[]) =>
  (fake: FakeKube): void => {
    for (const name of names) fake.apply(rawPod(name));
  };
const failing =
  (count: number, ...statuses: readonly number[]) =>
  (fake: FakeKube): void => {
    for (const status of statuses) fake.faults.failNext(count, status);
  };
const noBookmarks = { bookmarkEveryMs: 60_000 };

describe('a reflector', () => {
  it('lists in one step, reports that it is synced, and follows every kind of event', async () => {
    await using testBed = await openTestBed({
      before: (fake) => {
        putPods('one')(fake);
        fake.apply(rawPod('elsewhere', { node: 'node-b' }));
      },
    });
    const { fake, store, reflector, apply } = testBed;
    assert.equal(reflector.synced, false);
    await reflector.whenSynced();
    assert.equal(reflector.synced, true);
    assert.deepEqual(store.names(), ['default/one']);
    await testBed.reaches('watching');
    await apply('two');
    fake.patch({ kind: 'Pod', name: 'two' }, { status: { podIP: '10.0.0.9', podIPs: null } });
    const ipOfTwo = () => (store.items.get('default/two') as Pod | undefined)?.ips[0];
    await store.until('two changed', () => ipOfTwo() === '10.0.0.9');
    fake.delete({ kind: 'Pod', name: 'one' });
    await store.until('one went', () => !store.items.has('default/one'));
    fake.patch({ kind: 'Pod', name: 'two' }, { status: { phase: 'Succeeded' } });
    await store.until('two finished', () => store.items.size === 0);
    const { length } = testBed.lists();
    const { objects } = reflector.stats();
    assert.deepEqual([store.replaced.length, length, testBed.mostWatches(), objects], [1, 1, 1, 0]);
    assert.deepEqual(
      testBed.log.lines.map(({ message }) => message),
      ['watch synced'],
    );
  });

  const fieldSelector = 'spec.nodeName=node-a,status.phase!=Succeeded';
  const watch = { watch: 'true', allowWatchBookmarks: 'true', timeoutSeconds: '360' };
  const listing = { sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' };
  for (const [listsBy, expected] of [
    ['stream', [{ fieldSelector, ...watch, ...listing }]],
    [
      'pages',
      [
        { fieldSelector, limit: '500' },
        { fieldSelector, ...watch, resourceVersion: '2' },
      ],
    ],
  ] as const) {
    it(`requests a list by ${listsBy}, which the watch continues`, async () => {
      await using testBed = await openWatching({
        listsBy,
        random: () => 0.5,
        before: putPods('one'),
      });
      const { fake, reflector, apply } = testBed;
      await apply('two');
      const urls = fake.requests.map(({ url }) => new URL(url, fake.url).searchParams);
      assert.deepEqual(urls.map(Object.fromEntries), expected);
      assert.equal(reflector.stats().restarts, 0);
    });
  }

  it('resumes from the newest event or bookmark, not from its start', async () => {
    await using testBed = await openWatching();
    const { fake } = testBed;
    const resumedFrom = (): string | null =>
      new URL(fake.requests.at(-1)?.url ?? '', fake.url).searchParams.get('resourceVersion');
    await testBed.apply('one');
    fake.closeWatches();
    await eventually('it resumed', () => resumedFrom() === String(fake.store.version));
    await testBed.reaches('watching');
    // Only a bookmark shows a write that the selector hides.
    fake.apply(rawPod('elsewhere', { node: 'node-b' }));
    const bookmarked = String(fake.store.version);
    fake.injectIntoWatches(bookmarkOf(bookmarked));
    fake.closeWatches();
    await eventually('it resumed from a bookmark', () => resumedFrom() === bookmarked);
    assert.equal(testBed.lists().length, 1);
  });

  it('opens a closed watch again at once, twice, and waits before it does so again', async () => {
    await using testBed = await openWatching({ clock: new HandClock() });
    const { fake, reflector, phase, reaches, lists, failures } = testBed;
    for (const restarts of [0, 1, 2]) {
      await eventually(`the watch after ${restarts} is open`, () => {
        return phase() === 'watching' && reflector.stats().restarts === restarts;
      });
      fake.closeWatches();
    }
    await reaches('waiting');
    assert.deepEqual([lists().length, failures()], [1, []]);
  });

  for (const goneByStatus of [false, true]) {
    const how = goneByStatus ? 'status' : 'event';
    it(`lists again, in one step, when a 410 ${how} reports that its version expired`, async () => {
      await using testBed = await openWatching({ before: putPods('old') });
      const { fake, store, reflector, reaches, apply, lists, failures } = testBed;
      fake.faults.goneByStatus = goneByStatus;
      fake.faults.hang = true;
      fake.cutConnections();
      fake.delete({ kind: 'Pod', name: 'old' });
      fake.apply(rawPod('new'));
      fake.compact();
      assert.deepEqual(store.names(), ['default/old'], 'known objects are kept meanwhile');
      fake.faults.hang = false;
      fake.cutConnections();
      await store.until('the new state came', () => store.items.has('default/new'));
      assert.deepEqual(store.names(), ['default/new']);
      assert.equal(store.replaced.length, 2);
      assert.equal(reflector.stats().relists, 1);
      assert.ok(failures().includes('expiry 1'));
      // Memory of a server that lags could go back in time.
      assert.doesNotMatch(lists().at(-1) ?? '', /resourceVersion=/);
      await reaches('watching');
      await apply('newer');
    });
  }

  it('lists again when a server was restored from a backup and watches only stay silent', async () => {
    for (const [timing, checkEveryMs] of [
      [{ silenceMs: 100 }, undefined],
      [{ silenceMs: 3_600_000, checkGraceMs: 10, checkEveryMs: 20 }, 30],
    ] as const) {
      const lost = Array.from({ length: 50 }, (_, at) => `lost-${at}`);
      await using testBed = await openTestBed({
        ...noBookmarks,
        before: putPods(...lost),
        timing: { ...quick, ...timing },
      });
      const { fake, store, reflector } = testBed;
      await store.until('the first list', () => store.items.size === 50);
      await fake[Symbol.asyncDispose]();
      await using restored = await openFakeKube({ port: fake.port, ...noBookmarks });
      restored.apply(rawPod('kept'));
      const checking = checkEveryMs && setInterval(() => reflector.checkNow(), checkEveryMs);
      await store.until('what the backup had', () => store.names().join() === 'default/kept');
      clearInterval(checking);
      assert.ok(JSON.stringify(testBed.log.lines).includes('went backwards'));
    }
  });

  it('opens another watch instead of one that went silent', async () => {
    await using testBed = await openWatching({ timing: { ...quick, silenceMs: 60 } });
    const { fake, log, apply, lists, failures } = testBed;
    fake.goSilent();
    await apply('unseen');
    // A quiet resource may be silent, too.
    assert.deepEqual(failures(), []);
    assert.ok(log.lines.every(({ level }) => level !== 'warn'));
    assert.equal(lists().length, 1);
    await eventually('the silent one is closed', () => fake.watches() === 1);
  });

  it('lets a connection be silent for 80 seconds, and up to a quarter longer', async () => {
    for (const [chance, expectedMs] of [
      [0, 80_000],
      [1, 100_000],
    ] as const) {
      const asked = Promise.withResolvers<number>();
      const client: KubeReader = {
        getJson: () => assert.fail('nothing is listed by page'),
        async *watch(_path, { silenceMs, signal }) {
          asked.resolve(silenceMs);
          yield await new Promise((resolve) => signal?.addEventListener('abort', resolve));
        },
      };
      await using _testBed = await openTestBed({ client, random: () => chance, timing: {} });
      assert.equal(await asked.promise, expectedMs);
    }
  });

  const handClock = new HandClock();
  it('does not treat a quiet resource as a silent connection while bookmarks arrive', async () => {
    await using testBed = await openWatching({
      clock: handClock,
      timing: { ...quick, silenceMs: 400 },
    });
    const { reflector } = testBed;
    for (let round = 0; round < 3; round += 1) {
      handClock.advance(300);
      await eventually('a bookmark', () => reflector.stats().lastContactAgeMs === 0);
    }
    assert.equal(reflector.stats().restarts, 0);
  });

  for (const [status, waitMs, code] of [
    [403, 200, 'FORBIDDEN'],
    [500, 200, 'SERVER'],
    // As long as the server requires, and up to a quarter longer.
    [429, 1_250, 'THROTTLED'],
    [503, 1_250, 'SERVER'],
  ] as const) {
    const before = ({ faults }: FakeKube): void => {
      faults.failNext(1, status, waitMs > 1_000 ? { retryAfterSec: 1 } : {});
    };
    it(`waits for ${waitMs} ms after a first ${status}`, async () => {
      await using testBed = await openWaiting({
        clock: new HandClock(),
        random: () => 1,
        timing: {},
        before,
      });
      const { reflector, waits } = testBed;
      assert.deepEqual(waits(), [waitMs]);
      assert.equal(reflector.stats().failure?.code, code);
    });
  }

  it('outlives every refusal, logs it once, and counts each', async () => {
    await using testBed = await openWatching({ before: failing(3, 401, 403, 404, 500) });
    const { log, failures } = testBed;
    assert.deepEqual(failures(), ['outage 3', 'refusal 9']);
    const told = log.lines.filter(({ level }) => level === 'warn' || level === 'error');
    assert.deepEqual(
      told.map(({ fields, message }) => `${String(fields['code'])}: ${message}`),
      [
        'UNAUTHORIZED: watch failed, retrying',
        'FORBIDDEN: watch failed, retrying',
        'NOT_FOUND: resource type is not installed, retrying',
        'SERVER: watch failed, retrying',
      ],
    );
    await eventually('it is healthy', () => log.lines.at(-1)?.message === 'watch recovered');
  });

  it('counts the duration of an attempt as waited', async () => {
    const client: KubeReader = {
      getJson: () => Promise.reject(new KubeError('NETWORK', 'not used')),
      // oxlint-disable-next-line require-yield
      async *watch() {
        await new Promise((resolve) => setTimeout(resolve, 30));
        throw new KubeError('TIMEOUT', 'the API server did not answer');
      },
    };
    const timing = { ...quick, outage: { baseMs: 10, capMs: 10 } };
    await using testBed = await openTestBed({ client, timing });
    await eventually('it tried twice', () => testBed.waits().length >= 2);
    assert.ok(testBed.waits().every((delayMs) => delayMs === 0));
  });
});

function bookmarkOf(resourceVersion: string): string {
  return `${JSON.stringify({ type: 'BOOKMARK', object: { metadata: { resourceVersion } } })}\n`;
}

/** A line of more than the limit. */
function tooLong(metadata: object): string {
  const pod = { kind: 'Pod', apiVersion: 'v1', metadata: { ...metadata, resourceVersion: '90' } };
  const line = JSON.stringify({ type: 'MODIFIED', object: { ...pod, x: '' } });
  return `${line.slice(0, -3)}${'\\u003c'.repeat(1_500_000)}"}}\n`;
}

describe('an object that cannot be used', () => {
  for (const [what, line] of [
    ['invalid', 'garbage\n'],
    ['no event', '7\n'],
    ['without object', '{"type":"ADDED"}\n'],
    ['of unknown type', '{"type":"WHAT","object":{}}\n'],
    ['too long, and names no object', tooLong({ labels: {} })],
    ['one for which the store throws', undefined],
  ] as const) {
    it(`causes another list if its line is ${what}`, async () => {
      await using testBed = await openWatching();
      const { fake, store, reflector, reaches, apply, failures } = testBed;
      if (line === undefined) store.poison = new Error('handler broke');
      if (line === undefined) fake.apply(rawPod('poisoned'));
      else fake.injectIntoWatches(line);
      await eventually('it listed again', () => reflector.stats().relists === 1);
      assert.deepEqual(failures(), [line === undefined ? 'exception 1' : 'refusal 1']);
      assert.equal(store.items.has('default/poisoned'), line === undefined);
      await reaches('watching');
      await apply('next');
    });
  }

  it('is skipped and counted if it is too long, and its previous version is dropped', async () => {
    await using testBed = await openWatching({ before: putPods('big') });
    const { fake, store, log, reflector, failures, apply } = testBed;
    const uid = store.items.get('default/big')?.uid ?? '';
    const ref = { namespace: 'default', name: 'big', uid };
    fake.injectIntoWatches(tooLong({ name: 'big', namespace: 'default', uid }));
    await store.until('it lost its rights', () => store.items.size === 0);
    await apply('next');
    const { rejected, relists } = reflector.stats();
    assert.deepEqual([rejected, relists, failures()], [1, 0, []]);
    const [line] = log.lines.filter(({ message }) => message === 'unusable object ignored');
    assert.deepEqual(line?.fields['object'], ref);
  });

  it('is skipped, reported once, and its previous version is dropped', async () => {
    await using testBed = await openWatching({
      ...bindings,
      before: (fake) => {
        for (const name of ['good', 'turns']) fake.apply(rawBinding(name, 'demo'));
        fake.apply({ ...rawBinding('bad', 'demo'), spec: { selector: 7 } });
      },
    });
    const { fake, store, log, reflector } = testBed;
    const patch = (name: string, spec: object): void => {
      fake.patch({ kind: 'AzureIdentityBinding', name }, { spec });
    };
    assert.deepEqual(store.names(), ['default/good', 'default/turns']);
    patch('turns', { selector: 7 });
    await store.until('the old version went', () => store.items.size === 1);
    patch('bad', { weight: 1 });
    await eventually('all were rejected', () => reflector.stats().rejected === 3);
    const told = log.lines.filter(({ level }) => level === 'warn');
    assert.equal(told.length, 2);
    assert.equal(told[0]?.fields['reason'], 'spec.selector is not a string');
    patch('bad', { selector: 'demo' });
    await store.until('it is usable now', () => store.items.has('default/bad'));
    assert.equal(reflector.stats().objects, 2);
  });

  it('is named in the log, with fifty of a namespace at most', async () => {
    await using testBed = await openWatching({
      ...bindings,
      before: (fake) => {
        for (let count = 0; count < 80; count++) {
          fake.apply({ ...rawBinding(`bad-${count}`, 'demo'), spec: { selector: 7 } });
        }
      },
    });
    const { reflector, log } = testBed;
    assert.equal(reflector.stats().rejected, 80);
    assert.equal(log.lines.filter(({ level }) => level === 'warn').length, 50);
  });
});

describe('a streamed list', () => {
  const before = putPods('one', 'two');
  const streamed = ({ fake }: TestBed): number =>
    fake.requests.filter(({ url }) => url.includes('sendInitialEvents')).length;

  it('that is cut is requested again, and the store keeps its content until then', async () => {
    await using testBed = await openWatching({ before });
    const { fake, store } = testBed;
    fake.delete({ kind: 'Pod', name: 'two' });
    await store.until('two went', () => store.items.size === 1);
    fake.faults.failNext(1, 410, { containing: 'resourceVersion=' });
    fake.faults.cutNextWatchAfterBytes = 40;
    fake.closeWatches();
    await testBed.apply('three');
    assert.deepEqual(store.names(), ['default/one', 'default/three']);
    assert.deepEqual(
      store.replaced.map((items) => items.map(({ name }) => name)),
      [
        ['one', 'two'],
        ['one', 'three'],
      ],
    );
    assert.equal(streamed(testBed), 3);
    assert.ok(testBed.failures().includes('outage 1'));
  });

  for (const status of [400, 422]) {
    it(`that is refused with ${status} is requested page by page, from then on and at once`, async () => {
      await using testBed = await openWatching({
        timing: { ...quick, backoff: slow },
        before: (fake) => {
          before(fake);
          fake.faults.failNext(1, status, { containing: 'sendInitialEvents' });
        },
      });
      const { fake, store, reflector, log } = testBed;
      assert.deepEqual(store.names(), ['default/one', 'default/two']);
      assert.deepEqual(testBed.failures(), []);
      fake.faults.failNext(1, 410, { containing: 'watch=true' });
      fake.closeWatches();
      await eventually('it listed again', () => reflector.stats().relists === 1);
      assert.equal(streamed(testBed), 1);
      const told = log.lines.filter(({ message }) => message.includes('page by page'));
      assert.deepEqual(
        told.map(({ fields }) => fields['reason']),
        ['failed on purpose'],
      );
    });
  }

  it('is still preferred after an outage and after another refusal', async () => {
    await using testBed = await openWatching({ before: failing(1, 500, 503, 403) });
    assert.deepEqual([streamed(testBed), testBed.lists().length], [4, 4]);
  });
});

describe('a paged list', () => {
  const paged = { listsBy: 'pages' } as const;
  const large = (name: string, bytes: number) => {
    const { metadata, ...pod } = rawPod(name);
    return { ...pod, metadata: { ...metadata, annotations: { text: 'x'.repeat(bytes) } } };
  };
  for (const [what, count, bytes, limits] of [
    ['objects so large that few of them are a page', 100, 250_000, ['500', '63', '8', '8']],
    ['an object that is larger than a page', 1, 5 * 1024 * 1024, ['500', '63', '8', '1']],
  ] as const) {
    const before = (fake: FakeKube): void => {
      for (let at = 0; at < count; at++) fake.apply(large(`large-${100 + at}`, bytes));
      fake.apply(rawPod('small'));
    };
    it(`reads ${what}`, async () => {
      await using testBed = await openWatching({ ...paged, before });
      const { fake, store, reflector } = testBed;
      assert.equal(store.size, count + 1);
      const asked = fake.requests.map(({ url }) => /[?&]limit=(\d+)/.exec(url)?.[1]);
      assert.deepEqual(asked.slice(0, 4), limits);
      assert.equal(reflector.stats().failure, undefined);
    });
  }

  it('is read page by page, from its beginning when the snapshot expires', async () => {
    await using testBed = await openWatching({
      ...paged,
      pageSize: 2,
      before: putPods('a', 'b', 'c', 'd', 'e'),
    });
    const { fake, store, reflector, lists } = testBed;
    assert.equal(lists().length, 3);
    for (const containing of ['continue=', 'watch=true']) {
      fake.faults.failNext(1, 410, { containing });
    }
    fake.closeWatches();
    await eventually('it listed again', () => reflector.stats().relists === 1);
    const again = lists().slice(3);
    assert.deepEqual(
      again.map((url) => ['continue', 'limit'].find((word) => url.includes(word))),
      ['limit', 'continue', 'limit', 'continue', 'continue'],
    );
    assert.ok(again.every((url) => !url.includes('resourceVersion')));
    assert.equal(store.items.size, 5);
    assert.equal(store.replaced.at(-1)?.length, 5);
  });
});

describe('reflectors of one server', () => {
  const waiting = { before: failing(1, 503), timing: { ...quick, outage: slow } };

  for (const [who, options] of [
    ['one whose watch is open', {}],
    ['one whose kind is not installed', { absence: 'presumed' }],
  ] as const) {
    it(`learn from ${who} that it is available again`, async () => {
      const recovery = new Observers();
      await using late = await openWaiting({ recovery, ...waiting });
      await using throttled = await openWaiting({
        recovery,
        before: ({ faults }) => faults.failNext(1, 503, { retryAfterSec: 60 }),
      });
      await using _first = await openTestBed({
        recovery,
        ...options,
        before: (fake) => {
          failing(1, 503)(fake);
          if ('absence' in options) failing(Infinity, 404)(fake);
        },
      });
      await late.reaches('watching');
      assert.equal(throttled.phase(), 'waiting', 'it had to stay away for a given time');
    });
  }

  it('learn it in the first part of a long wait', async () => {
    const [clock, recovery] = [new HandClock(), new Observers()];
    const timing = { ...quick, outage: { baseMs: 1_000, capMs: 1_000 } };
    const before = failing(Infinity, 503);
    const options = { clock, recovery, timing, before, random: () => 1 };
    await using testBed = await openTestBed(options);
    const waitsAfter = (failures: number) =>
      eventually(`it waits after ${failures} failures`, () => {
        return testBed.phase() === 'waiting' && testBed.waits().length === failures;
      });
    await waitsAfter(1);
    clock.advance(600_000);
    await waitsAfter(2);
    assert.ok((testBed.waits().at(-1) ?? 0) > 1_000, 'the wait has a second part');
    recovery.notify();
    await waitsAfter(3);
  });
});

describe('a check', () => {
  const timing = { ...quick, silenceMs: 60_000, checkGraceMs: 20, checkEveryMs: 200 };
  const quiet = { timing, ...noBookmarks };

  it('replaces a silent watch long before its deadline, and misses nothing', async () => {
    await using testBed = await openWatching(quiet);
    const { fake, store, reflector, mostWatches, lists, failures } = testBed;
    fake.goSilent();
    fake.apply(rawPod('unseen'));
    reflector.checkNow();
    await store.until('it came on another watch', () => store.items.has('default/unseen'));
    await eventually('the silent one is closed', () => fake.watches() === 1);
    assert.deepEqual([mostWatches(), lists().length, failures()], [1, 1, []]);
  });

  const clock = new HandClock();
  it('ends when the watch receives something', async () => {
    await using testBed = await openWatching({ ...quiet, clock });
    const { reflector, apply, phase } = testBed;
    reflector.checkNow();
    clock.advance(1);
    await apply('late');
    clock.advance(2 * timing.checkGraceMs);
    assert.deepEqual([phase(), reflector.stats().restarts], ['watching', 0]);
  });

  it('costs the server one watch in a while, for any number of requests', async () => {
    await using testBed = await openWatching(quiet);
    const { reflector } = testBed;
    const startMs = performance.now();
    const asking = setInterval(() => reflector.checkNow(), 1);
    await eventually('it opened two', () => reflector.stats().restarts >= 2);
    clearInterval(asking);
    const most = 1 + (performance.now() - startMs) / timing.checkEveryMs;
    const { restarts } = reflector.stats();
    assert.ok(restarts <= most, `${restarts} restarts`);
  });

  for (const [what, retryAfter, isEnded] of [
    ['ends the wait for the end of an outage', {}, true],
    ['ends no wait that the server required', { retryAfterSec: 60 }, false],
  ] as const) {
    it(what, async () => {
      await using testBed = await openWaiting({
        timing: { ...timing, outage: slow },
        before: ({ faults }) => faults.failNext(1, 503, retryAfter),
      });
      const { reflector, reaches } = testBed;
      reflector.checkNow();
      if (isEnded) await reaches('watching');
      else await new Promise((resolve) => setTimeout(resolve, 60));
      assert.equal(reflector.synced, isEnded);
    });
  }
});

describe('the staleness of a store', () => {
  const clock = new HandClock();
  it('ends with each event, bookmark and list, and grows otherwise', async () => {
    await using testBed = await openWatching({
      ...noBookmarks,
      clock,
      timing: { ...quick, healthyMs: 60_000 },
    });
    const { fake, reflector, apply, reaches } = testBed;
    const staleMs = (): number => reflector.stats().stalenessMs;
    const grows = (): void => {
      clock.advance(30);
      assert.equal(staleMs(), 30);
    };
    /** Lets time pass too, as it waits before it tries again. */
    const passUntil = (what: string, holds: () => boolean): Promise<void> =>
      eventually(what, () => {
        if (holds()) return true;
        clock.advance(1);
        return false;
      });
    grows();
    await apply('one');
    assert.equal(staleMs(), 0);
    grows();
    fake.injectIntoWatches(bookmarkOf(String(fake.store.version)));
    await eventually('a bookmark', () => staleMs() === 0);
    grows();
    // An opened watch confirms nothing yet.
    fake.cutConnections();
    await passUntil('another watch', () => reflector.stats().restarts === 1);
    await reaches('watching');
    assert.ok(staleMs() >= 30);
    fake.faults.failNext(1, 410, { containing: 'watch=true' });
    fake.cutConnections();
    await passUntil('a list', () => staleMs() === 0);
    assert.equal(reflector.stats().relists, 1);
    grows();
    fake.closeWatches();
    await eventually('it ended in good order', () => staleMs() === 0);
    await reaches('watching');
    clock.advance(60_000);
    assert.equal(staleMs(), 0, 'without an event for long enough');
  });
});

describe('disposing a reflector', () => {
  for (const [moment, phase, prepare, check] of [
    ['while it lists', 'listing', ({ faults }: FakeKube) => (faults.hang = true), false],
    [
      'while it waits',
      'waiting',
      ({ faults }: FakeKube) => faults.failNext(9, 429, { retryAfterSec: 9 }),
      false,
    ],
    ['while it watches', 'watching', () => undefined, false],
    ['while it checks', 'watching', () => undefined, true],
  ] as const) {
    it(`${moment} leaves no timer and no connection`, async () => {
      const sockets = (): number =>
        process.getActiveResourcesInfo().filter((kind) => kind.startsWith('TCP')).length;
      const before = sockets();
      const clock = countingClock();
      const testBed = await openTestBed({
        before: prepare,
        clock,
        timing: { checkGraceMs: 60_000 },
      });
      const { fake, client, reflector } = testBed;
      await testBed.reaches(phase);
      await eventually('it asked', () => fake.requests.length === 1);
      if (check) reflector.checkNow();
      using time = new OwnTime();
      await reflector[Symbol.asyncDispose]();
      assert.ok(time.nowMs() < 500, `${time.nowMs()} ms`);
      assert.equal(clock.armed, 0);
      // A waiting request can still call it.
      reflector.checkNow();
      assert.equal(clock.armed, 0, 'armed by a later call');
      if (reflector.synced) await reflector.whenSynced();
      else await assert.rejects(reflector.whenSynced(), { name: 'AbortError' });
      const asked = fake.requests.length;
      await client[Symbol.asyncDispose]();
      await eventually('no socket is left at the server', () => fake.connections === 0);
      assert.equal(fake.requests.length, asked);
      await testBed[Symbol.asyncDispose]();
      await eventually('no socket is left in the process', () => sockets() <= before);
    });
  }
});
