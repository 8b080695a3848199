import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { parseConfig } from '../../../src/nmi/config/config.ts';
import { NearNames } from '../../../src/nmi/grants/near-names.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import { openNodePods } from '../../../src/nmi/state/node-pods.ts';
import type { ClusterState } from '../../../src/nmi/state/cluster-state.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { createOwners } from '../../support/owners.ts';

const debounceMs = 50;
const hostNetwork = true;
const driver = createPod({ name: 'driver', hostNetwork, uid: 'u1' });
const labels = { aadpodidbinding: 'label' };

async function open(t: TestContext, flags: Readonly<Record<string, string>> = {}) {
  const parsed = parseConfig({ node: 'n', ...flags }, {});
  assert.ok(parsed.ok, JSON.stringify(parsed));
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  const grants = new GrantIndex(pods);
  let isSynced = false;
  const synced = Promise.withResolvers<undefined>();
  const accounts = new Set<string>();
  const accountsChanged: (() => void)[] = [];
  const state = {
    pods,
    grants,
    owners: createOwners('off').owners,
    isSynced: () => isSynced,
    trusts: () => true,
    rightsProblem: () => undefined,
    nearNames: new NearNames(grants),
    workloadIdentities: {
      of: ({ name }: { name: string }) => ({ kind: accounts.has(name) ? 'unknown' : 'none' }),
      onChange: (listener: () => void) => {
        accountsChanged.push(listener);
        return () => undefined;
      },
    },
    upstreams: new UpstreamResolver(() => ({ ok: false, problem: 'nobody asks' })),
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
  const opened = openNodePods({ config: parsed.config, state, kernel, policy, clock });
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
    const { pods, told, sync, change, accounts, accountsChanged } = await open(t);
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
    assert.deepEqual(
      change(() => pods.upsert({ ...driver, labels })),
      [],
    );
    assert.deepEqual(
      change(() => pods.upsert(driver)),
      [1n],
    );
    assert.deepEqual(
      change(() => {
        accounts.add('driver');
        for (const listener of accountsChanged) listener();
      }),
      [],
    );
    accounts.clear();
    const ended = { ...driver, phase: 'Succeeded' } as const;
    assert.deepEqual(
      change(() => pods.upsert(ended)),
      [],
    );
  });

  it('are let through when the kubelet has made their cgroups, which is looked for in growing pauses', async (t) => {
    const { clock, pods, told, cgroups, sync } = await open(t);
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
    const { pods, sync, told } = await open(t);
    const bound = createPod({ name: 'bound', hostNetwork, uid: 'u2', labels });
    const named = createPod({ name: 'static', hostNetwork, uid: 'u4', labels, cgroupUid: 'u3' });
    const thief = createPod({ name: 'thief', hostNetwork, uid: 'u5', cgroupUid: 'u3' });
    pods.replace([bound, { ...driver, cgroupUid: 'u2' }, named, thief]);
    await sync();
    assert.deepEqual(told, [[]]);
  });

  for (const flags of [{ 'host-network': 'refuse' }, { 'block-instance-metadata': 'true' }]) {
    it(`are redirected like all others with ${JSON.stringify(flags)}`, async (t) => {
      const { pods, sync, told } = await open(t, flags);
      assert.deepEqual(told, [[]], 'an earlier agent may have let some through');
      pods.upsert(driver);
      await sync();
      assert.equal(told.length, 1);
    });
  }

  it('are not looked at any more after the end', async (t) => {
    const { clock, pods, cgroups, sync, change, opened } = await open(t);
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
