import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import type { Binding, Pod } from '../../../../src/cache/index/objects.ts';
import { Observers } from '../../../../src/cache/index/observers.ts';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import type { KubeClient } from '../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { parseBinding, parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import {
  openReflector,
  type Reflector,
  type ReflectorOptions,
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
import { OwnTime } from '../../../../lab/pods/own-time.ts';

interface TestBed extends AsyncDisposable {
  readonly fake: FakeKube;
  readonly store: MapStore<Pod>;
  readonly log: ReturnType<typeof keptLog>;
  readonly reflector: Reflector;
  /** Most client watches that were open at once. */
  readonly mostWatches: number;
  watching(): Promise<void>;
}

/** A reflector of node-a's pods on a fake API. */
async function openTestBed(
  over: Partial<ReflectorOptions<Pod>> & {
    readonly before?: (fake: FakeKube) => void;
    readonly bookmarkEveryMs?: number;
  } = {},
): Promise<TestBed> {
  const { before, bookmarkEveryMs = 10, ...options } = over;
  const fake = await openFakeKube({ bookmarkEveryMs });
  before?.(fake);
  const client = await clientOf(fake);
  const counted = countWatches(client);
  const store = new MapStore<Pod>();
  const log = keptLog();
  const reflector = openReflector<Pod>({
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
    store,
    log,
    reflector,
    get mostWatches() {
      return counted.most();
    },
    async watching() {
      await eventually('a watch is open', () => reflector.stats().phase === 'watching');
    },
    async [Symbol.asyncDispose]() {
      await reflector[Symbol.asyncDispose]();
      await client[Symbol.asyncDispose]();
      await fake[Symbol.asyncDispose]();
    },
  };
}

function countWatches(client: KubeClient) {
  let open = 0;
  let most = 0;
  return {
    most: () => most,
    reader: {
      getJson: (...args: Parameters<KubeClient['getJson']>) => client.getJson(...args),
      async *watch(...args: Parameters<KubeClient['watch']>) {
        open += 1;
        most = Math.max(most, open);
        try {
          yield* client.watch(...args);
        } finally {
          open -= 1;
        }
      },
    },
  };
}

/** Requests for all objects, as a stream or page by page; a check requests one object. */
function lists(fake: FakeKube): string[] {
  const urls = fake.requests.map(({ url }) => url).filter((url) => !/[?&]limit=1(?:&|$)/.test(url));
  return urls.filter((url) => !url.includes('watch=true') || url.includes('sendInitialEvents'));
}

function phaseOf({ reflector }: TestBed): string {
  return reflector.stats().phase;
}

/** Its waits after failures, in milliseconds. */
function waits({ log }: TestBed): number[] {
  return log.lines.flatMap(({ fields }) =>
    'retryInMs' in fields ? Number(fields['retryInMs']) : [],
  );
}

describe('a reflector', () => {
  it('lists, reports that it is synced, and follows every kind of event', async () => {
    await using testBed = await openTestBed({
      before: (fake) => {
        fake.apply(rawPod('one'));
        fake.apply(rawPod('elsewhere', { node: 'node-b' }));
      },
    });
    const { fake, store, reflector } = testBed;
    assert.equal(reflector.synced, false);
    await reflector.whenSynced();
    assert.equal(reflector.synced, true);
    assert.deepEqual(store.names(), ['default/one']);
    await testBed.watching();

    fake.apply(rawPod('two'));
    await store.until('two came', () => store.items.has('default/two'));
    fake.patch({ kind: 'Pod', name: 'two' }, { status: { podIP: '10.0.0.9', podIPs: null } });
    await store.until('two changed', () => store.items.get('default/two')?.ips[0] === '10.0.0.9');
    fake.delete({ kind: 'Pod', name: 'one' });
    await store.until('one went', () => !store.items.has('default/one'));
    fake.patch({ kind: 'Pod', name: 'two' }, { status: { phase: 'Succeeded' } });
    await store.until('two finished', () => store.items.size === 0);

    assert.equal(store.replaced.length, 1);
    assert.equal(reflector.stats().objects, 0);
    assert.equal(lists(fake).length, 1);
    assert.equal(testBed.mostWatches, 1);
    assert.deepEqual(
      testBed.log.lines.map(({ message }) => message),
      ['watch synced'],
    );
  });

  it('requests a list as a stream that continues as the watch', async () => {
    await using testBed = await openTestBed({
      random: () => 0.5,
      before: (fake) => {
        fake.apply(rawPod('one'));
      },
    });
    const { fake, store } = testBed;
    await testBed.watching();
    assert.equal(fake.requests.length, 1);
    const { searchParams } = new URL(fake.requests[0]?.url ?? '', fake.url);
    assert.deepEqual(Object.fromEntries(searchParams), {
      fieldSelector: 'spec.nodeName=node-a,status.phase!=Succeeded',
      watch: 'true',
      allowWatchBookmarks: 'true',
      sendInitialEvents: 'true',
      resourceVersionMatch: 'NotOlderThan',
      timeoutSeconds: '360',
    });
    fake.apply(rawPod('two'));
    await store.until('two came', () => store.items.has('default/two'));
    assert.equal(fake.requests.length, 1);
  });

  it('requests pages and a watch when lists are not streamed', async () => {
    await using testBed = await openTestBed({ random: () => 0.5, listsBy: 'pages' });
    await testBed.watching();
    const [list, watch] = testBed.fake.requests.map(({ url }) => new URL(url, testBed.fake.url));
    assert.equal(list?.searchParams.get('resourceVersion'), null);
    assert.equal(list?.searchParams.get('limit'), '500');
    assert.match(list?.searchParams.get('fieldSelector') ?? '', /^spec\.nodeName=node-a,/);
    assert.equal(watch?.searchParams.get('allowWatchBookmarks'), 'true');
    assert.equal(watch?.searchParams.get('timeoutSeconds'), '360');
    assert.equal(watch?.searchParams.get('resourceVersion'), String(testBed.fake.store.version));
    assert.equal(watch?.searchParams.get('fieldSelector'), list?.searchParams.get('fieldSelector'));
    assert.equal(testBed.reflector.stats().restarts, 0);
  });

  it('reopens at once after a clean close and misses nothing in between', async () => {
    await using testBed = await openTestBed({
      timing: {
        ...quick,
        backoff: { baseMs: 60_000, capMs: 60_000 },
        outage: { baseMs: 60_000, capMs: 60_000 },
      },
    });
    const { fake, store } = testBed;
    await testBed.watching();
    for (let round = 0; round < 3; round += 1) {
      await testBed.watching();
      await new Promise((resolve) => setTimeout(resolve, 40));
      fake.closeWatches();
      const name = `pod-${round}`;
      fake.apply(rawPod(name));
      await store.until('the new pod came', () => store.items.has(`default/${name}`));
    }
    assert.deepEqual(waits(testBed), []);
    assert.equal(lists(fake).length, 1);
    assert.deepEqual(testBed.reflector.stats().errorsByKind.outage, 0);
  });

  it('resumes from the newest event or bookmark, not from its start', async () => {
    await using testBed = await openTestBed();
    const { fake, store } = testBed;
    const resumedFrom = (): string | null =>
      new URL(fake.requests.at(-1)?.url ?? '', fake.url).searchParams.get('resourceVersion');
    await testBed.watching();
    fake.apply(rawPod('one'));
    await store.until('one came', () => store.items.has('default/one'));
    fake.closeWatches();
    await eventually('it resumed', () => resumedFrom() === String(fake.store.version));
    await testBed.watching();
    // Only a bookmark shows a write that the selector hides.
    fake.apply(rawPod('elsewhere', { node: 'node-b' }));
    const bookmarked = String(fake.store.version);
    const mark = { metadata: { resourceVersion: bookmarked } };
    fake.injectIntoWatches(`${JSON.stringify({ type: 'BOOKMARK', object: mark })}\n`);
    fake.closeWatches();
    await eventually('it resumed from a bookmark', () => resumedFrom() === bookmarked);
    assert.equal(lists(fake).length, 1);
  });

  it('opens a closed watch again at once, twice, and waits before it does so again', async () => {
    await using testBed = await openTestBed({ clock: new HandClock() });
    const { fake, reflector } = testBed;
    for (const restarts of [0, 1, 2]) {
      await eventually(`the watch after ${restarts} is open`, () => {
        return phaseOf(testBed) === 'watching' && reflector.stats().restarts === restarts;
      });
      fake.closeWatches();
    }
    await eventually('it waits', () => phaseOf(testBed) === 'waiting');
  });

  it('does not loop on a server that closes every watch at once', async () => {
    await using testBed = await openTestBed({
      timing: { ...quick, backoff: { baseMs: 30, capMs: 200 } },
    });
    const { fake } = testBed;
    const closer = setInterval(() => {
      fake.closeWatches();
    }, 0);
    const startMs = performance.now();
    await testBed.reflector.whenSynced();
    await eventually('it tries again', () => testBed.reflector.stats().restarts >= 5);
    const { restarts } = testBed.reflector.stats();
    const tookMs = performance.now() - startMs;
    clearInterval(closer);
    assert.ok(restarts <= 2 + tookMs / 20, `${restarts} restarts in ${tookMs} ms`);
  });

  it('resumes after a cut without listing again', async () => {
    await using testBed = await openTestBed();
    const { fake, store, reflector } = testBed;
    await testBed.watching();
    fake.cutConnections();
    fake.apply(rawPod('late'));
    await store.until('the pod came', () => store.items.has('default/late'));
    assert.equal(lists(fake).length, 1);
    const { errorsByKind: errors, restarts, relists } = reflector.stats();
    assert.ok(errors.outage >= 1 && restarts >= 1);
    assert.equal(relists, 0);
    await eventually('it says so', () =>
      testBed.log.lines.some(({ message }) => message === 'watch recovered'),
    );
  });

  for (const goneByStatus of [false, true]) {
    const how = goneByStatus ? 'status' : 'event';
    it(`lists again, in one step, when a 410 ${how} reports that its version expired`, async () => {
      await using testBed = await openTestBed({
        before: (fake) => {
          fake.faults.goneByStatus = goneByStatus;
          fake.apply(rawPod('old'));
        },
      });
      const { fake, store, reflector } = testBed;
      await testBed.watching();
      fake.faults.hang = true;
      fake.cutConnections();
      fake.delete({ kind: 'Pod', name: 'old' });
      fake.apply(rawPod('new'));
      fake.compact();
      assert.deepEqual(store.names(), ['default/old'], 'known objects are kept while it is away');
      fake.faults.hang = false;
      fake.cutConnections();
      await store.until('the new state came', () => store.items.has('default/new'));
      assert.deepEqual(store.names(), ['default/new']);
      assert.equal(store.replaced.length, 2);
      assert.equal(reflector.stats().relists, 1);
      assert.equal(reflector.stats().errorsByKind.expiry, 1);
      // Memory of a server that lags could go back in time.
      assert.doesNotMatch(lists(fake).at(-1) ?? '', /resourceVersion=/);
      await testBed.watching();
      fake.apply(rawPod('newer'));
      await store.until('the watch goes on', () => store.items.has('default/newer'));
    });
  }

  it('reads a list page by page, from its beginning when the snapshot expires', async () => {
    await using testBed = await openTestBed({
      pageSize: 2,
      listsBy: 'pages',
      before: (fake) => {
        for (let at = 0; at < 5; at += 1) fake.apply(rawPod(`pod-${at}`));
      },
    });
    const { fake, store, reflector } = testBed;
    await testBed.watching();
    assert.equal(lists(fake).length, 3);
    fake.faults.failNext(1, 410, { containing: 'continue=' });
    fake.faults.failNext(1, 410, { containing: 'watch=true' });
    fake.closeWatches();
    await eventually('it listed again', () => reflector.stats().relists === 1);
    const relists = lists(fake).slice(3);
    assert.deepEqual(
      relists.map((url) => ['continue', 'limit'].find((word) => url.includes(word))),
      ['limit', 'continue', 'limit', 'continue', 'continue'],
    );
    assert.ok(relists.every((url) => !url.includes('resourceVersion')));
    assert.equal(store.items.size, 5);
    assert.equal(store.replaced.at(-1)?.length, 5);
  });

  it('detects a connection that went silent, and opens another', async () => {
    await using testBed = await openTestBed({ timing: { ...quick, silenceMs: 60 } });
    const { fake, store, reflector } = testBed;
    await testBed.watching();
    fake.goSilent();
    fake.apply(rawPod('unseen'));
    await store.until('it came on another connection', () => store.items.has('default/unseen'));
    // A quiet resource may be silent, too.
    assert.deepEqual(Object.values(reflector.stats().errorsByKind).filter(Boolean), []);
    assert.deepEqual(
      testBed.log.lines.map(({ level }) => level),
      ['info', 'debug'],
    );
    assert.equal(lists(fake).length, 1);
    await eventually('the silent one is closed', () => fake.watches() === 1);
  });

  it('lets a connection be silent for 80 seconds, and up to a quarter longer', async () => {
    for (const [chance, expectedMs] of [
      [0, 80_000],
      [1, 100_000],
    ] as const) {
      const asked = Promise.withResolvers<number>();
      const client: ReflectorOptions<Pod>['client'] = {
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

  it('does not treat a quiet resource as a silent connection while bookmarks arrive', async () => {
    const clock = new HandClock();
    await using testBed = await openTestBed({ clock, timing: { ...quick, silenceMs: 400 } });
    await testBed.watching();
    for (let round = 0; round < 3; round += 1) {
      clock.advance(300);
      await eventually('a bookmark', () => testBed.reflector.stats().lastContactAgeMs === 0);
    }
    assert.equal(testBed.reflector.stats().restarts, 0);
  });

  it('waits a fifth of a second after the first failure of either kind', async () => {
    for (const status of [403, 500]) {
      await using testBed = await openTestBed({
        clock: new HandClock(),
        random: () => 1,
        timing: {},
        before: (fake) => {
          fake.faults.failNext(1, status);
        },
      });
      await eventually('it waits', () => phaseOf(testBed) === 'waiting');
      assert.deepEqual(waits(testBed), [200], `${status}`);
    }
  });

  it('waits as long as a 429 or 503 requires', async () => {
    await using testBed = await openTestBed({
      before: (fake) => {
        fake.faults.failNext(1, 429, { retryAfterSec: 1 });
      },
    });
    await eventually('it waits', () => phaseOf(testBed) === 'waiting');
    const startMs = performance.now();
    assert.equal(testBed.reflector.stats().failure?.code, 'THROTTLED');
    const [waitMs = 0] = waits(testBed);
    assert.ok(waitMs >= 1000 && waitMs <= 1250, `${waitMs}`);
    await testBed.reflector.whenSynced();
    assert.ok(performance.now() - startMs > 900);
    assert.equal(lists(testBed.fake).length, 2);
  });

  it('outlives every refusal, logs it once, and counts each', async () => {
    await using testBed = await openTestBed({
      before: (fake) => {
        for (const status of [401, 403, 404, 500]) fake.faults.failNext(3, status);
      },
    });
    await testBed.reflector.whenSynced();
    const { errorsByKind: errors } = testBed.reflector.stats();
    assert.deepEqual([errors.refusal, errors.outage], [9, 3]);
    const told = testBed.log.lines.filter(({ level }) => level === 'warn' || level === 'error');
    assert.deepEqual(
      told.map(({ fields }) => fields['code']),
      ['UNAUTHORIZED', 'FORBIDDEN', 'NOT_FOUND', 'SERVER'],
    );
  });

  it('is not synced while its resource type is not installed, and is when it is added', async () => {
    await using fake = await openFakeKube();
    fake.faults.notInstalled.add('azureidentitybindings');
    await using client = await clientOf(fake);
    const store = new MapStore<Binding>();
    const log = keptLog();
    await using reflector = openReflector<Binding>({
      listsBy: 'stream',
      name: 'bindings',
      path: '/apis/aadpodidentity.k8s.io/v1/azureidentitybindings',
      parse: parseBinding,
      store,
      client,
      clock: systemClock,
      random: Math.random,
      log,
      timing: quick,
    });
    await eventually('it tried', () => reflector.stats().errorsByKind.refusal >= 3);
    assert.equal(reflector.synced, false);
    const told = log.lines.filter(({ level }) => level === 'error');
    assert.deepEqual(
      told.map(({ message }) => message),
      ['resource type is not installed, retrying'],
    );
    fake.faults.notInstalled.clear();
    fake.apply(rawBinding('b', 'demo'));
    await reflector.whenSynced();
    await store.until('it is there', () => store.items.has('default/b'));
  });

  it('survives an exception of the store and lists again', async () => {
    await using testBed = await openTestBed();
    const { fake, store, reflector } = testBed;
    await testBed.watching();
    store.poison = new Error('handler broke');
    fake.apply(rawPod('poisoned'));
    await store.until('it came by list', () => store.items.has('default/poisoned'));
    assert.equal(reflector.stats().errorsByKind.exception, 1);
    assert.equal(store.replaced.length, 2);
    await testBed.watching();
    fake.apply(rawPod('next'));
    await store.until('the watch goes on', () => store.items.has('default/next'));
  });

  it('lists again after an invalid line', async () => {
    await using testBed = await openTestBed();
    const { fake, store, reflector } = testBed;
    for (const text of [
      'garbage\n',
      '{"type":"ADDED"}\n',
      '{"type":"WHAT","object":{}}\n',
      '7\n',
    ]) {
      await testBed.watching();
      const { relists } = reflector.stats();
      fake.injectIntoWatches(text);
      await eventually('it listed again', () => reflector.stats().relists === relists + 1);
    }
    assert.equal(reflector.stats().errorsByKind.refusal, 4);
    await testBed.watching();
    fake.apply(rawPod('after'));
    await store.until('the watch goes on', () => store.items.has('default/after'));
  });

  it('names fifty unusable objects of a namespace', async () => {
    await using fake = await openFakeKube();
    for (let count = 0; count < 80; count++) {
      fake.apply({ ...rawBinding(`bad-${count}`, 'demo'), spec: { selector: 7 } });
    }
    await using client = await clientOf(fake);
    const log = keptLog();
    await using reflector = openReflector<Binding>({
      listsBy: 'stream',
      name: 'bindings',
      path: '/apis/aadpodidentity.k8s.io/v1/azureidentitybindings',
      parse: parseBinding,
      store: new MapStore<Binding>(),
      client,
      clock: systemClock,
      random: Math.random,
      log,
      timing: quick,
    });
    await reflector.whenSynced();
    assert.equal(reflector.stats().rejected, 80);
    assert.equal(log.lines.filter(({ level }) => level === 'warn').length, 50);
  });

  it('skips an unusable object, reports it once, and drops its previous version', async () => {
    await using fake = await openFakeKube();
    fake.apply(rawBinding('good', 'demo'));
    fake.apply(rawBinding('turns', 'demo'));
    fake.apply({ ...rawBinding('bad', 'demo'), spec: { selector: 7 } });
    await using client = await clientOf(fake);
    const store = new MapStore<Binding>();
    const log = keptLog();
    await using reflector = openReflector<Binding>({
      listsBy: 'stream',
      name: 'bindings',
      path: '/apis/aadpodidentity.k8s.io/v1/azureidentitybindings',
      parse: parseBinding,
      store,
      client,
      clock: systemClock,
      random: Math.random,
      log,
      timing: quick,
    });
    await reflector.whenSynced();
    await eventually('it watches', () => reflector.stats().phase === 'watching');
    assert.deepEqual(store.names(), ['default/good', 'default/turns']);
    fake.patch({ kind: 'AzureIdentityBinding', name: 'turns' }, { spec: { selector: 7 } });
    await store.until('the old version went', () => store.items.size === 1);
    fake.patch({ kind: 'AzureIdentityBinding', name: 'bad' }, { spec: { weight: 1 } });
    await eventually('all were rejected', () => reflector.stats().rejected === 3);
    const told = log.lines.filter(({ level }) => level === 'warn');
    assert.equal(told.length, 2);
    assert.equal(told[0]?.fields['reason'], 'spec.selector is not a string');
    fake.patch({ kind: 'AzureIdentityBinding', name: 'bad' }, { spec: { selector: 'demo' } });
    await store.until('it is usable now', () => store.items.has('default/bad'));
    assert.equal(reflector.stats().objects, 2);
  });
});

describe('an object above the size limit', () => {
  const tooLong = (type: string, metadata: object, version: string): string => {
    const pod = {
      kind: 'Pod',
      apiVersion: 'v1',
      metadata: { ...metadata, resourceVersion: version },
    };
    const line = JSON.stringify({ type, object: { ...pod, x: '' } });
    return `${line.slice(0, -3)}${'\\u003c'.repeat(1_500_000)}"}}\n`;
  };

  it('is skipped and counted, its previous version is dropped, and the watch continues', async () => {
    await using testBed = await openTestBed({ before: (fake) => fake.apply(rawPod('big')) });
    const { fake, store, log, reflector } = testBed;
    await testBed.watching();
    const uid = store.items.get('default/big')?.uid ?? '';
    const ref = { name: 'big', namespace: 'default', uid };
    fake.injectIntoWatches(tooLong('MODIFIED', ref, '90'));
    await store.until('it lost its rights', () => store.items.size === 0);
    fake.apply(rawPod('next'));
    await store.until('the watch goes on', () => store.items.has('default/next'));
    const { rejected, relists, errorsByKind: errors } = reflector.stats();
    assert.deepEqual([rejected, relists, errors.refusal], [1, 0, 0]);
    const [line] = log.lines.filter(({ message }) => message === 'unusable object ignored');
    assert.deepEqual(line?.fields['object'], { namespace: 'default', name: 'big', uid });
  });

  it('causes a new list if its name is unknown', async () => {
    await using testBed = await openTestBed({ before: (fake) => fake.apply(rawPod('one')) });
    const { fake, reflector } = testBed;
    await testBed.watching();
    fake.injectIntoWatches(tooLong('MODIFIED', { labels: {} }, '90'));
    await eventually('it listed again', () => reflector.stats().relists === 1);
  });
});

describe('a streamed list', () => {
  const two = (fake: FakeKube): void => {
    fake.apply(rawPod('one'));
    fake.apply(rawPod('two'));
  };
  const streamed = (fake: FakeKube): number =>
    fake.requests.filter(({ url }) => url.includes('sendInitialEvents')).length;

  it('is put into the store in one step, at its end', async () => {
    await using testBed = await openTestBed({ before: two });
    await testBed.reflector.whenSynced();
    assert.deepEqual(
      testBed.store.replaced.map((items) => items.map(({ name }) => name)),
      [['one', 'two']],
    );
  });

  it('that is cut is requested again, and the store keeps its content until then', async () => {
    await using testBed = await openTestBed({ before: two });
    const { fake, store, reflector } = testBed;
    await testBed.watching();
    fake.delete({ kind: 'Pod', name: 'two' });
    await store.until('two went', () => store.items.size === 1);
    fake.faults.failNext(1, 410, { containing: 'resourceVersion=' });
    fake.faults.cutNextWatchAfterBytes = 40;
    fake.closeWatches();
    fake.apply(rawPod('three'));
    await store.until('three came', () => store.items.has('default/three'));
    assert.deepEqual(store.names(), ['default/one', 'default/three']);
    assert.deepEqual(
      store.replaced.map((items) => items.length),
      [2, 2],
    );
    assert.equal(streamed(fake), 3);
    assert.equal(reflector.stats().errorsByKind.outage, 1);
  });

  for (const status of [400, 422]) {
    it(`that is refused with ${status} is requested page by page, from then on and at once`, async () => {
      await using testBed = await openTestBed({
        timing: { ...quick, backoff: { baseMs: 60_000, capMs: 60_000 } },
        before: (fake) => {
          two(fake);
          fake.faults.failNext(1, status, { containing: 'sendInitialEvents' });
        },
      });
      const { fake, store, reflector, log } = testBed;
      await testBed.watching();
      assert.deepEqual(store.names(), ['default/one', 'default/two']);
      assert.equal(reflector.stats().errorsByKind.outage, 0);
      fake.faults.failNext(1, 410, { containing: 'watch=true' });
      fake.closeWatches();
      await eventually('it listed again', () => reflector.stats().relists === 1);
      assert.equal(streamed(fake), 1);
      const told = log.lines.filter(({ message }) => message.includes('page by page'));
      assert.deepEqual(
        told.map(({ fields }) => fields['reason']),
        ['failed on purpose'],
      );
    });
  }

  it('is still preferred after an outage and after another refusal', async () => {
    await using testBed = await openTestBed({
      before: (fake) => {
        two(fake);
        for (const status of [500, 503, 403]) fake.faults.failNext(1, status);
      },
    });
    await testBed.watching();
    assert.equal(streamed(testBed.fake), 4);
    assert.equal(lists(testBed.fake).length, 4);
  });
});

describe('a paged list', () => {
  it('gets along with objects so large that few of them are a page', async () => {
    const annotations = { text: 'x'.repeat(250_000) };
    const names = Array.from({ length: 100 }, (_, index) => `large-${100 + index}`);
    await using testBed = await openTestBed({
      listsBy: 'pages',
      before: (fake) => {
        for (const name of names) {
          const { metadata, ...pod } = rawPod(name);
          fake.apply({ ...pod, metadata: { ...metadata, annotations } });
        }
      },
    });
    await testBed.reflector.whenSynced();
    assert.equal(testBed.store.size, 100);
    const limits = testBed.fake.requests.map(({ url }) => /[?&]limit=(\d+)/.exec(url)?.[1]);
    assert.deepEqual(limits.slice(0, 4), ['500', '63', '8', '8']);
    assert.equal(testBed.reflector.stats().failure, undefined);
  });

  it('gets along with an object that is larger than a page', async () => {
    const annotations = { text: 'x'.repeat(5 * 1024 * 1024) };
    await using testBed = await openTestBed({
      listsBy: 'pages',
      before: (fake) => {
        const { metadata, ...pod } = rawPod('large');
        fake.apply({ ...pod, metadata: { ...metadata, annotations } });
        fake.apply(rawPod('small'));
      },
    });
    const { store } = testBed;
    await store.until('it is listed', () => store.items.size > 0);
    assert.deepEqual(store.names(), ['default/large', 'default/small']);
    assert.equal(testBed.reflector.stats().failure, undefined);
  });
});

describe('reflectors of one server', () => {
  it('learn from the first one that it is available again', async () => {
    const recovery = new Observers();
    const late = { baseMs: 60_000, capMs: 60_000 };
    const refusing = (fake: FakeKube): void => {
      fake.faults.failNext(1, 503);
    };
    await using slow = await openTestBed({
      recovery,
      before: refusing,
      timing: { ...quick, outage: late },
    });
    await eventually('it waits', () => phaseOf(slow) === 'waiting');
    await using throttled = await openTestBed({
      recovery,
      before: (fake) => {
        fake.faults.failNext(1, 503, { retryAfterSec: 60 });
      },
    });
    await eventually('it waits', () => phaseOf(throttled) === 'waiting');
    await using quickly = await openTestBed({ recovery, before: refusing });
    await quickly.watching();
    await slow.watching();
    assert.equal(phaseOf(throttled), 'waiting', 'it had to stay away for a given time');
  });

  it('learn it in the first part of a long wait', async () => {
    const clock = new HandClock();
    const recovery = new Observers();
    await using testBed = await openTestBed({
      clock,
      recovery,
      random: () => 1,
      timing: { ...quick, outage: { baseMs: 1_000, capMs: 1_000 } },
      before: (fake) => fake.faults.failNext(Infinity, 503),
    });
    const waitsAfter = (failures: number) =>
      eventually(`it waits after ${failures} failures`, () => {
        const { phase, errorsByKind } = testBed.reflector.stats();
        return phase === 'waiting' && errorsByKind.outage === failures;
      });
    await waitsAfter(1);
    clock.advance(600_000);
    await waitsAfter(2);
    assert.ok((waits(testBed).at(-1) ?? 0) > 1_000, 'the wait has a second part');
    recovery.notify();
    await waitsAfter(3);
  });

  it('learn it from one whose kind is not installed, too', async () => {
    const recovery = new Observers();
    await using slow = await openTestBed({
      recovery,
      before: (fake) => fake.faults.failNext(1, 503),
      timing: { ...quick, outage: { baseMs: 60_000, capMs: 60_000 } },
    });
    await eventually('it waits', () => phaseOf(slow) === 'waiting');
    await using _absent = await openTestBed({
      recovery,
      absence: 'presumed',
      before: (fake) => {
        fake.faults.failNext(1, 503);
        fake.faults.failNext(Infinity, 404);
      },
    });
    await slow.watching();
  });
});

describe('a check', () => {
  const timing = { ...quick, silenceMs: 60_000, checkGraceMs: 20, checkEveryMs: 200 };
  const quiet = { timing, bookmarkEveryMs: 60_000 };

  it('replaces a silent watch long before its deadline, and misses nothing', async () => {
    await using testBed = await openTestBed(quiet);
    const { fake, store, reflector } = testBed;
    await testBed.watching();
    fake.goSilent();
    fake.apply(rawPod('unseen'));
    reflector.checkNow();
    await store.until('it came on another watch', () => store.items.has('default/unseen'));
    await eventually('the silent one is closed', () => fake.watches() === 1);
    assert.equal(testBed.mostWatches, 1);
    assert.equal(lists(fake).length, 1);
    assert.deepEqual(Object.values(reflector.stats().errorsByKind).filter(Boolean), []);
  });

  it('ends when the watch receives something', async () => {
    const clock = new HandClock();
    await using testBed = await openTestBed({ ...quiet, clock });
    const { fake, store, reflector } = testBed;
    await testBed.watching();
    reflector.checkNow();
    clock.advance(1);
    fake.apply(rawPod('late'));
    await store.until('it came', () => store.items.has('default/late'));
    clock.advance(2 * timing.checkGraceMs);
    assert.equal(phaseOf(testBed), 'watching');
    assert.equal(reflector.stats().restarts, 0);
  });

  it('costs the server one watch in a while, for any number of requests', async () => {
    await using testBed = await openTestBed(quiet);
    const { reflector } = testBed;
    await testBed.watching();
    const startMs = performance.now();
    const asking = setInterval(() => {
      reflector.checkNow();
    }, 1);
    await eventually('it opened two', () => reflector.stats().restarts >= 2);
    clearInterval(asking);
    const most = 1 + (performance.now() - startMs) / timing.checkEveryMs;
    const { restarts } = reflector.stats();
    assert.ok(restarts <= most, `${restarts} restarts`);
  });

  it('ends the wait for the end of an outage, but no wait that the server required', async () => {
    const late = { baseMs: 60_000, capMs: 60_000 };
    for (const [retryAfterSec, isEnded] of [
      [undefined, true],
      [60, false],
    ] as const) {
      await using testBed = await openTestBed({
        timing: { ...timing, outage: late },
        before: (fake) => {
          const told = retryAfterSec === undefined ? {} : { retryAfterSec };
          fake.faults.failNext(1, 503, told);
        },
      });
      await eventually('it waits', () => phaseOf(testBed) === 'waiting');
      testBed.reflector.checkNow();
      if (isEnded) await testBed.watching();
      else await new Promise((resolve) => setTimeout(resolve, 60));
      assert.equal(testBed.reflector.synced, isEnded);
    }
  });

  it('leaves no timer', async () => {
    const clock = countingClock();
    const testBed = await openTestBed({
      ...quiet,
      clock,
      timing: { ...timing, checkGraceMs: 60_000 },
    });
    await testBed.watching();
    testBed.reflector.checkNow();
    await testBed[Symbol.asyncDispose]();
    assert.equal(clock.armed, 0);
  });
});

describe('the retries of a reflector', () => {
  it('do not get slower from one kind of failure to another', async () => {
    await using testBed = await openTestBed({
      timing: { ...quick, backoff: { baseMs: 1, capMs: 60_000 }, outage: { baseMs: 1, capMs: 5 } },
      before: (fake) => {
        fake.faults.failNext(20, 500);
        fake.faults.failNext(1, 403);
      },
    });
    await testBed.reflector.whenSynced();
    const delaysMs = waits(testBed);
    assert.equal(delaysMs.length, 21);
    // The waits of an outage also grow with its length, on a busy machine too.
    const lastMs = delaysMs.at(-1) ?? NaN;
    assert.ok(lastMs <= 5, `${lastMs}`);
  });

  it('count the duration of an attempt as waited', async () => {
    await using testBed = await openTestBed({
      timing: { ...quick, outage: { baseMs: 10, capMs: 10 } },
      client: {
        getJson: () => Promise.reject(new KubeError('NETWORK', 'not used')),
        watch: () => ({
          [Symbol.asyncIterator]: () => ({
            async next() {
              await new Promise((resolve) => setTimeout(resolve, 30));
              throw new KubeError('TIMEOUT', 'the API server did not answer');
            },
          }),
        }),
      },
    });
    await eventually('it tried twice', () => testBed.reflector.stats().errorsByKind.outage >= 2);
    assert.ok(waits(testBed).every((delayMs) => delayMs === 0));
  });
});

describe('the staleness of a store', () => {
  it('ends with each event, bookmark and list, and grows otherwise', async () => {
    const timing = { ...quick, healthyMs: 60_000 };
    const clock = new HandClock();
    await using testBed = await openTestBed({ bookmarkEveryMs: 60_000, clock, timing });
    const { fake, store, reflector } = testBed;
    await testBed.watching();
    const stale = (): void => {
      clock.advance(30);
      assert.equal(reflector.stats().stalenessMs, 30);
    };
    /** Lets time pass too, as it waits before it tries again. */
    const passUntil = (what: string, holds: () => boolean): Promise<void> =>
      eventually(what, () => {
        if (holds()) return true;
        clock.advance(1);
        return false;
      });
    stale();
    fake.apply(rawPod('one'));
    await store.until('it came', () => store.items.size === 1);
    assert.equal(reflector.stats().stalenessMs, 0);
    stale();
    const mark = { metadata: { resourceVersion: String(fake.store.version) } };
    fake.injectIntoWatches(`${JSON.stringify({ type: 'BOOKMARK', object: mark })}\n`);
    await eventually('a bookmark', () => reflector.stats().stalenessMs === 0);
    stale();
    // An opened watch confirms nothing yet.
    fake.cutConnections();
    await passUntil('another watch', () => reflector.stats().restarts === 1);
    await testBed.watching();
    assert.ok(reflector.stats().stalenessMs >= 30);
    fake.faults.failNext(1, 410, { containing: 'watch=true' });
    fake.cutConnections();
    await passUntil('a list', () => reflector.stats().stalenessMs === 0);
    assert.equal(reflector.stats().relists, 1);
  });

  it('also ends with a normal end, and with a watch without events', async () => {
    const timing = { ...quick, healthyMs: 100 };
    await using testBed = await openTestBed({ bookmarkEveryMs: 60_000, timing });
    const { fake, reflector } = testBed;
    await testBed.watching();
    await eventually('the list is old', () => reflector.stats().stalenessMs > 80);
    await eventually('it told nothing', () => reflector.stats().stalenessMs < 20);
    await eventually('that is old', () => reflector.stats().stalenessMs > 80);
    fake.closeWatches();
    await eventually('it ended in good order', () => reflector.stats().stalenessMs < 20);
  });
});

describe('disposing a reflector', () => {
  const moments: readonly [string, (fake: FakeKube) => void, (fake: FakeKube) => boolean][] = [
    ['while it lists', (fake) => (fake.faults.hang = true), (fake) => fake.requests.length === 1],
    [
      'while it waits',
      (fake) => fake.faults.failNext(9, 429, { retryAfterSec: 9 }),
      (fake) => fake.requests.length === 1,
    ],
    ['while it watches', () => undefined, (fake) => fake.watches() === 1],
  ];
  for (const [moment, prepare, reached] of moments) {
    it(`${moment} leaves no timer and no connection`, async () => {
      const sockets = (): number =>
        process.getActiveResourcesInfo().filter((kind) => kind.startsWith('TCP')).length;
      const before = sockets();
      const fake = await openFakeKube();
      prepare(fake);
      const clock = countingClock();
      const client = await clientOf(fake, clock);
      const reflector = openReflector<Pod>({
        listsBy: 'stream',
        name: 'pods',
        path: '/api/v1/pods',
        parse: parsePod,
        store: new MapStore<Pod>(),
        client,
        clock,
        random: Math.random,
        log: keptLog(),
      });
      await eventually('the moment came', () => reached(fake));
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
      await fake[Symbol.asyncDispose]();
      await eventually('no socket is left in the process', () => sockets() <= before);
    });
  }
});
