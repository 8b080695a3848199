import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import type { PodGrants } from '../../../src/cache/index/grant-index.ts';
import type { Identity } from '../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { chooseIdentity } from '../../../src/nmi/grants/choose-identity.ts';
import type {
  Choice,
  GrantPolicy,
  IdentitySelector,
} from '../../../src/nmi/grants/choose-identity.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createPod,
} from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const lenient: GrantPolicy = { strict: false, graceMs: 60_000, hostNetwork: 'serve' };
const strict: GrantPolicy = { ...lenient, strict: true };
const none: IdentitySelector = { kind: 'none' };
const now = 1_000_000;

/** The grants of a pod to which exactly these identities are bound. */
function bind(...identities: readonly Identity[]): PodGrants {
  const pods = new PodIndex(new HandClock(now));
  pods.upsert(createPod({ labels: { aadpodidbinding: 'label' } }));
  const index = new GrantIndex(pods);
  index.identities.replace(identities);
  index.bindings.replace(
    identities.map(({ name }) => createBinding({ name: `to-${name}`, identityName: name })),
  );
  const grants = index.grantsOf('uid-pod');
  assert.ok(grants);
  return grants;
}

function decide(grants: PodGrants, selector: IdentitySelector, policy = lenient): Choice {
  return chooseIdentity(grants, selector, policy, now);
}

function outcome(choice: Choice): string {
  if (choice.kind === 'identity') return `${choice.identity.name} by ${choice.by}`;
  return choice.kind === 'refused' ? choice.reason : choice.kind;
}

const armId = '/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/x/y';
const older = createIdentity({ name: 'older', createdAtWallMs: 1, clientId: 'AAAA-01' });
const newer = createIdentity({ name: 'newer', createdAtWallMs: 2, resourceId: armId });

describe('a request that names no identity', () => {
  it('gets the only one', () => {
    assert.equal(outcome(decide(bind(newer), none)), 'newer by only');
    assert.equal(outcome(decide(bind(newer), none, strict)), 'newer by only');
  });

  it('gets the oldest of several', () => {
    assert.equal(outcome(decide(bind(newer, older), none)), 'older by default');
  });

  it('is refused by the strict policy when there are several, with their client ids', () => {
    const unnamed = createIdentity({ name: 'unnamed', clientId: ' ', createdAtWallMs: 3 });
    assert.deepEqual(decide(bind(newer, unnamed, older), none, strict), {
      kind: 'refused',
      reason: 'identity_ambiguous',
      identityNames: ['older', 'newer', 'unnamed'],
      clientIds: ['AAAA-01', 'client-of-newer'],
    });
  });
});

describe('a request that names an identity', () => {
  const grants = bind(older, newer);

  it('gets it by client id, in any letter case', () => {
    for (const value of ['AAAA-01', 'aaaa-01', ' Aaaa-01 ']) {
      assert.equal(outcome(decide(grants, { kind: 'client_id', value })), 'older by client_id');
    }
  });

  it('gets it by resource id, in any letter case and with any slashes', () => {
    for (const value of [armId, armId.toUpperCase(), armId.slice(1), `${armId}/`]) {
      assert.equal(outcome(decide(grants, { kind: 'resource_id', value })), 'newer by resource_id');
    }
  });

  it('is served by the strict policy too', () => {
    const selector = { kind: 'client_id', value: 'aaaa-01' } as const;
    assert.equal(outcome(decide(grants, selector, strict)), 'older by client_id');
  });

  it('is refused when the pod has no such identity, with those that it has', () => {
    const selector = { kind: 'client_id', value: 'bbbb' } as const;
    assert.deepEqual(decide(grants, selector), {
      kind: 'refused',
      reason: 'selector_not_bound',
      selector,
      label: 'label',
      identityNames: ['older', 'newer'],
      missingIdentityNames: [],
    });
  });

  it('is refused when it names one by an id of the wrong kind', () => {
    for (const selector of [
      { kind: 'resource_id', value: 'AAAA-01' },
      { kind: 'client_id', value: armId },
    ] as const) {
      assert.equal(outcome(decide(grants, selector)), 'selector_not_bound');
    }
  });

  it('is refused when the name is empty, even if an identity has an empty id of that kind', () => {
    for (const kind of ['client_id', 'resource_id', 'object_id'] as const) {
      for (const value of ['', ' ', ...(kind === 'resource_id' ? ['/'] : [])]) {
        assert.equal(outcome(decide(grants, { kind, value })), 'selector_not_bound');
      }
    }
  });

  it('by object id leaves the choice among its identities to upstream', () => {
    assert.deepEqual(decide(grants, { kind: 'object_id', value: ' OID ' }), {
      kind: 'by-object-id',
      candidates: [older, newer],
      objectId: 'oid',
    });
  });
});

