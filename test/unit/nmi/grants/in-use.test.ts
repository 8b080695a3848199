/** Which identities pods of this node use, who owns them, and which tokens of them are first ones. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { EntraSettings } from '../../../../src/cache/index/objects.ts';
import { identityKey } from '../../../../src/nmi/grants/cache-key.ts';
import type { Grant } from '../../../../src/nmi/grants/grant.ts';
import { entryFor } from '../../../../src/nmi/grants/identity-owners.ts';
import { isSlip, NearNames } from '../../../../src/nmi/grants/near-names.ts';
import { renderRefusal } from '../../../../src/nmi/grants/refusal-text.ts';
import { ResourceUses } from '../../../../src/nmi/grants/resource-uses.ts';
import { countUnowned, maxUnowned, unownedOfPod } from '../../../../src/nmi/grants/unowned.ts';
import { WorkloadIdentities } from '../../../../src/nmi/grants/workload-identities.ts';
import {
  createServiceAccounts,
  type KnownServiceAccount,
  type ServiceAccounts,
} from '../../../../src/nmi/kube/accounts/service-accounts.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import type { EntraIdentity } from '../../../../src/nmi/sources/entra/entra-identity.ts';
import type { UpstreamIdentity } from '../../../../src/nmi/sources/upstream-identity.ts';
import {
  createBinding,
  createIdentity,
  createIdentityGrant,
  createPod,
} from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { createGrant } from '../../../support/request-records.ts';
import { world, type WorldGiven, type WorldObjects } from '../../../world.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';
const otherId = '22729e47-74ce-4b43-8eea-aab5f2073302';
const tenantId = '72f988bf-86f1-41af-91ab-2d7cd011db47';
const labels = { aadpodidbinding: 'label' };
const useLabel = { 'azure.workload.identity/use': 'true' };
const bound = { identities: [{ clientId }], bindings: [{}] };
const ofClient = { field: 'clientIDs', id: clientId };
const ofNode = { field: 'nodeIdentities' };

function settings(fields: Partial<EntraSettings> = {}): EntraSettings {
  const empty = { adEndpoint: '', secretNamespace: '', secretName: '', federation: '' };
  return { tenantId, auxiliaryTenantIds: [], ...empty, ...fields };
}

function open(given: WorldGiven = {}) {
  const fixture = world(given);
  const isGranted = (id = clientId): boolean =>
    fixture.demand.isGranted({ kind: 'client_id', value: id });
  return { ...fixture, isGranted };
}

/** The application of a service account at Entra ID. */
function upstreamOf(serviceAccount: string): EntraIdentity {
  const choice = world().upstreams.ofServiceAccount(
    createPod({ serviceAccount }),
    clientId,
    tenantId,
  );
  assert.ok(choice.kind === 'upstream' && choice.upstream.kind === 'entra');
  return choice.upstream;
}

/** Every account was read, with this result. */
function openAccounts(known?: KnownServiceAccount) {
  const state = { generation: 0, known, observers: new Set<() => void>() };
  const accounts: ServiceAccounts = {
    get generation() {
      return state.generation;
    },
    peek: () => state.known,
    peekFresh: () => undefined,
    onChange: (observer) => {
      state.observers.add(observer);
      return () => state.observers.delete(observer);
    },
  };
  return { state, accounts };
}

