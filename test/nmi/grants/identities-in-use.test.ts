import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import type { Pod } from '../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { identityKey } from '../../../src/nmi/grants/cache-key.ts';
import { IdentitiesInUse } from '../../../src/nmi/grants/identities-in-use.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import type {
  WorkloadChoice,
  WorkloadIdentities,
} from '../../../src/nmi/grants/workload-identities.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createIdentityGrant,
  createPod,
} from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import type { OwnersMode } from '../../../src/nmi/grants/identity-owners.ts';
import { createOwners } from '../../support/owners.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';
const otherId = '22729e47-74ce-4b43-8eea-aab5f2073302';
const tenantId = '72f988bf-86f1-41af-91ab-2d7cd011db47';
const labels = { aadpodidbinding: 'label' };

function open(choice?: WorkloadChoice, mode: OwnersMode = 'off') {
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  const grants = new GrantIndex(pods);
  const upstreams = new UpstreamResolver(
    () => ({
      ok: true,
      authority: 'https://login.example',
      audience: 'api://x',
      accountAudience: 'api://x',
    }),
    clock,
  );
  const accounts = { generation: 0, choice, listeners: new Set<() => void>() };
  const workloadIdentities =
    choice === undefined
      ? undefined
      : ({
          get generation() {
            return accounts.generation;
          },
          onChange: (listener: () => void) => {
            accounts.listeners.add(listener);
            return () => accounts.listeners.delete(listener);
          },
          lastOf: () => accounts.choice,
        } as unknown as WorkloadIdentities);
  const { index, owners } = createOwners(mode);
  const inUse = new IdentitiesInUse({ pods, grants, owners, upstreams, workloadIdentities });
  const isGranted = (id = clientId): boolean => inUse.isGranted({ kind: 'client_id', value: id });
  const bind = (fields: Partial<Pod> = {}): void => {
    grants.identities.upsert(createIdentity({ clientId }));
    grants.bindings.upsert(createBinding());
    pods.upsert(createPod({ labels, ...fields }));
  };
  const upstreamOf = (account: string) =>
    upstreams.ofServiceAccount(createPod({ serviceAccount: account }), clientId, tenantId);
  return { clock, pods, grants, index, accounts, upstreams, inUse, isGranted, bind, upstreamOf };
}

