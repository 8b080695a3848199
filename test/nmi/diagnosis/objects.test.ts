import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  findingsOfBinding,
  findingsOfIdentity,
  secretOfIdentity,
  type SecretFinding,
} from '../../../src/nmi/diagnosis/objects.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import { parseBinding, parseIdentity } from '../../../src/nmi/kube/watch/parse.ts';
import { createOwners } from '../../support/owners.ts';

const clientID = '22729e47-74ce-4b43-8eea-aab5f2073301';
const tenantID = '7e570000-1ab0-4000-8000-000000000001';
const ref = { namespace: 'shop', name: 'cart' };
const metadata = { ...ref, uid: 'u', resourceVersion: '1' };
const secretSpec = { type: 1, clientID, tenantID, clientPassword: { name: 'sp' } };

const identityOf = (spec: unknown) => parseIdentity({ metadata, spec });
const rulesOf = (mode: 'off' | 'enforce' = 'off') => ({
  owners: createOwners(mode).owners,
  upstreams: new UpstreamResolver(() => ({
    ok: true,
    authority: 'https://login.example',
    audience: 'api://x',
    accountAudience: 'api://x',
  })),
});
const codesOf = (spec: unknown, secret?: SecretFinding, rules = rulesOf()) =>
  findingsOfIdentity(ref, identityOf(spec), secret, rules).map(
    ({ code, text, fix }) => `${code} ${text} ${fix}`,
  );

describe('the Secret of an identity', () => {
  it('is the one that it names, and none for other types or unusable ones', () => {
    const expected = { kind: 'secret', secret: { namespace: 'shop', name: 'sp' } };
    assert.deepEqual(secretOfIdentity(identityOf(secretSpec), rulesOf()), expected);
    const others = [
      { type: 0, clientID },
      { type: 3, clientID, tenantID },
      { type: 'x' },
      { ...secretSpec, clientID: '' },
    ];
    for (const spec of others) {
      assert.equal(secretOfIdentity(identityOf(spec), rulesOf()), undefined);
    }
  });

  it('is a fault if it is missing or unreadable, and comes before the missing grant', () => {
    const problem = 'Secret shop/sp does not exist';
    assert.deepEqual(codesOf(secretSpec, { kind: 'missing', problem }), [
      'credential_missing Secret shop/sp does not exist. Create it.',
    ]);
    const unusable = { kind: 'unusable', problem: 'the agent may not read it' } as const;
    const [found] = codesOf(secretSpec, unusable);
    assert.match(found ?? '', /^credential_invalid The agent may not read it\. Correct the Secret/);
    assert.deepEqual(codesOf(secretSpec, { kind: 'usable' }), []);
  });
});

describe('the revocation of an identity', () => {
  it('is a fault if its time is in the future or no date', () => {
    const notBefore = new Date(Date.now() + 3_600_000).toISOString();
    assert.match(
      codesOf({ clientID, notBefore })[0] ?? '',
      /^identity_invalid AzureIdentity shop\/cart has a spec\.notBefore in the future\. /,
    );
    assert.match(
      codesOf({ clientID, notBefore: 'yesterday' })[0] ?? '',
      /^object_unusable The agent ignores it: spec\.notBefore is no date as in RFC 3339\. /,
    );
    assert.deepEqual(codesOf({ clientID, notBefore: '2026-01-01T00:00:00Z' }), []);
  });
});

describe('the faults of a binding', () => {
  const facts = { identity: undefined, meant: 'carts', isSurplus: false };

  it('are all of them, the selector first', () => {
    const parsed = parseBinding({ metadata, spec: { azureIdentity: 'cart' } });
    assert.deepEqual(
      findingsOfBinding(ref, parsed, facts).map(({ code, object }) => `${code} ${object}`),
      [
        'selector_unusable AzureIdentityBinding shop/cart',
        'identity_missing AzureIdentityBinding shop/cart',
      ],
    );
  });

  it('contain texts of the object on one line', () => {
    const spec = { azureIdentity: '\u001b[2J\n', selector: 'x' };
    for (const { text, fix } of findingsOfBinding(ref, parseBinding({ metadata, spec }), facts)) {
      assert.match(`${text} ${fix}`, /^[\x20-\x7e]+$/);
    }
  });
});