describe('an identity', () => {
  it('is in use while a live pod is bound to it', () => {
    const { pods, grants, put, isGranted } = open();
    assert.ok(!isGranted());
    put({ ...bound, pods: [{ labels }] });
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
    const { demand } = open({
      identities: [{ type: 3, clientId, entra: settings({ federation: 'pod' }) }],
      bindings: [{}],
      pods: [
        { labels, serviceAccount: 'one' },
        { name: 'second', labels, serviceAccount: 'two' },
        { name: 'third', labels, serviceAccount: 'two' },
      ],
    });
    for (const [account, isUsed] of [
      ['one', true],
      ['two', true],
      ['three', false],
    ] as const) {
      const upstream = upstreamOf(account);
      assert.equal(demand.isGranted(upstream), isUsed, account);
      assert.equal(demand.isCredentialNeeded(upstream.credential), isUsed, account);
    }
  });

  it('has the objects that need it as its owners, also by a chain', () => {
    const chain = { clientId, resourceId: '', applicationId: otherId, agentIdentity: '' };
    const chained = { name: 'chained', type: 4, clientId: otherId, entra: settings({ chain }) };
    const { demand, grants } = open({
      identities: [{ clientId }, chained],
      bindings: [{}, { name: 'chained', identityName: 'chained' }],
      pods: [{ labels }],
    });
    const key = identityKey({ kind: 'client_id', value: clientId });
    const owned = demand
      .ownersOf(key)
      .toSorted((one, other) => (one.owner.name > other.owner.name ? -1 : 1));
    assert.deepEqual(
      owned.map(({ owner, lastKey }) => [owner.kind, owner.name, lastKey === key]),
      [
        ['AzureIdentity', 'identity', true],
        ['AzureIdentity', 'chained', false],
      ],
    );
    const uids = demand.ownersOf(owned[1]?.lastKey ?? '').map(({ owner }) => owner.uid);
    assert.deepEqual(uids, ['uid-chained']);
    assert.ok(demand.isOwner('uid-chained'));
    grants.bindings.remove(createBinding({ name: 'chained' }));
    assert.equal(demand.ownersOf(key).length, 1);
    assert.ok(!demand.isOwner('uid-chained'));
    assert.deepEqual(demand.ownersOf('unknown'), []);
  });

  it('that is unusable is not in use, and one that is revoked ahead of time later', () => {
    const bind = (fields: object) =>
      open({ identities: [fields], bindings: [{}], pods: [{ labels }] });
    assert.ok(!bind({ clientId: 'no GUID' }).isGranted('no GUID'));
    const notBeforeWallMs = new HandClock().wallMs() + 3_600_000;
    const { clock, demand, isGranted } = bind({ clientId, notBeforeWallMs });
    assert.ok(!isGranted(), 'its tokens from before');
    clock.advance(3_600_000);
    assert.ok(demand.isGranted({ kind: 'client_id', value: clientId, notBeforeWallMs }));
  });

  it('of a service account is in use by its pods, according to the last read', () => {
    const { accounts, state } = openAccounts({ clientId, tenantId });
    const { demand, pods } = open({ accounts, pods: [{ labels: useLabel }] });
    const upstream = upstreamOf('default');
    assert.ok(demand.isGranted(upstream));
    state.known = undefined;
    assert.ok(demand.isGranted(upstream), 'nothing has changed yet');
    state.generation++;
    assert.ok(!demand.isGranted(upstream));
    state.known = { clientId, tenantId };
    state.generation++;
    pods.upsert(createPod({ labels: { ...useLabel, aadpodidbinding: 'unbound' } }));
    assert.ok(!demand.isGranted(upstream), 'a pod with the label does not count');
  });

  it('without a grant is in use unless grants are enforced', () => {
    const grant = createIdentityGrant({ namespaces: ['default'], clientIds: [clientId] });
    const given = { ...bound, pods: [{ labels }] };
    assert.equal(open({ ...given, owners: 'warn' }).isGranted(), true);
    const { demand, ownerIndex, put, isGranted } = open({ ...given, owners: 'enforce' });
    let changes = 0;
    demand.onChange(() => changes++);
    assert.equal(isGranted(), false);
    ownerIndex.grants.upsert(grant);
    assert.deepEqual([isGranted(), changes], [true, 1]);
    ownerIndex.grants.remove(grant);
    assert.deepEqual([isGranted(), changes], [false, 2]);
    // Nor does an exception make it an identity of the node.
    put({ exceptions: [{ podLabels: labels }], identityGrants: [grant] });
    assert.equal(demand.hasExcepted(), false);
    ownerIndex.grants.upsert({ ...grant, nodeIdentities: true });
    assert.equal(demand.hasExcepted(), true);
  });
});

describe('pods that may name any identity', () => {
  it('are excepted ones, and those on the host network without the label', () => {
    const { demand, put } = open();
    const steps: readonly (readonly [WorldObjects, boolean, string])[] = [
      [{ pods: [{}] }, false, 'has no label'],
      [{ pods: [{ hostNetwork: true }] }, true, 'on the host network'],
      [{ pods: [{ hostNetwork: true, labels }] }, false, 'bound by its label'],
      [{ exceptions: [{ podLabels: labels }] }, true, 'excepted'],
      [{ pods: [{ hostNetwork: true, labels, phase: 'Failed' }] }, false, 'it has ended'],
    ];
    for (const [objects, expected, why] of steps) {
      put(objects);
      assert.equal(demand.hasExcepted(), expected, why);
    }
  });
});