describe('an identity', () => {
  it('is in use while a live pod is bound to it', () => {
    const { pods, grants, isGranted, bind } = open();
    assert.ok(!isGranted());
    bind();
    assert.ok(isGranted() && !isGranted(otherId));
    assert.ok(isGranted(clientId.toUpperCase()), 'in any letter case');
    pods.upsert(createPod({ labels, phase: 'Succeeded' }));
    assert.ok(!isGranted(), 'its pod has ended');
    pods.upsert(createPod({ labels }));
    assert.ok(isGranted());
    grants.bindings.remove(createBinding());
    assert.ok(!isGranted(), 'its binding is deleted');
  });

  it('is in use by the second pod of a label, when the first has another account', () => {
    const { grants, inUse, bind, pods } = open();
    const entra = {
      tenantId,
      auxiliaryTenantIds: [],
      adEndpoint: '',
      secretNamespace: '',
      secretName: '',
      federation: 'pod',
    };
    bind({ serviceAccount: 'one' });
    grants.identities.upsert(createIdentity({ type: 3, clientId, entra }));
    pods.upsert(createPod({ name: 'second', labels, serviceAccount: 'two' }));
    pods.upsert(createPod({ name: 'third', labels, serviceAccount: 'two' }));
    for (const [account, isUsed] of [
      ['one', true],
      ['two', true],
      ['three', false],
    ] as const) {
      const choice = openUpstream(account);
      assert.equal(inUse.isGranted(choice), isUsed, account);
      assert.ok(choice.kind === 'entra');
      assert.equal(inUse.isCredentialNeeded(choice.credential), isUsed, account);
    }
  });

  function openUpstream(account: string) {
    const choice = open().upstreamOf(account);
    assert.ok(choice.kind === 'upstream');
    return choice.upstream;
  }

  it('has the objects that need it as its owners, also by a chain', () => {
    const { grants, inUse, bind } = open();
    const entra = {
      tenantId,
      auxiliaryTenantIds: [],
      adEndpoint: '',
      secretNamespace: '',
      secretName: '',
      federation: '',
      chain: { clientId, resourceId: '', applicationId: otherId, agentIdentity: '' },
    };
    bind();
    const chained = createIdentity({ name: 'chained', type: 4, clientId: otherId, entra });
    grants.identities.upsert(chained);
    grants.bindings.upsert(createBinding({ name: 'chained', identityName: 'chained' }));
    const key = identityKey({ kind: 'client_id', value: clientId });
    const owned = inUse
      .ownersOf(key)
      .toSorted((one, other) => (one.owner.name > other.owner.name ? -1 : 1));
    assert.deepEqual(
      owned.map(({ owner, lastKey }) => [owner.kind, owner.name, lastKey === key]),
      [
        ['AzureIdentity', createIdentity().name, true],
        ['AzureIdentity', 'chained', false],
      ],
    );
    const lastKey = owned[1]?.lastKey ?? '';
    assert.deepEqual(
      inUse.ownersOf(lastKey).map(({ owner }) => owner.uid),
      [chained.uid],
    );
    assert.ok(inUse.isOwner(chained.uid));
    grants.bindings.remove(createBinding({ name: 'chained' }));
    assert.equal(inUse.ownersOf(key).length, 1);
    assert.ok(!inUse.isOwner(chained.uid));
    assert.deepEqual(inUse.ownersOf('unknown'), []);
  });

  it('that is unusable is not in use', () => {
    const { grants, isGranted, bind } = open();
    bind();
    grants.identities.upsert(createIdentity({ clientId: 'no GUID' }));
    assert.ok(!isGranted('no GUID'));
  });

  it('that was revoked ahead of time is in use when the time comes, without any change', () => {
    const { clock, grants, bind, upstreams, inUse } = open();
    bind();
    const notBeforeWallMs = clock.wallMs() + 3_600_000;
    const identity = createIdentity({ clientId, notBeforeWallMs });
    grants.identities.upsert(identity);
    const before = createIdentity({ clientId });
    const upstreamNow = (of = identity) => {
      const choice = upstreams.of(of, createPod());
      return choice.kind === 'upstream' ? choice.upstream : undefined;
    };
    assert.ok(!inUse.isGranted(upstreamNow(before)!), 'its tokens from before');
    assert.equal(upstreamNow(), undefined, 'no pod gets a token of it yet');
    clock.advance(3_600_000);
    assert.ok(inUse.isGranted(upstreamNow()!));
  });

  it('of a service account is in use by its pods, according to the last read', () => {
    const application = { kind: 'application', clientId, tenantId } as const;
    const { pods, accounts, inUse } = open(application);
    const upstream = openUpstream('default');
    pods.upsert(createPod());
    assert.ok(inUse.isGranted(upstream));
    accounts.choice = { kind: 'unknown' };
    assert.ok(inUse.isGranted(upstream), 'nothing has changed yet');
    accounts.generation++;
    assert.ok(!inUse.isGranted(upstream));
    accounts.choice = application;
    accounts.generation++;
    pods.upsert(createPod({ labels: { aadpodidbinding: 'unbound' } }));
    assert.ok(!inUse.isGranted(upstream), 'a pod with the label does not count');
  });
});

describe('pods that may name any identity', () => {
  it('are excepted ones, and those on the host network without the label', () => {
    const { pods, grants, inUse } = open();
    pods.upsert(createPod());
    assert.ok(!inUse.hasExcepted());
    pods.upsert(createPod({ hostNetwork: true }));
    assert.ok(inUse.hasExcepted());
    pods.upsert(createPod({ hostNetwork: true, labels }));
    assert.ok(!inUse.hasExcepted(), 'bound by its label');
    grants.exceptions.upsert(createException({ podLabels: labels }));
    assert.ok(inUse.hasExcepted());
    pods.upsert(createPod({ hostNetwork: true, labels, phase: 'Failed' }));
    assert.ok(!inUse.hasExcepted(), 'it has ended');
  });
});

