import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { openFakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import { createPodManifest } from '../../../lab/fakes/kube/manifests.ts';
import { createLogger } from '../../../src/base/logger.ts';
import { parseConfig } from '../../../src/nmi/config/config.ts';
import { tuning } from '../../../src/nmi/config/tuning.ts';
import { readiness } from '../../../src/nmi/base/readiness.ts';
import {
  openClusterState,
  type ClusterStateOptions,
} from '../../../src/nmi/state/cluster-state.ts';
import { systemClock, type Clock } from '../../../src/base/time/clock.ts';
import { createBinding, createIdentity, createPod } from '../../support/cache-objects.ts';
import { clientOf, eventually } from '../kube/kube-test-bed.ts';

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

async function open(
  flags: Readonly<Record<string, string>> = {},
  attests = false,
  isByLink = false,
) {
  const clock = new ClockAhead();
  await using stack = new AsyncDisposableStack();
  const kube = stack.use(await openFakeKube());
  const client = stack.use(await clientOf(kube));
  kube.apply(createPodManifest({ name: 'p', nodeName: 'n', ips: ['10.0.0.5'], binding: 'app' }));
  kube.apply(createPodManifest({ name: 'other', nodeName: 'elsewhere', ips: ['10.0.0.6'] }));
  const parsed = parseConfig({ node: 'n', ...flags }, {});
  assert.ok(parsed.ok);
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const network = isByLink || !attests ? byAddress : undefined;
  const state = stack.use(
    openClusterState({
      ...{ config: parsed.config, tuning, client, clock, log, attests, network },
    }),
  );
  const stop = stack.move();
  return { kube, state, clock, lines, [Symbol.asyncDispose]: () => stop.disposeAsync() };
}

describe('the state of the node in the agent', () => {
  it('is ready after the first lists, and has only the pods of this node', async () => {
    await using testBed = await open();
    const { state, lines } = testBed;
    assert.ok(!state.isSynced());
    assert.match(readiness([state]).missing['watches'] ?? '', /^waiting for /);
    await eventually('synced', () => state.isSynced());
    assert.deepEqual(readiness([state]), { ready: true, missing: {} });
    assert.deepEqual(
      [...state.pods.all()].map(({ name }) => name),
      ['p'],
    );
    const synced = lines.map((line) => JSON.parse(line) as Record<string, unknown>).at(-1);
    assert.deepEqual([synced?.['msg'], synced?.['pods']], ['all watches synced', 1]);
  });

  it('asks the API server for pods as its own node', async () => {
    await using testBed = await open();
    const { state } = testBed;
    await eventually('synced', () => state.isSynced());
    assert.equal(state.podsAskedAs(), 'node');
  });

  it('wakes the waiting requests when an object changes', async () => {
    await using testBed = await open();
    const { state, kube } = testBed;
    await eventually('synced', () => state.isSynced());
    const waiting = state.waiters.nextChange(60_000);
    kube.apply(createPodManifest({ name: 'q', nodeName: 'n', ips: ['10.0.0.7'] }));
    await waiting;
    assert.equal(state.pods.byIp('10.0.0.7').kind, 'pod');
  });

  it('wakes the waiting requests after the first lists', async () => {
    await using testBed = await open();
    await testBed.state.waiters.nextChange(60_000);
    await eventually('synced', () => testBed.state.isSynced());
  });

  it('wakes the waiting requests after first lists without any object', async () => {
    await using kube = await openFakeKube();
    await using client = await clientOf(kube);
    const parsed = parseConfig({ node: 'n' }, {});
    assert.ok(parsed.ok);
    const log = createLogger({ format: 'json', level: 'error', write: () => undefined });
    const options = { config: parsed.config, tuning, client, clock: systemClock, log };
    await using state = openClusterState({ ...options, attests: false, network: byAddress });
    let isAwake = false;
    void state.waiters.nextChange(60_000).then(() => (isAwake = true));
    await eventually('awake', () => isAwake);
    assert.ok(state.isSynced());
  });

  it('wakes the waiting requests when a service account is read', async () => {
    await using testBed = await open({ 'workload-identity': 'true' });
    const { state, kube } = testBed;
    await eventually('synced', () => state.isSynced());
    const labels = { 'azure.workload.identity/use': 'true' };
    kube.apply(createPodManifest({ name: 'w', nodeName: 'n', ips: ['10.0.0.8'], labels }));
    await eventually('known', () => state.pods.byName('default', 'w') !== undefined);
    const pod = state.pods.byName('default', 'w') ?? assert.fail();
    assert.equal(state.workloadIdentities?.of(pod).kind, 'unknown');
    await state.waiters.nextChange(60_000);
    assert.equal(state.workloadIdentities?.of(pod).kind, 'unannotated');
  });

  it('checks its watches for waiting requests, but less often than pods send them', async () => {
    await using testBed = await open();
    const { state, clock } = testBed;
    await eventually('synced', () => state.isSynced());
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
    await using testBed = await open();
    const { state } = testBed;
    await eventually('synced', () => state.isSynced());
    const valueOf = (metric: string, labels: Readonly<Record<string, string>> = {}) =>
      state
        .samples()
        .find(
          (each) =>
            each.metric === metric &&
            Object.entries(labels).every(([name, value]) => each.labels?.[name] === value),
        )?.value;
    assert.equal(valueOf('nmi_index_pods', { kind: 'all' }), 1);
    assert.equal(valueOf('nmi_index_pods', { kind: 'bound' }), 0);
    assert.equal(valueOf('nmi_index_objects', { kind: 'identities' }), 0);
    assert.equal(valueOf('nmi_watch_synced', { resource: 'pods' }), 1);
    assert.equal(valueOf('nmi_watch_errors_total', { resource: 'pods', kind: 'outage' }), 0);
    assert.ok(
      (valueOf('nmi_watch_last_event_seconds', { resource: 'pods' }) ?? 99) < 60,
      'seconds',
    );
    assert.equal(valueOf('nmi_waiting_requests'), 0);
    assert.equal(valueOf('nmi_index_objects', { kind: 'grants' }), 0);
    assert.equal(valueOf('nmi_identities_not_owned', { mode: 'warn' }), 0);
    state.grants.identities.upsert(
      createIdentity({ clientId: '22729e47-74ce-4b43-8eea-aab5f2073301' }),
    );
    state.grants.bindings.upsert(createBinding());
    state.pods.upsert(createPod({ name: 'bound', labels: { aadpodidbinding: 'label' } }));
    assert.equal(valueOf('nmi_identities_not_owned', { mode: 'warn' }), 1);
    const waiting = state.waiters.nextChange(1);
    assert.equal(valueOf('nmi_waiting_requests'), 1);
    await waiting;
  });

  it('reads service accounts only when that is on', async () => {
    await using plain = await open();
    assert.equal(plain.state.workloadIdentities, undefined);
    await using other = await open({ 'workload-identity': 'true' });
    assert.ok(other.state.workloadIdentities !== undefined);
  });

  it('records the places of its pods when their events arrive', async () => {
    await using testBed = await open();
    const { state } = testBed;
    await eventually('synced', () => state.isSynced());
    const pod = state.pods.byName('default', 'p');
    assert.ok(pod !== undefined && state.places !== undefined);
    assert.ok(state.places.isOf(pod, '10.0.0.5', { link: 5 }));
    assert.ok(!state.places.isOf(pod, '10.0.0.5', { link: 6 }));
  });

  it('trusts addresses up to the limit, and without limit when the kernel attests', async () => {
    await using testBed = await open({ 'address-staleness-limit': '10s' });
    await eventually('synced', () => testBed.state.isSynced());
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
    await using attesting = await open({ 'address-staleness-limit': '10s' }, true);
    assert.equal(attesting.state.places, undefined);
    assert.ok(attesting.state.trusts('address'), 'before the first list');
    attesting.clock.aheadMs = 11_000;
    assert.ok(attesting.state.trusts('address'), 'no event for 11 s');
  });

  it('limits the age of rights, however a pod is known', async () => {
    const flags = { 'rights-staleness-limit': '60s', 'address-staleness-limit': '0' };
    await using testBed = await open(flags, true, true);
    const { state, clock, kube } = testBed;
    await eventually('synced', () => state.isSynced());
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
    await using unlimited = await open({ 'rights-staleness-limit': '0' }, true);
    await eventually('synced', () => unlimited.state.isSynced());
    unlimited.clock.aheadMs = 30 * 24 * 3_600_000;
    assert.equal(unlimited.state.rightsProblem(), undefined);
  });

  it('limits the trust in links, and is ready nevertheless when the kernel attests', async () => {
    await using testBed = await open({ 'address-staleness-limit': '10s' }, true, true);
    await eventually('synced', () => testBed.state.isSynced());
    assert.ok(testBed.state.trusts('link'));
    testBed.clock.aheadMs = 11_000;
    assert.ok(!testBed.state.trusts('link'));
    assert.ok(testBed.state.trusts('address'), 'of callers with a record');
    assert.equal(readiness([testBed.state]).missing['pod_ips_current'], undefined);
  });
});