describe('a change', () => {
  it('of one of many identities of many accounts costs one look at it for each account', (t) => {
    const many = Array.from({ length: 20 }, (_, at) => `id-${at}`);
    const { grants, put, upstreams, isGranted } = open({
      identities: many.map((name) => ({ name, clientId })),
      bindings: many.map((name) => ({ name, identityName: name })),
      pods: many.slice(0, 10).map((name) => ({ name, labels, serviceAccount: name })),
    });
    const resolve = t.mock.method(upstreams, 'onceValid');
    const isGrantedFor = (id: string, calls: number): boolean => {
      const isIt = isGranted(id);
      assert.equal(resolve.mock.callCount(), calls);
      resolve.mock.resetCalls();
      return isIt;
    };
    assert.ok(isGrantedFor(clientId, 200));
    put({ identities: [{ name: 'id-7', clientId: otherId }] });
    assert.ok(isGrantedFor(otherId, 10));
    grants.bindings.remove(createBinding({ name: 'id-7' }));
    assert.ok(isGrantedFor(clientId, 0) && !isGrantedFor(otherId, 0));
  });

  it('is reported, of grants and of service accounts, until the listener unsubscribes', () => {
    const { accounts, state } = openAccounts();
    const { demand, pods, put } = open({ accounts });
    const others = state.observers.size;
    let calls = 0;
    const stop = demand.onChange(() => calls++);
    put({ ...bound, pods: [{ labels }] });
    const before = calls;
    assert.ok(before > 0);
    for (const observer of state.observers) observer();
    assert.equal(calls, before + 1);
    stop();
    pods.remove(createPod());
    assert.deepEqual([calls, state.observers.size], [before + 1, others]);
    open().demand.onChange(() => calls++)();
  });
});

describe('the grant that an identity needs', () => {
  const application = (credential: EntraIdentity['credential']): UpstreamIdentity => {
    const authority = 'https://login.microsoftonline.com';
    return { kind: 'entra', authority, tenantId: 'contoso.example', clientId, credential };
  };
  const byAgent = application({ kind: 'federated_node', audience: 'api://x' });
  const byClient = { kind: 'client_id', value: clientId } as const;
  const byResource = { kind: 'resource_id', value: '/subscriptions/s/x' } as const;
  const ofResource = { field: 'resourceIDs', id: '/subscriptions/s/x' };

  it('is for the id that upstream is asked for, and none if the namespace has the proof', () => {
    const serviceAccount = { namespace: 'shop', name: 'robot' };
    const secret = { namespace: 'shop', name: 'secret' };
    for (const [upstream, entry] of [
      [byClient, ofClient],
      [byResource, ofResource],
      [byAgent, ofClient],
      [{ kind: 'unnamed' }, ofNode],
      [{ kind: 'object_id', value: clientId }, ofNode],
      [application({ kind: 'federated_pod', serviceAccount, audience: 'a' }), undefined],
      [application({ kind: 'secret', secret }), undefined],
      [application({ kind: 'certificate', secret }), undefined],
    ] as const)
      assert.deepEqual(entryFor(upstream), entry);
  });

  it('is missing where no grant of the namespace covers it, in any mode', () => {
    for (const mode of ['warn', 'enforce'] as const) {
      const identityGrants = [{ namespaces: ['shop'], clientIds: [clientId] }];
      const { owners } = world({ owners: mode, identityGrants });
      assert.equal(owners.mode, mode);
      for (const [namespace, upstream, entry] of [
        ['shop', byClient, undefined],
        ['shop', byAgent, undefined],
        ['pay', byClient, ofClient],
        ['shop', byResource, ofResource],
        ['shop', undefined, ofNode],
      ] as const)
        assert.deepEqual(owners.lacking(namespace, upstream), entry);
    }
  });

  it('may come and go, and is the one that decided where grants are enforced', () => {
    for (const mode of ['off', 'warn', 'enforce'] as const) {
      const { ownerIndex, owners } = world({ owners: mode });
      let changes = 0;
      owners.onChange(() => changes++);
      const { generation } = owners;
      const fields = { name: 'g', namespaces: ['ops'], clientIds: [clientId] };
      const grant = createIdentityGrant({ ...fields, nodeIdentities: true });
      const decidingOf = (namespace: string, upstream?: UpstreamIdentity) =>
        owners.deciding(namespace, upstream)?.name;
      assert.ok(owners.lacking('ops') !== undefined && !owners.hasGrants);
      assert.equal(decidingOf('ops', byClient), undefined);
      ownerIndex.grants.upsert(grant);
      assert.ok(owners.lacking('ops') === undefined && owners.hasGrants);
      const expected = mode === 'enforce' ? 'g' : undefined;
      assert.deepEqual([decidingOf('ops', byClient), decidingOf('ops')], [expected, expected]);
      assert.equal(decidingOf('other', byClient), undefined);
      ownerIndex.grants.remove(grant);
      assert.ok(owners.lacking('ops') !== undefined);
      assert.deepEqual([changes, owners.generation - generation], [2, 2]);
    }
  });
});