describe('a change', () => {
  it('costs only the pods and accounts whose grants it touches', (t) => {
    const { pods, grants, index, upstreams, isGranted, bind } = open(undefined, 'enforce');
    const resolve = t.mock.method(upstreams, 'onceValid');
    const resolvedBy = (step: () => void): number => {
      step();
      isGranted();
      const calls = resolve.mock.callCount();
      resolve.mock.resetCalls();
      return calls;
    };
    const podOf = (name: string, serviceAccount: string) =>
      createPod({ name, uid: name, labels, serviceAccount });
    assert.equal(
      resolvedBy(() => bind({ serviceAccount: 'one' })),
      1,
    );
    const steps: readonly (readonly [string, number, () => void])[] = [
      [
        'two pods of another account',
        1,
        () => {
          for (const name of ['two', 'twin']) pods.upsert(podOf(name, 'two'));
        },
      ],
      ['a third pod of that account', 0, () => pods.upsert(podOf('third', 'two'))],
      ['a new address', 0, () => pods.upsert({ ...podOf('two', 'two'), ips: ['10.0.0.9'] })],
      ['a pod gone', 0, () => pods.remove(podOf('two', 'two'))],
      ['the next one', 0, () => pods.remove(podOf('twin', 'two'))],
      ['an account gone', 0, () => pods.remove(podOf('third', 'two'))],
      ['that account again', 1, () => pods.upsert(podOf('two', 'two'))],
      ['an identity', 2, () => grants.identities.upsert(createIdentity({ clientId: otherId }))],
      ['a grant', 2, () => index.grants.upsert(createIdentityGrant({ clientIds: [otherId] }))],
    ];
    for (const [name, expected, step] of steps) assert.equal(resolvedBy(step), expected, name);
  });
});

describe('a change of one of many identities of many accounts', () => {
  it('costs one look at it for each account', (t) => {
    const { pods, grants, upstreams, isGranted } = open();
    const many = Array.from({ length: 20 }, (_, at) => `id-${at}`);
    grants.identities.replace(many.map((name) => createIdentity({ name, clientId })));
    grants.bindings.replace(many.map((name) => createBinding({ name, identityName: name })));
    for (let at = 0; at < 10; at++) {
      pods.upsert(createPod({ name: `pod-${at}`, labels, serviceAccount: `account-${at}` }));
    }
    const resolve = t.mock.method(upstreams, 'onceValid');
    assert.ok(isGranted());
    assert.equal(resolve.mock.callCount(), 200);
    resolve.mock.resetCalls();
    grants.identities.upsert(createIdentity({ name: 'id-7', clientId: otherId }));
    assert.ok(isGranted(otherId));
    assert.equal(resolve.mock.callCount(), 10);
    resolve.mock.resetCalls();
    grants.bindings.remove(createBinding({ name: 'id-7' }));
    assert.ok(isGranted() && !isGranted(otherId));
    assert.equal(resolve.mock.callCount(), 0);
  });
});

describe('a listener', () => {
  it('is notified of grants and of service accounts, until it unsubscribes', () => {
    const { accounts, inUse, bind, pods } = open({ kind: 'unknown' });
    let calls = 0;
    const stop = inUse.onChange(() => calls++);
    bind();
    const before = calls;
    assert.ok(before > 0);
    for (const listener of accounts.listeners) listener();
    assert.equal(calls, before + 1);
    stop();
    pods.remove(createPod());
    assert.deepEqual([calls, accounts.listeners.size], [before + 1, 0]);
    const without = open();
    without.inUse.onChange(() => calls++)();
  });
});

describe('an identity without a grant', () => {
  const grant = createIdentityGrant({ namespaces: ['default'], clientIds: [clientId] });

  it('is not in use when grants are enforced, from the moment its grant is removed', () => {
    const { index, inUse, isGranted, bind } = open(undefined, 'enforce');
    let changes = 0;
    inUse.onChange(() => changes++);
    bind();
    assert.equal(isGranted(), false);
    changes = 0;
    index.grants.upsert(grant);
    assert.deepEqual([isGranted(), changes], [true, 1]);
    index.grants.remove(grant);
    assert.deepEqual([isGranted(), changes], [false, 2]);
  });

  it('is in use when owners only cause warnings', () => {
    const { isGranted, bind } = open(undefined, 'warn');
    bind();
    assert.equal(isGranted(), true);
  });

  it('does not become an identity of the node by an exception without a grant', () => {
    const { index, grants, inUse, bind } = open(undefined, 'enforce');
    bind();
    grants.exceptions.upsert(createException({ podLabels: labels }));
    assert.equal(inUse.hasExcepted(), false);
    index.grants.upsert({ ...grant, nodeIdentities: true });
    assert.equal(inUse.hasExcepted(), true);
  });
});
