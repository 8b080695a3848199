import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type {
  Binding,
  Exception,
  Identity,
  IdentityGrant,
  Pod,
} from '../../../../src/cache/index/objects.ts';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import {
  olderThan,
  watchConditions,
  watchProblems,
} from '../../../../src/nmi/kube/watch/watch-report.ts';
import { openWatches, type Watches } from '../../../../src/nmi/kube/watch/watches.ts';
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

function createStores() {
  return {
    pods: new MapStore<Pod>(),
    identities: new MapStore<Identity>(),
    bindings: new MapStore<Binding>(),
    exceptions: new MapStore<Exception>(),
    grants: new MapStore<IdentityGrant>(),
  };
}

function rawCustom(kind: string, name: string, spec: object) {
  const metadata = { name, namespace: 'default' };
  return { apiVersion: 'aadpodidentity.k8s.io/v1', kind, metadata, spec };
}

function rawGrant(name: string, spec: object) {
  return {
    apiVersion: 'aadpodidentity.k8s.io/v1',
    kind: 'AzureIdentityGrant',
    metadata: { name },
    spec,
  };
}

function askedForGrants(fake: FakeKube): number {
  return fake.requests.filter(({ url }) => url.includes('azureidentitygrants')).length;
}

function describeProblem(watches: Watches): string | undefined {
  return watchConditions(watches, 300_000)[0]?.problem();
}