describe('the identities without a grant', () => {
  const idOf = (number: number): string =>
    `22729e47-74ce-4b43-8eea-${String(number).padStart(12, '0')}`;
  const openUnowned = (given: WorldGiven) => {
    const fixture = world({ owners: 'warn', ...given });
    const named = () =>
      [...fixture.pods.all()].flatMap((pod) =>
        unownedOfPod(pod, fixture.clusterState).map(
          ([, { kind, name, entry }]) => `${pod.name}: ${kind} ${name} ${entry.field}`,
        ),
      );
    return { ...fixture, named, count: () => countUnowned(fixture.clusterState) };
  };

  it('are those of live pods of this node, each once', () => {
    const { pods, put, named, count } = openUnowned({
      identityGrants: [{ namespaces: ['default'], clientIds: [idOf(2)] }],
      identities: [
        ...[1, 2, 3].map((number) => ({ name: `i${number}`, clientId: idOf(number) })),
        { name: 'unusable', clientId: 'x' },
      ],
      bindings: ['i1', 'i2', 'unusable'].map((name) => ({ name, identityName: name })),
    });
    assert.equal(count(), 0);
    put({ pods: [{ name: 'ended', labels, phase: 'Succeeded' }] });
    assert.equal(count(), 0);
    pods.remove(createPod({ name: 'ended' }));
    put({
      // The same identity by another label.
      bindings: [{ name: 'c', identityName: 'i1', selector: 'other' }],
      pods: [
        { name: 'a', labels },
        { name: 'b', labels },
        { name: 'unbound' },
        { name: 'c', labels: { aadpodidbinding: 'other' } },
      ],
    });
    const expected = ['a', 'b', 'c'].map((pod) => `${pod}: AzureIdentity i1 clientIDs`);
    assert.deepEqual(named(), expected);
    assert.equal(count(), 1);
  });

  it('include those of the node, by an exception', () => {
    const exceptions = [{ podLabels: labels }];
    for (const [grant, expected] of [
      [{ clientIds: [idOf(1)] }, ['pod: AzurePodIdentityException exception nodeIdentities']],
      [{ nodeIdentities: true }, []],
    ] as const) {
      const identityGrants = [{ namespaces: ['default'], ...grant }];
      const { named, count } = openUnowned({ identityGrants, exceptions, pods: [{ labels }] });
      assert.deepEqual([named(), count()], [expected, expected.length]);
    }
  });

  it('are counted up to a limit, however many exist', () => {
    const { put, count } = openUnowned({});
    for (let label = 0; label < 6; label++) {
      const selector = `label-${label}`;
      const numbers = Array.from({ length: 200 }, (_, at) => label * 200 + at);
      put({
        pods: [{ name: selector, labels: { aadpodidbinding: selector } }],
        identities: numbers.map((at) => ({ name: `i${at}`, clientId: idOf(at) })),
        bindings: numbers.map((at) => ({ name: `b${at}`, identityName: `i${at}`, selector })),
      });
    }
    assert.equal(count(), maxUnowned);
  });
});

describe('a typing error', () => {
  it('is one wrong character, two swapped ones, the letter case, or blanks around', () => {
    for (const [expected, pairs] of [
      [true, 'app-a=app-b,oders=orders,orderss=orders,odrers=orders,Orders=oRDERS,ORDER=orders'],
      [true, 'AB=ab,abc=abd,app=app , orders=order'],
      [false, 'orders=orders,orders=orde,orders=stocks,odresr=orders,a=b,ab=ac,=a,aaa=aa'],
    ] as const) {
      for (const pair of pairs.split(',')) {
        const [one = '', other = ''] = pair.split('=');
        assert.deepEqual([isSlip(one, other), isSlip(other, one)], [expected, expected], pair);
      }
    }
  });
});