describe('a user-assigned identity without client id and resource id', () => {
  const nameless = createIdentity({
    name: 'nameless',
    clientId: ' ',
    resourceId: '/',
    createdAtWallMs: 0,
  });

  it('is never matched by a selector, nor a candidate for an object id', () => {
    for (const kind of ['client_id', 'resource_id', 'object_id'] as const) {
      for (const value of ['', ' ', '/', 'x']) {
        assert.equal(outcome(decide(bind(nameless), { kind, value })), 'selector_not_bound');
      }
    }
    const grant = decide(bind(nameless, older), { kind: 'object_id', value: 'x' });
    assert.deepEqual(grant.kind === 'by-object-id' && grant.candidates, [older]);
  });
});

describe('an excepted pod', () => {
  it("gets the node's answer for any identity and any policy", () => {
    const exception = createException();
    const grants: PodGrants = { kind: 'exception', exception };
    for (const selector of [none, { kind: 'client_id', value: 'any' } as const]) {
      assert.deepEqual(decide(grants, selector, strict), { kind: 'node', exception, selector });
    }
  });
});

describe('a pod without grants', () => {
  const selector = { kind: 'client_id', value: 'any' } as const;
  const bindings = [
    createBinding({ name: 'b1', identityName: 'gone' }),
    createBinding({ name: 'b2', identityName: 'gone' }),
  ];

  it('is permanently refused without the label', () => {
    for (const named of [none, selector]) {
      assert.deepEqual(decide({ kind: 'no-label' }, named), {
        kind: 'refused',
        reason: 'no_binding_label',
      });
    }
  });

  it('gets the name of the missing binding or identity', () => {
    const sinceWallMs = 0;
    const bindingsForOtherAccounts = [createBinding({ name: 'b3', serviceAccount: 'robot' })];
    assert.deepEqual(
      decide({ kind: 'no-binding', label: 'x', bindingsForOtherAccounts, sinceWallMs }, selector),
      {
        kind: 'refused',
        reason: 'binding_missing',
        label: 'x',
        foreign: bindingsForOtherAccounts,
      },
    );
    assert.deepEqual(decide({ kind: 'no-identity', label: 'x', bindings, sinceWallMs }, none), {
      kind: 'refused',
      reason: 'identity_missing',
      bindingNames: ['b1', 'b2'],
      missingIdentityNames: ['gone'],
    });
  });

  it('is refused temporarily until the grace period is over, to the millisecond', () => {
    for (const [ageMs, state] of [
      [-60_000, 'missing'],
      [-59_999, 'pending'],
      [-5, 'pending'],
      [0, 'pending'],
      [59_999, 'pending'],
      [60_000, 'missing'],
    ] as const) {
      const sinceWallMs = now - ageMs;
      for (const grants of [
        { kind: 'no-binding', label: 'x', bindingsForOtherAccounts: [], sinceWallMs },
        { kind: 'no-identity', label: 'x', bindings, sinceWallMs },
      ] as const) {
        const what = grants.kind === 'no-binding' ? 'binding' : 'identity';
        assert.equal(outcome(decide(grants, none)), `${what}_${state}`, `${ageMs}`);
      }
    }
  });

  it('gets a message about a dangling binding when it names an id that no other identity has', () => {
    const pods = new PodIndex(new HandClock(now));
    pods.upsert(createPod({ labels: { aadpodidbinding: 'label' } }));
    const index = new GrantIndex(pods);
    index.identities.upsert(older);
    index.bindings.upsert(createBinding({ name: 'good', identityName: 'older' }));
    index.bindings.upsert(createBinding({ name: 'dangling', identityName: 'gone' }));
    const grant = decide(index.grantsOf('uid-pod')!, selector);
    assert.deepEqual('missingIdentityNames' in grant && grant.missingIdentityNames, ['gone']);
  });
});
