import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { OwnersMode } from '../../../../src/nmi/grants/identity-owners.ts';
import { UpstreamResolver } from '../../../../src/nmi/grants/resolve-upstream.ts';
import type { Condition } from '../../../../src/nmi/conditions/condition.ts';
import {
  conditionsOfBinding,
  conditionsOfIdentity,
} from '../../../../src/nmi/conditions/evaluate.ts';
import type { SecretFinding } from '../../../../src/nmi/diagnosis/objects.ts';
import { observing } from '../../../../src/nmi/conditions/observed.ts';
import { parseBinding, parseIdentity } from '../../../../src/nmi/kube/watch/parse.ts';
import { createIdentityGrant } from '../../../support/cache-objects.ts';
import { createOwners } from '../../../support/owners.ts';

const clientID = '22729e47-74ce-4b43-8eea-aab5f2073301';
const tenantID = '7e570000-1ab0-4000-8000-000000000001';
const metadata = { namespace: 'shop', name: 'cart', uid: 'u', resourceVersion: '1' };
const secretSpec = { type: 1, clientID, tenantID, clientPassword: { name: 'sp' } };

function rulesOf(mode: OwnersMode = 'warn') {
  const authority = () =>
    ({
      ok: true,
      authority: 'https://login.example',
      audience: 'api://x',
      accountAudience: 'api://x',
    }) as const;
  const { owners, index } = createOwners(mode);
  return { owners, index, upstreams: new UpstreamResolver(authority) };
}

function identityOf(spec: unknown) {
  const parsed = observing(parseIdentity)({ metadata, spec });
  assert.ok(parsed.ok);
  return parsed.value;
}

function bindingOf(spec: unknown) {
  const parsed = observing(parseBinding)({ metadata, spec });
  assert.ok(parsed.ok);
  return parsed.value;
}