describe('the name that a refused pod probably meant', () => {
  const openNames = (...names: readonly string[]) => {
    const objects = names.map((name) => name.split('/') as [string, string]);
    let searches = 0;
    const search = <T>(all: readonly T[]): readonly T[] => {
      searches++;
      return all;
    };
    const near = new NearNames({
      allBindings: () =>
        search(objects.map(([namespace, selector]) => createBinding({ namespace, selector }))),
      allIdentities: () =>
        search(objects.map(([namespace, name]) => createIdentity({ namespace, name }))),
    });
    return { near, searches: () => searches };
  };
  const unbound = (
    label: string,
    ...bindingsForOtherAccounts: ReturnType<typeof createBinding>[]
  ) => ({ kind: 'no-binding', label, bindingsForOtherAccounts, sinceWallMs: 0 }) as const;

  it('is a selector of its own namespace, the first by name, and never one of another', () => {
    const { near } = openNames('other/app-0', 'default/app-c', 'default/app-b', 'default/web');
    const robots = createBinding({ selector: 'app-a', serviceAccount: 'robot' });
    for (const [grants, namespace, meant] of [
      [unbound('app-a'), 'default', 'app-b'],
      [unbound('stock'), 'default', undefined],
      [unbound('app-a'), 'third', undefined],
      // A binding matches, and is for another service account.
      [unbound('app-a', robots), 'default', undefined],
    ] as const)
      assert.equal(near.meantBy(grants, namespace, 0), meant);
  });

  it('is searched for once in 10 s for a pod, however many requests are refused', () => {
    const { near, searches } = openNames('default/app-b');
    const grants = unbound('app-a');
    for (let request = 0; request < 1_000; request++)
      assert.equal(near.meantBy(grants, 'default', request), 'app-b');
    assert.equal(searches(), 1);
    near.meantBy(grants, 'default', 10_000);
    assert.equal(searches(), 2);
    // A clock that was set back must not keep a result for years.
    near.meantBy(grants, 'default', -10_000);
    assert.equal(searches(), 3);
  });
});

describe('the resources of a pod', () => {
  const grantOf = (uid: string, client = 'one') => {
    const upstream = { kind: 'client_id', value: client } as const;
    return createGrant({ pod: createPod({ name: uid, uid }), upstream });
  };
  const openUses = () => {
    const clock = new HandClock();
    const uses = new ResourceUses(clock);
    const beyond: string[] = [];
    const admit = (grant: Grant, resource: string): Grant =>
      uses.admit(grant, resource, (limitKey) => beyond.push(limitKey));
    /** How many of these resources the pod may have. */
    const count = (uid: string, from: number, to: number): number => {
      let admitted = 0;
      for (let use = from; use < to; use++)
        if (admit(grantOf(uid), `api://${use}`).kind === 'granted') admitted += 1;
      return admitted;
    };
    const first = (uid: string, resource: string) => uses.isFirst(grantOf(uid), resource);
    return { clock, uses, beyond, admit, count, first };
  };

  it('are at most 600 new ones in a minute; those beyond are refused until it ends', () => {
    const { clock, beyond, admit, count } = openUses();
    assert.equal(count('a', 0, 600), 600);
    assert.equal(count('a', 0, 600), 600, 'known ones are never refused');
    assert.deepEqual(beyond, []);
    clock.advance(20_500);
    const refused = admit(grantOf('a'), 'api://600');
    assert.ok(refused.kind === 'refused');
    const { status, reason, retryAfterS, body } = renderRefusal(refused);
    assert.deepEqual([status, reason, retryAfterS], [429, 'caller_throttled', 40]);
    assert.match(body, /600 new resources within a minute\. Retry in 40 s\./);
    assert.deepEqual(beyond, ['pod a']);
    assert.equal(admit(grantOf('b'), 'api://600').kind, 'granted', 'another pod has its own');
    assert.equal(admit(grantOf('a', 'two'), 'api://0').kind, 'refused', 'another identity');
    clock.advance(39_499);
    assert.equal(admit(grantOf('a'), 'api://600').kind, 'refused');
    clock.advance(1);
    assert.equal(admit(grantOf('a'), 'api://600').kind, 'granted');
    assert.equal(count('a', 1, 601), 600);
  });

  it('count by the token that they get, an object id by its text', () => {
    const { admit, count } = openUses();
    const pod = createPod({ name: 'a', uid: 'a' });
    const byObjectId = (objectId: string): Grant => {
      return { kind: 'by-object-id', pod, candidates: [], objectId };
    };
    const grant = grantOf('a');
    assert.equal(count('a', 0, 598), 598);
    for (const [asked, resource, kind] of [
      [grant, 'https://Vault.azure.net/', 'granted'],
      [byObjectId('x'), 'https://vault.azure.net', 'by-object-id'],
      [byObjectId('x'), 'https://VAULT.azure.net', 'by-object-id'],
      [grant, 'https://vault.azure.net', 'granted'],
      [byObjectId('y'), 'https://vault.azure.net', 'refused'],
      [grant, 'https://storage.azure.com', 'refused'],
    ] as const)
      assert.equal(admit(asked, resource).kind, kind);
  });

  it('leave a refused pod as it is', () => {
    const { admit, count } = openUses();
    const facts = { about: 'unknown-name' } as const;
    const reason = 'pod_unknown';
    const refused = { kind: 'refused', reason, facts, isPending: true, pod: undefined } as const;
    assert.equal(admit(refused, 'r'), refused);
    assert.equal(count('a', 0, 600), 600);
  });

  it('are first tokens once each, also if another pod has it and if no request was counted', () => {
    const { first } = openUses();
    assert.deepEqual(
      [first('a', 'x'), first('a', 'X/'), first('a', 'y'), first('b', 'x'), first('a', 'x')],
      [true, false, true, true, false],
    );
  });

  it('are remembered for 600 resources and 512 pods', () => {
    const { clock, count, first } = openUses();
    assert.equal(count('a', 0, 600), 600);
    assert.ok(first('a', 'api://0'));
    clock.advance(60_000);
    assert.equal(count('a', 600, 601), 1);
    assert.ok(first('a', 'api://0'), 'the oldest is forgotten, and recorded once more');
    assert.ok(first('a', 'api://600'));
    for (let pod = 0; pod < 511; pod++) first(`pod ${pod}`, 'x');
    assert.ok(!first('a', 'api://600'));
    first('pod 511', 'x');
    assert.ok(first('a', 'api://600'));
  });
});

