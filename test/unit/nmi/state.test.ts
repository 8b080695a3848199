/** What the agent knows of its node: the watches together, their age, waiting requests, own pods. */
import assert from 'node:assert/strict';
import { describe, it, mock, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { openFakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import { createPodManifest } from '../../../lab/fakes/kube/manifests.ts';
import { createLogger } from '../../../src/base/logger.ts';
import { StartError } from '../../../src/base/start-error.ts';
import { systemClock, type Clock } from '../../../src/base/time/clock.ts';
import type { Pod } from '../../../src/cache/index/objects.ts';
import { readiness } from '../../../src/nmi/base/readiness.ts';
import { parseConfig } from '../../../src/nmi/config/config.ts';
import { tuning } from '../../../src/nmi/config/tuning.ts';
import type { WatchOptions } from '../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import { parsePod } from '../../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../../src/nmi/kube/watch/reflector.ts';
import type { WatchedResource } from '../../../src/nmi/kube/watch/watches.ts';
import {
  openClusterState,
  type ClusterState,
  type ClusterStateOptions,
} from '../../../src/nmi/state/cluster-state.ts';
import { openConfiguredClient } from '../../../src/nmi/state/configured-client.ts';
import { openNodePods } from '../../../src/nmi/state/node-pods.ts';
import { StalenessLimit } from '../../../src/nmi/state/staleness-limit.ts';
import { Waiters } from '../../../src/nmi/state/waiters.ts';
import { clientOf, eventually, keptLog, MapStore } from './kube/kube-test-bed.ts';
import { createBinding, createIdentity, createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { hourMs, pass } from '../../support/token-fixture.ts';
import { world } from '../../world.ts';

function configOf(flags: Readonly<Record<string, string>>) {
  const parsed = parseConfig({ node: 'n', ...flags }, {});
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed.config;
}

/** The system's clock, which a test can move ahead. */
class ClockAhead implements Clock {
  aheadMs = 0;
  readonly wallMs = (): number => systemClock.wallMs();
  readonly monotonicMs = (): number => systemClock.monotonicMs() + this.aheadMs;
  readonly schedule = (delayMs: number, work: () => void): (() => void) =>
    systemClock.schedule(delayMs, work);
}

const byAddress: ClusterStateOptions['network'] = {
  placeOf: () => ({ link: 5 }),
  hasLink: () => true,
};

interface Given {
  readonly flags?: Readonly<Record<string, string>>;
  readonly attests?: boolean;
  readonly isByLink?: boolean;
  readonly isEmpty?: boolean;
}

async function openState({ flags = {}, attests = false, isByLink, isEmpty }: Given = {}) {
  const clock = new ClockAhead();
  await using stack = new AsyncDisposableStack();
  const kube = stack.use(await openFakeKube());
  const client = stack.use(await clientOf(kube));
  if (isEmpty !== true) {
    kube.apply(createPodManifest({ name: 'p', nodeName: 'n', ips: ['10.0.0.5'], binding: 'app' }));
    kube.apply(createPodManifest({ name: 'other', nodeName: 'elsewhere', ips: ['10.0.0.6'] }));
  }
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const network = isByLink === true || !attests ? byAddress : undefined;
  const config = configOf(flags);
  const options = { config, tuning, client, clock, log, attests, network };
  const state = stack.use(openClusterState(options));
  const isSynced = () => eventually('synced', () => state.isSynced());
  const stop = stack.move();
  return { kube, state, clock, lines, isSynced, [Symbol.asyncDispose]: () => stop.disposeAsync() };
}

describe('the state of the node in the agent', () => {
  it('is ready after the first lists, and has only the pods of this node', async () => {
    await using testBed = await openState();
    const { state, lines, isSynced } = testBed;
    assert.ok(!state.isSynced());
    assert.match(readiness([state]).missing['watches'] ?? '', /^waiting for /);
    await isSynced();
    assert.deepEqual(readiness([state]), { ready: true, missing: {} });
    assert.deepEqual(
      [...state.pods.all()].map(({ name }) => name),
      ['p'],
    );
    assert.match(lines.at(-1) ?? '', /"pods":1\b.*"msg":"all watches synced"/);
    assert.equal(state.podsAskedAs(), 'node');
    assert.equal(state.workloadIdentities, undefined, 'service accounts are not read');
    const pod = state.pods.byName('default', 'p');
    assert.ok(pod !== undefined && state.places !== undefined);
    const isOfLink = (link: number) => state.places?.isOf(pod, '10.0.0.5', { link });
    assert.deepEqual([isOfLink(5), isOfLink(6)], [true, false], 'the place when its event arrived');
  });

  it('wakes the waiting requests when an object changes', async () => {
    await using testBed = await openState();
    const { state, kube, isSynced } = testBed;
    await isSynced();
    const waiting = state.waiters.nextChange(60_000);
    kube.apply(createPodManifest({ name: 'q', nodeName: 'n', ips: ['10.0.0.7'] }));
    await waiting;
    assert.equal(state.pods.byIp('10.0.0.7').kind, 'pod');
  });

  it('wakes the waiting requests after first lists without objects', async () => {
    await using testBed = await openState({ isEmpty: true });
    let isAwake = false;
    void testBed.state.waiters.nextChange(60_000).then(() => (isAwake = true));
    await eventually('awake', () => isAwake);
    await testBed.isSynced();
  });

  it('wakes the waiting requests when a service account is read', async () => {
    await using testBed = await openState({ flags: { 'workload-identity': 'true' } });
    const { state, kube, isSynced } = testBed;
    await isSynced();
    const labels = { 'azure.workload.identity/use': 'true' };
    kube.apply(createPodManifest({ name: 'w', nodeName: 'n', ips: ['10.0.0.8'], labels }));
    await eventually('known', () => state.pods.byName('default', 'w') !== undefined);
    const pod = state.pods.byName('default', 'w') ?? assert.fail();
    assert.equal(state.workloadIdentities?.of(pod).kind, 'unknown');
    await state.waiters.nextChange(60_000);
    assert.equal(state.workloadIdentities?.of(pod).kind, 'unannotated');
  });

  it('checks its watches for waiting requests, but less often than pods send them', async () => {
    await using testBed = await openState();
    const { state, clock, isSynced } = testBed;
    await isSynced();
    const check = mock.method(state.watches, 'checkNow', () => undefined);
    const hurry = mock.method(state.watches, 'hurry', () => undefined);
    const waitTen = async (): Promise<void> => {
      const waiting = Array.from({ length: 10 }, () => state.waiters.nextChange(60_000));
      state.waiters.wake();
      await Promise.all(waiting);
    };
    await waitTen();
    assert.equal(check.mock.callCount(), 1);
    clock.aheadMs = 5_000;
    await waitTen();
    assert.equal(check.mock.callCount(), 2);
    // The reflectors limit it themselves.
    assert.equal(hurry.mock.callCount(), 20);
  });

  it('is shown as samples', async () => {
    await using testBed = await openState();
    const { state, isSynced } = testBed;
    await isSynced();
    /** @param words the metric, then the values of its labels. */
    const valueOf = (words: string) =>
      state
        .samples()
        .find((each) => [each.metric, ...Object.values(each.labels ?? {})].join(' ') === words)
        ?.value;
    for (const [words, value] of [
      ['nmi_index_pods all', 1],
      ['nmi_index_pods bound', 0],
      ['nmi_index_objects identities', 0],
      ['nmi_index_objects grants', 0],
      ['nmi_watch_synced pods', 1],
      ['nmi_watch_errors_total pods outage', 0],
      ['nmi_waiting_requests', 0],
      ['nmi_identities_not_owned warn', 0],
    ] as const) {
      assert.equal(valueOf(words), value, words);
    }
    const age = valueOf('nmi_watch_last_event_seconds pods') ?? 99;
    assert.ok(age < 60, 'seconds');
    const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';
    state.grants.identities.upsert(createIdentity({ clientId }));
    state.grants.bindings.upsert(createBinding());
    state.pods.upsert(createPod({ name: 'bound', labels: { aadpodidbinding: 'label' } }));
    assert.equal(valueOf('nmi_identities_not_owned warn'), 1);
    const waiting = state.waiters.nextChange(1);
    assert.equal(valueOf('nmi_waiting_requests'), 1);
    await waiting;
  });

  it('trusts addresses up to the limit, and without limit when the kernel attests', async () => {
    await using testBed = await openState({ flags: { 'address-staleness-limit': '10s' } });
    await testBed.isSynced();
    assert.ok(testBed.state.trusts('address'));
    testBed.clock.aheadMs = 11_000;
    const staleness = testBed.state
      .samples()
      .filter(({ metric }) => metric === 'nmi_watch_staleness_seconds')
      .map(({ value }) => value);
    assert.ok(staleness.length > 0);
    for (const seconds of staleness) assert.ok(seconds >= 10.9 && seconds < 60, `${seconds}`);
    assert.ok(!testBed.state.trusts('address'));
    assert.ok(readiness([testBed.state]).missing['pod_ips_current'] !== undefined);
    const flags = { 'address-staleness-limit': '10s' };
    await using attesting = await openState({ flags, attests: true });
    assert.equal(attesting.state.places, undefined);
    assert.ok(attesting.state.trusts('address'), 'before the first list');
    attesting.clock.aheadMs = 11_000;
    assert.ok(attesting.state.trusts('address'), 'no event for 11 s');
  });

  it('limits the age of rights, however a pod is known', async () => {
    const flags = { 'rights-staleness-limit': '60s', 'address-staleness-limit': '0' };
    await using testBed = await openState({ flags, attests: true, isByLink: true });
    const { state, clock, kube, isSynced } = testBed;
    await isSynced();
    assert.equal(state.rightsProblem(), undefined);
    kube.faults.hang = true;
    clock.aheadMs = 61_000;
    const ages = ['pods', 'identities', 'bindings', 'exceptions', 'grants'].map(
      (name) => `${name} for 1 min \\d+ s`,
    );
    assert.match(
      String(state.rightsProblem()),
      new RegExp(`^not proven current: ${ages.join(', ')}$`),
    );
    const missing = readiness([state]).missing['rights_current'];
    assert.match(
      String(missing),
      /^no pod gets a token: rights are not proven current: pods for 1 min/,
    );
    assert.ok(state.trusts('link'), 'the caller is known all the same');
    kube.faults.clear();
    kube.cutConnections();
    await eventually('current again', () => state.rightsProblem() === undefined);
    const never = { 'rights-staleness-limit': '0' };
    await using unlimited = await openState({ flags: never, attests: true });
    await unlimited.isSynced();
    unlimited.clock.aheadMs = 30 * 24 * 3_600_000;
    assert.equal(unlimited.state.rightsProblem(), undefined);
  });

  it('limits the trust in links, and is ready nevertheless when the kernel attests', async () => {
    const flags = { 'address-staleness-limit': '10s' };
    await using testBed = await openState({ flags, attests: true, isByLink: true });
    await testBed.isSynced();
    assert.ok(testBed.state.trusts('link'));
    testBed.clock.aheadMs = 11_000;
    assert.ok(!testBed.state.trusts('link'));
    assert.ok(testBed.state.trusts('address'), 'of callers with a record');
    assert.equal(readiness([testBed.state]).missing['pod_ips_current'], undefined);
  });
});

describe('the configured client', () => {
  it('names the remedy if there is no usable configuration', async () => {
    const config = { kubeconfigPath: '/nothing/here', customUserAgent: '' };
    await assert.rejects(
      openConfiguredClient({ config, clock: systemClock, environment: {} }),
      (error) =>
        error instanceof StartError &&
        error.code === 'CONFIG' &&
        /--kubeconfig/.test(error.message),
    );
  });
});

const listed = {
  type: 'BOOKMARK',
  object: {
    metadata: { resourceVersion: '7', annotations: { 'k8s.io/initial-events-end': 'true' } },
  },
};

/** A real watch of a cluster without any change: not even a bookmark arrives. */
function openQuiet(limitMs: number) {
  const clock = new HandClock();
  const state = { isBlackHole: false, opened: 0 };

  /** As in the client: a silent connection fails, and one that is not accepted fails sooner. */
  async function silence(ms: number, signal: AbortSignal | undefined): Promise<never> {
    return await new Promise((_resolve, reject) => {
      const disarm = clock.schedule(ms, () => {
        reject(new KubeError('TIMEOUT', 'silent'));
      });
      signal?.addEventListener('abort', () => {
        disarm();
        reject(new Error('aborted'));
      });
    });
  }
  async function* watch(path: string, options: WatchOptions): AsyncGenerator {
    if (state.isBlackHole) await silence(5_000, options.signal);
    state.opened += 1;
    options.onOpen?.();
    if (path.includes('sendInitialEvents')) yield listed;
    await silence(options.silenceMs, options.signal);
  }
  const reflector = openReflector<Pod>({
    listsBy: 'stream',
    name: 'pods',
    path: '/api/v1/pods',
    parse: parsePod,
    store: new MapStore<Pod>(),
    client: { watch, getJson: () => Promise.resolve(listed.object) },
    clock,
    random: () => 0.999,
    log: keptLog(),
  });
  const trust = new StalenessLimit({
    clock,
    limitMs,
    watches: {
      ages: () => [{ resource: 'pods', stalenessMs: reflector.stalenessMs }],
      checkNow: () => reflector.checkNow(),
    },
  });
  return {
    clock,
    state,
    trust,
    async [Symbol.asyncDispose]() {
      trust[Symbol.dispose]();
      await reflector[Symbol.asyncDispose]();
      assert.deepEqual(clock.armed, [], 'a timer is still armed');
    },
  };
}

/** Seconds of the hour during which the address was stale. */
async function countLost(fixture: ReturnType<typeof openQuiet>, ms: number): Promise<number> {
  let lost = 0;
  for (let passedMs = 0; passedMs < ms; passedMs += 1_000) {
    await pass(fixture.clock, 1_000);
    if (fixture.trust.problem() !== undefined) lost += 1;
  }
  return lost;
}

describe('a limit of staleness', () => {
  it('is never reached in a quiet healthy cluster, and the usual one causes no more watches', async () => {
    const opened = new Map<number, number>();
    for (const limitMs of [10_000, 102_000, 900_000, 0]) {
      await using fixture = openQuiet(limitMs);
      assert.equal(await countLost(fixture, hourMs), 0, `${limitMs} ms`);
      opened.set(limitMs, fixture.state.opened);
    }
    assert.equal(opened.get(900_000), opened.get(0));
  });

  it('is never lost without a limit', async () => {
    await using fixture = openQuiet(0);
    fixture.state.isBlackHole = true;
    assert.equal(await countLost(fixture, hourMs), 0);
  });

  for (const limitMs of [10_000, 900_000]) {
    it(`ends after ${limitMs} ms in a black hole, and returns soon after it`, async () => {
      await using fixture = openQuiet(limitMs);
      await pass(fixture.clock, 2_000);
      fixture.state.isBlackHole = true;
      // Silence is detected by then, and everything earlier was confirmed earlier.
      const heardMs = 101_000;
      await pass(fixture.clock, limitMs + heardMs);
      assert.match(String(fixture.trust.problem()), /^not proven current: pods for /);
      assert.ok((await countLost(fixture, hourMs)) === hourMs / 1_000, 'trusted again meanwhile');
      fixture.state.isBlackHole = false;
      await pass(fixture.clock, 20_000);
      assert.equal(fixture.trust.problem(), undefined, 'not trusted again');
    });
  }

  it('ends to the millisecond, counted from the last confirmation of each watch', () => {
    const clock = new HandClock();
    const provenAtMs = { pods: 0, bindings: 0 };
    const checked: (string | undefined)[] = [];
    const ages = (name?: WatchedResource) =>
      (['pods', 'bindings'] as const)
        .filter((each) => name === undefined || name === each)
        .map((resource) => ({ resource, stalenessMs: clock.monotonicMs() - provenAtMs[resource] }));
    const watches = { ages, checkNow: (name?: WatchedResource) => checked.push(name) };
    using ofAll = new StalenessLimit({ clock, limitMs: 10_000, watches });
    using ofPods = new StalenessLimit({ clock, limitMs: 10_000, watches, resource: 'pods' });
    clock.advance(4_999);
    assert.deepEqual(checked, []);
    provenAtMs.pods = 4_999;
    clock.advance(1);
    assert.deepEqual(checked, ['bindings'], 'a watch is checked after half of the time');
    clock.advance(5_000);
    assert.equal(ofAll.problem(), undefined);
    clock.advance(1);
    assert.equal(ofAll.problem('they are '), 'they are not proven current: bindings for 10 s');
    assert.equal(ofPods.problem(), undefined);
    provenAtMs.bindings = clock.monotonicMs();
    assert.equal(ofAll.problem(), undefined);
  });
});

function openWaiters(maxWaiters = 2) {
  const clock = new HandClock();
  const waiters = new Waiters({ clock, maxWaiters });
  const woken: string[] = [];
  const wait = (name: string, maxMs: number): void => {
    void waiters.nextChange(maxMs).then(() => woken.push(name));
  };
  return { clock, waiters, woken, wait };
}

describe('requests that wait for an object', () => {
  it('are all woken by a change, and leave no timer behind', async () => {
    const { clock, waiters, woken, wait } = openWaiters();
    wait('one', 1_000);
    assert.deepEqual([waiters.size, waiters.isFull], [1, false]);
    wait('two', 2_000);
    assert.deepEqual([waiters.size, waiters.isFull], [2, true]);
    waiters.wake();
    await nextTurn();
    assert.deepEqual(woken, ['one', 'two']);
    assert.equal(waiters.size, 0);
    assert.deepEqual(clock.armed, []);
  });

  it('wait no longer than their own deadline, and the others continue', async () => {
    const { clock, waiters, woken, wait } = openWaiters();
    wait('one', 1_000);
    wait('two', 2_000);
    clock.advance(999);
    await nextTurn();
    assert.deepEqual(woken, []);
    clock.advance(1);
    await nextTurn();
    assert.deepEqual(woken, ['one']);
    assert.deepEqual([waiters.size, waiters.isFull], [1, false]);
  });

  it('wait for the next change when they wait again during one', async () => {
    const { waiters, woken, wait } = openWaiters();
    void waiters.nextChange(1_000).then(() => wait('again', 1_000));
    waiters.wake();
    await nextTurn();
    assert.deepEqual(woken, []);
    assert.equal(waiters.size, 1);
    waiters.wake();
    await nextTurn();
    assert.deepEqual(woken, ['again']);
  });
});

const debounceMs = 50;
const hostNetwork = true;
const driver = createPod({ name: 'driver', hostNetwork, uid: 'u1' });
const labels = { aadpodidbinding: 'label' };

async function openPods(t: TestContext, flags: Readonly<Record<string, string>> = {}) {
  const { clock, pods, clusterState } = world();
  let isSynced = false;
  const synced = Promise.withResolvers<undefined>();
  const accounts = new Set<string>();
  const accountsChanged: (() => void)[] = [];
  const state = {
    ...clusterState,
    isSynced: () => isSynced,
    workloadIdentities: {
      of: ({ name }: { name: string }) => ({ kind: accounts.has(name) ? 'unknown' : 'none' }),
      onChange: (listener: () => void) => {
        accountsChanged.push(listener);
        return () => undefined;
      },
    },
    watches: { whenSynced: () => synced.promise },
  } as unknown as ClusterState;
  const told: (readonly bigint[])[] = [];
  const cgroups = new Map([
    ['u1', 1n],
    ['u2', 2n],
    ['u3', 3n],
  ]);
  const kernel = {
    podCgroup: (uid: string) => cgroups.get(uid),
    letThrough: (ids: readonly bigint[]) => {
      told.push(ids);
      return Promise.resolve();
    },
  };
  const policy = { strict: false, graceMs: 0, hostNetwork: 'serve' } as const;
  const opened = openNodePods({ config: configOf(flags), state, kernel, policy, clock });
  t.after(() => opened[Symbol.dispose]());
  const sync = async (): Promise<void> => {
    isSynced = true;
    synced.resolve(undefined);
    await synced.promise;
    clock.advance(debounceMs);
  };
  const change = (work: () => void): readonly bigint[] | undefined => {
    told.length = 0;
    work();
    clock.advance(debounceMs);
    return told.at(-1);
  };
  return { clock, pods, accounts, accountsChanged, told, cgroups, sync, change, opened };
}

describe('the pods of the node itself', () => {
  it('are those on the host network for which nothing names an identity, once all is known', async (t) => {
    const { pods, told, sync, change, accounts, accountsChanged } = await openPods(t);
    pods.replace([
      driver,
      createPod({ name: 'bound', hostNetwork, uid: 'u2', labels }),
      createPod({ name: 'app', uid: 'u3', ips: ['10.0.0.5'] }),
    ]);
    assert.equal(
      change(() => undefined),
      undefined,
      'bindings may be missing',
    );
    await sync();
    assert.deepEqual(told, [[1n]]);
    const accountsAre = (...names: readonly string[]): void => {
      accounts.clear();
      for (const name of names) accounts.add(name);
      for (const listener of accountsChanged) listener();
    };
    const steps: readonly (readonly [() => void, readonly bigint[]])[] = [
      [() => pods.upsert({ ...driver, labels }), []],
      [() => pods.upsert(driver), [1n]],
      [() => accountsAre('driver'), []],
      [() => accountsAre(), [1n]],
      [() => pods.upsert({ ...driver, phase: 'Succeeded' }), []],
    ];
    for (const [step, expected] of steps) assert.deepEqual(change(step), expected);
  });

  it('are let through when the kubelet has made their cgroups, which is looked for in growing pauses', async (t) => {
    const { clock, pods, told, cgroups, sync } = await openPods(t);
    cgroups.delete('u1');
    pods.upsert(driver);
    await sync();
    assert.deepEqual(told, [[]]);
    clock.advance(600_000);
    assert.ok(told.length > 20 && told.length < 30, `${told.length} times in ten minutes`);
    cgroups.set('u1', 1n);
    clock.advance(30_000);
    assert.deepEqual(told.at(-1), [1n]);
    assert.deepEqual(clock.armed, []);
  });

  it('do not take the cgroup of another pod by a name that they choose', async (t) => {
    const { pods, sync, told } = await openPods(t);
    const bound = createPod({ name: 'bound', hostNetwork, uid: 'u2', labels });
    const named = createPod({ name: 'static', hostNetwork, uid: 'u4', labels, cgroupUid: 'u3' });
    const thief = createPod({ name: 'thief', hostNetwork, uid: 'u5', cgroupUid: 'u3' });
    pods.replace([bound, { ...driver, cgroupUid: 'u2' }, named, thief]);
    await sync();
    assert.deepEqual(told, [[]]);
  });

  for (const flags of [{ 'host-network': 'refuse' }, { 'block-instance-metadata': 'true' }]) {
    it(`are redirected like all others with ${JSON.stringify(flags)}`, async (t) => {
      const { pods, sync, told } = await openPods(t, flags);
      assert.deepEqual(told, [[]], 'an earlier agent may have let some through');
      pods.upsert(driver);
      await sync();
      assert.equal(told.length, 1);
    });
  }

  it('are not looked at any more after the end', async (t) => {
    const { clock, pods, cgroups, sync, change, opened } = await openPods(t);
    cgroups.clear();
    pods.upsert(driver);
    await sync();
    opened[Symbol.dispose]();
    assert.equal(
      change(() => pods.upsert({ ...driver, labels })),
      undefined,
    );
    assert.deepEqual(clock.armed, []);
  });
});