/** `Type=status reason` of each, and the message of `Ready`. */
function shown(conditions: readonly Condition[]) {
  const message = conditions.find(({ type }) => type === 'Ready')?.message;
  return [conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`), message];
}
const ofIdentity = (spec: unknown, finding?: SecretFinding, rules = rulesOf()) =>
  shown(conditionsOfIdentity(identityOf(spec), finding, rules));

const goodIdentity = ['Valid=True ok', 'CredentialReadable=True ok', 'Ready=True ok'];

describe('the conditions of an AzureIdentity', () => {
  it('are true for one that the agents use, with an empty message', () => {
    assert.deepEqual(ofIdentity({ type: 0, clientID }), [goodIdentity, '']);
    assert.deepEqual(ofIdentity({ type: 3, clientID, tenantID }), [goodIdentity, '']);
    assert.deepEqual(ofIdentity(secretSpec, { kind: 'usable' }), [goodIdentity, '']);
  });

  it('name the field that makes it unusable', () => {
    const invalid = (reason: string) => [
      `Valid=False ${reason}`,
      `CredentialReadable=Unknown ${reason}`,
      `Ready=False ${reason}`,
    ];
    assert.deepEqual(ofIdentity({ type: '0' }), [
      invalid('object_unusable'),
      'The agent ignores it: spec.type is not an integer. Correct it.',
    ]);
    assert.deepEqual(ofIdentity({ type: 1, clientID, tenantID: 'x y' }), [
      invalid('identity_invalid'),
      'AzureIdentity shop/cart has a spec.tenantID that is neither a GUID nor a domain name. Correct it.',
    ]);
    const [conditions] = ofIdentity({ type: 9, clientID });
    assert.deepEqual(conditions, invalid('identity_unsupported'));
  });

  it('name the missing Secret, or the missing permission to read it', () => {
    const missing = { kind: 'missing', problem: 'Secret shop/sp does not exist' } as const;
    assert.deepEqual(ofIdentity(secretSpec, missing), [
      [
        'Valid=True ok',
        'CredentialReadable=False credential_missing',
        'Ready=False credential_missing',
      ],
      'Secret shop/sp does not exist. Create it.',
    ]);
    const problem = 'the agent may not read Secret shop/sp: its service account needs a role';
    assert.deepEqual(ofIdentity(secretSpec, { kind: 'unusable', problem }), [
      [
        'Valid=True ok',
        'CredentialReadable=False credential_invalid',
        'Ready=False credential_invalid',
      ],
      'The agent may not read Secret shop/sp: its service account needs a role. Correct the Secret. If the error ' +
        'names a missing right, an operator of the cluster gives it.',
    ]);
  });

  it('name the missing grant, when owners are enforced', () => {
    assert.deepEqual(ofIdentity({ type: 0, clientID }), [goodIdentity, ''], 'warn');
    const rules = rulesOf('enforce');
    assert.deepEqual(ofIdentity({ type: 0, clientID }, undefined, rules), [
      ['Valid=True ok', 'CredentialReadable=True ok', 'Ready=False identity_not_owned'],
      `AzureIdentity shop/cart has the client id ${clientID}, which no AzureIdentityGrant gives to ` +
        'namespace shop. A cluster administrator can add it to spec.clientIDs of an AzureIdentityGrant.',
    ]);
    rules.index.grants.upsert(createIdentityGrant({ namespaces: ['shop'], clientIds: [clientID] }));
    assert.deepEqual(ofIdentity({ type: 0, clientID }, undefined, rules), [goodIdentity, '']);
  });
});

const named = (spec: unknown, finding?: SecretFinding) => {
  const identity = identityOf(spec);
  const conditions = conditionsOfIdentity(identity, finding, rulesOf());
  const ready = conditions.find(({ type }) => type === 'Ready');
  assert.ok(ready !== undefined);
  return { identity, ready };
};
const good = { azureIdentity: 'cart', selector: 'cart' };
const ofBinding = (
  spec: unknown,
  to: ReturnType<typeof named> | undefined = named({ type: 0, clientID }),
  isSurplus = false,
) => {
  const facts = { identity: to.identity.parsed, meant: undefined, isSurplus };
  return shown(conditionsOfBinding(bindingOf(spec), facts, to.ready));
};

describe('the conditions of an AzureIdentityBinding', () => {
  it('are true for one that gives a token', () => {
    assert.deepEqual(ofBinding(good), [
      ['IdentityFound=True ok', 'SelectorUsable=True ok', 'Ready=True ok'],
      '',
    ]);
  });

  it('name the missing identity', () => {
    const facts = { identity: undefined, meant: undefined, isSurplus: false };
    const absent = shown(conditionsOfBinding(bindingOf(good), facts, undefined));
    assert.deepEqual(absent, [
      [
        'IdentityFound=False identity_missing',
        'SelectorUsable=True ok',
        'Ready=False identity_missing',
      ],
      'Namespace shop has no AzureIdentity cart. Create it: kubectl nmi identity add cart -n shop --client-id ID --apply; or correct ' +
        'spec.azureIdentity.',
    ]);
    const unnamed = shown(conditionsOfBinding(bindingOf({ selector: 'cart' }), facts, undefined));
    assert.match(String(unnamed[1]), /^Its spec\.azureIdentity is empty\. Set spec/);
    assert.deepEqual(ofBinding(good, named({ type: 'x' })), [
      [
        'IdentityFound=False identity_missing',
        'SelectorUsable=True ok',
        'Ready=False identity_missing',
      ],
      'The agent ignores AzureIdentity cart: spec.type is not an integer. Correct it.',
    ]);
  });

  it('name the selector that matches no pod', () => {
    const unusable = [
      'IdentityFound=True ok',
      'SelectorUsable=False selector_unusable',
      'Ready=False selector_unusable',
    ];
    for (const [selector, message] of [
      ['', /^Its spec\.selector is empty and matches no pod\. Set it/],
      ['two words', /^Its spec\.selector is no value that a label can have/],
      ['x'.repeat(64), /^Its spec\.selector is no value that a label can have/],
    ] as const) {
      const [conditions, text] = ofBinding({ ...good, selector });
      assert.deepEqual(conditions, unusable);
      assert.match(String(text), message);
    }
    const [conditions, text] = ofBinding(good, named({ type: 0, clientID }), true);
    assert.deepEqual(conditions, unusable);
    assert.match(String(text), /^More than 200 bindings have its selector/);
  });

  it('are those of the identity when that has the problem', () => {
    const missing = { kind: 'missing', problem: 'Secret shop/sp does not exist' } as const;
    assert.deepEqual(ofBinding(good, named(secretSpec, missing)), [
      ['IdentityFound=True ok', 'SelectorUsable=True ok', 'Ready=False credential_missing'],
      'Secret shop/sp does not exist. Create it.',
    ]);
  });

  it('also exist for one that the agents ignore', () => {
    assert.deepEqual(ofBinding({ selector: 7 }), [
      [
        'IdentityFound=Unknown object_unusable',
        'SelectorUsable=False object_unusable',
        'Ready=False object_unusable',
      ],
      'The agent ignores it: spec.selector is not a string. Correct it.',
    ]);
  });
});