describe('the five watches', () => {
  it("fill their stores with this node's live pods and all custom resources", async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.apply(rawPod('mine'));
    fake.apply(rawPod('other', { node: 'node-b' }));
    fake.apply(rawPod('done', { phase: 'Succeeded' }));
    fake.apply(rawPod('broken', { phase: 'Failed' }));
    fake.apply(rawPod('new', { phase: 'Pending' }));
    fake.apply(rawCustom('AzureIdentity', 'id', { clientID: 'c' }));
    fake.apply(rawBinding('b', 'demo'));
    fake.apply(rawCustom('AzurePodIdentityException', 'x', { podLabels: { app: 'mic' } }));
    fake.apply(rawGrant('shop', { namespaces: ['shop'], clientIDs: ['C'] }));
    const stores = createStores();
    await using watches = openWatches({
      client,
      node: 'node-a',
      stores,
      log: keptLog(),
      timing: quick,
    });
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
    await eventually('each has one watch', () => fake.watches() === 5);
    for (const plural of ['pods', 'azureidentities']) assert.equal(fake.watches(plural), 1);
  });

  it('store 1 MiB of exceptions of a namespace', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    for (let at = 0; at < 1_500; at++) {
      fake.apply(rawCustom('AzurePodIdentityException', `x${at}`, { podLabels: { app: 'mic' } }));
    }
    const [stores, log] = [createStores(), keptLog()];
    await using watches = openWatches({ client, node: 'node-a', stores, log, timing: quick });
    await watches.whenSynced();
    const { bytes, objects, rejected } = watches.stats().exceptions;
    assert.ok(bytes > 1_047_000 && bytes <= 1_048_576, `${bytes} bytes`);
    assert.ok(objects > 1_000, `${objects} of 1,500`);
    assert.equal(objects + rejected, 1_500);
    const skip = log.lines.find(({ message }) => message.includes('unusable'));
    assert.match(JSON.stringify(skip), /already take 1 MiB/);
  });

  it('are synced only when all are, and report the missing one', async () => {
    await using fake = await openFakeKube();
    fake.faults.notInstalled.add('azurepodidentityexceptions');
    await using client = await clientOf(fake);
    const stores = createStores();
    const log = keptLog();
    await using watches = openWatches({ client, node: 'node-a', stores, log, timing: quick });
    await eventually('four are there', () => watches.unsynced().length === 1);
    assert.deepEqual(watches.unsynced(), ['exceptions']);
    assert.equal(watches.synced, false);
    fake.faults.notInstalled.clear();
    await watches.whenSynced();
    assert.deepEqual(watches.unsynced(), []);
  });

  it('are synced in a cluster without grants, and count no error', async () => {
    await using fake = await openFakeKube();
    fake.faults.notInstalled.add('azureidentitygrants');
    await using client = await clientOf(fake);
    const stores = createStores();
    const log = keptLog();
    const timing = { ...quick, absentEveryMs: 20 };
    const parts = { client, node: 'node-a', stores, log, timing };
    await using watches = openWatches({ ...parts, enforcesOwners: false });
    await watches.whenSynced();
    await eventually('it looked again', () => askedForGrants(fake) >= 3);
    assert.deepEqual(watches.stats().grants.errorsByKind.refusal, 0);
    const said = log.lines.filter(({ message }) => message.includes('taken as empty'));
    assert.equal(said.length, 1, 'it is logged once');
    fake.faults.notInstalled.clear();
    fake.apply(rawGrant('shop', { namespaces: ['shop'] }));
    await stores.grants.until('the kind is installed', () => stores.grants.items.size === 1);
  });

  it('have no grants when the agent may not list them, and keep listed ones', async () => {
    await using fake = await openFakeKube();
    fake.faults.failNext(3, 403, { containing: 'azureidentitygrants' });
    await using client = await clientOf(fake);
    const stores = createStores();
    const timing = { ...quick, absentEveryMs: 20 };
    const log = keptLog();
    fake.apply(rawGrant('shop', { namespaces: ['shop'] }));
    const parts = { client, node: 'node-a', stores, log, timing };
    await using watches = openWatches({ ...parts, enforcesOwners: false });
    await watches.whenSynced();
    await stores.grants.until('the right is given', () => stores.grants.items.size === 1);
    fake.faults.failNext(8, 403, { containing: 'azureidentitygrants' });
    fake.closeWatches();
    await eventually('it is refused', () => watches.stats().grants.errorsByKind.refusal === 8);
    assert.equal(stores.grants.items.size, 1);
  });

  it('soon ask again for grants that were refused once, and at once when they are checked', async () => {
    await using fake = await openFakeKube();
    fake.faults.failNext(4, 403, { containing: 'azureidentitygrants' });
    await using client = await clientOf(fake);
    const stores = createStores();
    const timing = { ...quick, absentEveryMs: 60_000 };
    fake.apply(rawGrant('shop', { namespaces: ['shop'] }));
    const clock = new HandClock();
    const parts = { client, node: 'node-a', stores, log: keptLog(), clock };
    await using watches = openWatches({ ...parts, timing, enforcesOwners: false });
    await watches.whenSynced();
    await eventually('it is refused again', () => {
      if (askedForGrants(fake) < 4) clock.advance(10);
      return askedForGrants(fake) === 4;
    });
    assert.ok(clock.monotonicMs() < 15_000, 'the pauses grow from a second');
    // The fourth pause does not end, since no time passes.
    await eventually('the fourth pause begins', () => watches.stats().grants.phase === 'waiting');
    assert.equal(watches.stats().grants.stalenessMs, 0, 'a refusal proves that there are none');
    watches.checkNow('grants');
    await stores.grants.until('the right is given', () => stores.grants.items.size === 1);
  });

  for (const enforcesOwners of [true, false]) {
    const where = enforcesOwners ? 'they decide' : 'they are only reported';

    it(`keep the grants where ${where} when a starting server refuses them after an expired version`, async () => {
      for (const [status, count] of [
        [403, 1],
        [404, 1],
        [403, 30],
        [404, 30],
      ] as const) {
        await using fake = await openFakeKube();
        await using client = await clientOf(fake);
        const stores = createStores();
        fake.apply(rawGrant('shop', { namespaces: ['shop'] }));
        const parts = { client, node: 'node-a', stores, log: keptLog(), timing: quick };
        await using watches = openWatches({ ...parts, enforcesOwners });
        await eventually('it watches', () => fake.watches('azureidentitygrants') === 1);
        fake.faults.failNext(1, 410, { containing: 'azureidentitygrants?watch' });
        fake.faults.failNext(count, status, { containing: 'azureidentitygrants?limit' });
        fake.closeWatches();
        await eventually('it is listed again', () => watches.stats().grants.relists === 1);
        fake.apply(rawGrant('office', { namespaces: ['office'] }));
        await stores.grants.until('both are there', () => stores.grants.items.size === 2);
        assert.equal(watches.stats().grants.errorsByKind.refusal, count);
        assert.ok(
          stores.grants.replaced.every(({ length }) => length > 0),
          `${status}: it was emptied`,
        );
      }
    });
  }

  it('report a right to list grants that was lost, and hold them', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const [stores, log, clock] = [createStores(), keptLog(), new HandClock()];
    fake.apply(rawGrant('shop', { namespaces: ['shop'] }));
    const parts = { client, node: 'node-a', stores, log, clock, timing: quick };
    await using watches = openWatches(parts);
    await eventually('it watches', () => fake.watches('azureidentitygrants') === 1);
    fake.faults.failNext(1, 410, { containing: 'azureidentitygrants' });
    fake.faults.failNext(Infinity, 403, { containing: 'azureidentitygrants' });
    fake.closeWatches();
    await eventually('it is refused for an hour', () => {
      if (watches.stats().grants.phase === 'waiting') clock.advance(30_000);
      return (watches.stats().grants.failure?.forMs ?? 0) > 3_600_000;
    });
    assert.equal(stores.grants.items.size, 1);
    const { grants } = watches.stats();
    assert.ok(grants.stalenessMs > 3_600_000, 'nothing proves that they are current');
    const problems = watchProblems(watches.stats()).map(({ resource, reason }) => [
      resource,
      reason,
    ]);
    assert.deepEqual(problems, [['grants', 'FORBIDDEN: failed on purpose']]);
  });

  it('are not synced without the right to list grants where they decide', async () => {
    await using fake = await openFakeKube();
    fake.faults.failNext(20, 403, { containing: 'azureidentitygrants' });
    await using client = await clientOf(fake);
    const stores = createStores();
    fake.apply(rawGrant('shop', { namespaces: ['shop'] }));
    const parts = { client, node: 'node-a', stores, log: keptLog(), timing: quick };
    await using watches = openWatches(parts);
    await eventually('it is refused', () => watches.stats().grants.errorsByKind.refusal >= 10);
    assert.deepEqual(watches.unsynced(), ['grants']);
    await watches.whenSynced();
    assert.deepEqual(
      stores.grants.replaced.map(({ length }) => length),
      [1],
    );
  });

  it('wait a minute for the kind of grants where they decide, before they count as none', async () => {
    await using fake = await openFakeKube();
    fake.faults.notInstalled.add('azureidentitygrants');
    await using client = await clientOf(fake);
    const [stores, log, clock] = [createStores(), keptLog(), new HandClock()];
    const parts = { client, node: 'node-a', stores, log, clock, timing: quick };
    await using watches = openWatches(parts);
    await eventually('it is missing for almost a minute', () => {
      if (watches.stats().grants.phase === 'waiting') clock.advance(1_000);
      return clock.monotonicMs() >= 59_000;
    });
    assert.deepEqual(watches.unsynced(), ['grants']);
    assert.match(describeProblem(watches) ?? '', /^waiting for grants \(NOT_FOUND/);
    // Another answer in between: the server was away.
    const asked = askedForGrants(fake);
    fake.faults.failNext(1, 503, { containing: 'azureidentitygrants' });
    await eventually('the minute begins again', () => {
      if (askedForGrants(fake) <= asked + 1) clock.advance(20);
      return askedForGrants(fake) > asked + 1;
    });
    const sinceMs = clock.monotonicMs();
    await eventually('they count as none', () => {
      if (watches.stats().grants.phase === 'waiting' && !watches.synced) clock.advance(1_000);
      return watches.synced;
    });
    assert.ok(clock.monotonicMs() - sinceMs >= 59_000, `${clock.monotonicMs() - sinceMs} ms`);
    assert.deepEqual(watchProblems(watches.stats()), []);
    const said = log.lines.filter(({ message }) => message.includes('taken as empty'));
    assert.equal(said.length, 1);
  });

  it('lose all grants with their kind, after a minute', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const [stores, clock] = [createStores(), new HandClock()];
    fake.apply(rawGrant('shop', { namespaces: ['shop'] }));
    const parts = { client, node: 'node-a', stores, log: keptLog(), clock, timing: quick };
    await using watches = openWatches(parts);
    await stores.grants.until('it is listed', () => stores.grants.items.size === 1);
    fake.faults.notInstalled.add('azureidentitygrants');
    fake.closeWatches();
    await eventually('it is gone', () => {
      if (watches.stats().grants.phase === 'waiting') clock.advance(1_000);
      return stores.grants.items.size === 0;
    });
    assert.ok(clock.monotonicMs() >= 60_000, `${clock.monotonicMs()} ms`);
  });

  it('report the stale ones, and count failures by kind', async () => {
    await using fake = await openFakeKube({ bookmarkEveryMs: 60_000 });
    await using client = await clientOf(fake);
    const stores = createStores();
    fake.faults.failNext(2, 500, { containing: 'azureidentities' });
    fake.faults.failNext(1, 403, { containing: 'azureidentitybindings' });
    const log = keptLog();
    await using watches = openWatches({ client, node: 'node-a', stores, log, timing: quick });
    await watches.whenSynced();
    await eventually('all are older than 60 ms', () => olderThan(60, watches.ages()).length === 5);
    fake.apply(rawPod('one'));
    await stores.pods.until('it came', () => stores.pods.items.size === 1);
    const { pods, identities, bindings, exceptions, grants } = watches.stats();
    const ages = [identities, bindings, exceptions, grants].map(({ stalenessMs }) => stalenessMs);
    // However long it took to get here, the age is between them.
    const limitMs = (pods.stalenessMs + Math.min(...ages)) / 2;
    const old = olderThan(limitMs, watches.ages()).map(({ resource }) => resource);
    assert.deepEqual(old, ['identities', 'bindings', 'exceptions', 'grants']);
    assert.deepEqual(
      watches.ages('pods').map(({ resource }) => resource),
      ['pods'],
    );
    assert.deepEqual(identities.errorsByKind, { outage: 2, refusal: 0, expiry: 0, exception: 0 });
    assert.deepEqual(bindings.errorsByKind, { outage: 0, refusal: 1, expiry: 0, exception: 0 });
  });

  it('list compressed: pods as a stream, which skips those that are too large, the others by pages', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const log = keptLog();
    const stores = createStores();
    await using watches = openWatches({ client, node: 'node-a', stores, log, timing: quick });
    await watches.whenSynced();
    await eventually('five watches', () => fake.watches() === 5);
    const listed = (query: string) => fake.requests.filter(({ url }) => url.includes(query));
    assert.equal(listed('limit=500').length, 4);
    assert.deepEqual(
      listed('sendInitialEvents').map(({ url }) => url.startsWith('/api/v1/pods?')),
      [true],
    );
    assert.ok(fake.requests.every(({ acceptEncoding }) => acceptEncoding === 'gzip'));
    assert.equal(fake.connections, 5, 'a connection is idle');
  });

  it('are all replaced by a check, if they are silent', async () => {
    await using fake = await openFakeKube({ bookmarkEveryMs: 60_000 });
    await using client = await clientOf(fake);
    const stores = createStores();
    const timing = { ...quick, checkGraceMs: 10 };
    const log = keptLog();
    await using watches = openWatches({ client, node: 'node-a', stores, log, timing });
    await eventually('five watches', () => fake.watches() === 5);
    fake.goSilent();
    fake.apply(rawPod('unseen'));
    fake.apply(rawBinding('unseen', 'demo'));
    watches.checkNow();
    await stores.pods.until('the pod', () => stores.pods.items.size === 1);
    await stores.bindings.until('the binding', () => stores.bindings.items.size === 1);
    await eventually('five watches again', () => fake.watches() === 5);
  });

  it('stop together and leave nothing behind', async () => {
    await using fake = await openFakeKube();
    const clock = countingClock();
    await using client = await clientOf(fake, clock);
    const watches = openWatches({
      client,
      node: 'node-a',
      stores: createStores(),
      log: keptLog(),
      clock,
      timing: quick,
    });
    await eventually('five watches', () => fake.watches() === 5);
    await watches[Symbol.asyncDispose]();
    assert.equal(clock.armed, 0);
    await eventually('no watch is left', () => fake.watches() === 0);
  });
});