describe('a pod with Workload Identity', () => {
  const pod = createPod({ labels: useLabel, serviceAccount: 'robot' });
  const account = { namespace: 'default', name: 'robot' };
  const annotated = { 'azure.workload.identity/client-id': clientId.toUpperCase() };

  function openAnnotated(annotations: Record<string, string> | KubeError) {
    const clock = new HandClock();
    const answer = { annotations };
    const paths: string[] = [];
    const unreadable: string[] = [];
    const accounts = createServiceAccounts({
      clock,
      staleLimitMs: 300_000,
      onUnreadable: ({ namespace, name }, { kind }) => {
        unreadable.push(`${namespace}/${name} ${kind}`);
      },
      client: {
        getJson: (path) => {
          paths.push(path);
          const { annotations: given } = answer;
          if (given instanceof KubeError) return Promise.reject(given);
          return Promise.resolve({ metadata: { annotations: given } });
        },
      },
    });
    const identities = new WorkloadIdentities(accounts, 'tenant.example');
    /** Reads it, which no call waits for. */
    const read = async (): Promise<void> => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const off = identities.onChange(resolve);
      assert.equal(identities.of(pod).kind, 'unknown');
      await promise;
      off();
    };
    return { clock, answer, paths, unreadable, identities, read };
  }

  it('is recognized by its label, and no other pod causes a request', () => {
    const { identities, paths } = openAnnotated({});
    for (const off of [{}, { 'azure.workload.identity/use': 'false' }]) {
      const other = createPod({ labels: off, serviceAccount: 'robot' });
      assert.equal(identities.of(other).kind, 'none');
    }
    assert.deepEqual(paths, []);
  });

  it('has the application of its service account, in the tenant named there or by default', async () => {
    const tenant = { 'azure.workload.identity/tenant-id': 'other.example' };
    for (const [annotations, expected] of [
      [
        { ...annotated, ...tenant },
        { kind: 'application', clientId, tenantId: 'other.example' },
      ],
      [annotated, { kind: 'application', clientId, tenantId: 'tenant.example' }],
      [{}, { kind: 'unannotated', account }],
    ] as const) {
      const { identities, paths, read } = openAnnotated(annotations);
      const before = identities.generation;
      await read();
      assert.notEqual(identities.generation, before);
      assert.deepEqual(identities.of(pod), expected);
      assert.deepEqual(paths, ['/api/v1/namespaces/default/serviceaccounts/robot']);
    }
  });
});
