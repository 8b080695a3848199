import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { EntraIdentity } from '../../../src/nmi/sources/entra/entra-identity.ts';
import type { SourceFailure } from '../../../src/nmi/sources/source.ts';
import { failureOfLeg, refusalOfLeg } from '../../../src/nmi/tokens/leg-failure.ts';

const managed = { kind: 'client_id', value: 'managed' } as const;
const application: EntraIdentity = {
  kind: 'entra',
  authority: 'https://e',
  tenantId: 't',
  clientId: 'app',
  credential: { kind: 'chained', assertedBy: managed, audience: 'api://x' },
};
const blueprint = { ...application, agentIdentity: 'agent' };
const agent = {
  ...application,
  clientId: 'agent',
  credential: { kind: 'chained', assertedBy: blueprint, audience: 'api://x' },
} as EntraIdentity;
const claims = { iss: 'https://issuer/v2.0', sub: 'subject\n"', jti: 'canary' };
const assertion = `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.signature`;

function failure(code: number, reason: SourceFailure['reason']): SourceFailure {
  const details = { errorCodes: [code], timestamp: '', traceId: '', correlationId: '' };
  return { reason, description: `AADSTS${code}: no`, cooldownMs: 1, details };
}

function described(code: number, reason: SourceFailure['reason'], identity = application): string {
  return refusalOfLeg(failure(code, reason), identity, assertion).description;
}

describe('a failure in a chain', () => {
  it('names the earlier leg that has no token, and nothing else changes', () => {
    const before = failure(0, 'identity_not_assigned');
    assert.deepEqual(failureOfLeg(before, managed), {
      ...before,
      description: 'AADSTS0: no [earlier leg of the chain: managed identity managed]',
    });
    const later = failureOfLeg(failureOfLeg(before, managed), application);
    assert.equal(later.description, failureOfLeg(before, managed).description);
  });

  it('names the leg that Entra ID refused, and its fix', () => {
    const leg = '[leg of the chain: application app in tenant t';
    assert.equal(described(7, 'upstream_down'), `AADSTS7: no ${leg}]`);
    assert.ok(described(700231, 'credential_refused').startsWith(`AADSTS700231: no ${leg}; the `));
    assert.match(described(700236, 'credential_refused'), /as multi-tenant/);
    assert.match(described(700016, 'identity_refused'), /create the service principal/);
  });

  it('shows of the assertion what a federated credential for it needs', () => {
    const text = described(700213, 'federation_refused');
    assert.ok(text.includes('issuer https://issuer/v2.0, subject subject'), text);
    assert.ok(text.includes('and audience api://x]'), text);
    assert.doesNotMatch(text, /canary|signature|\n/);
  });

  it('does not ask for a federated credential of an agent identity, which can have none', () => {
    const text = described(700213, 'federation_refused', agent);
    assert.match(
      text,
      /: agent identity agent in tenant t; spec\.application must be the blueprint/,
    );
    assert.doesNotMatch(text, /issuer/);
  });

  it('does not ask for the application of an agent identity, which has none', () => {
    const text = described(700016, 'identity_refused', agent);
    assert.match(
      text,
      /; spec\.agentIdentity must be an agent identity that its blueprint created/,
    );
    assert.match(described(700016, 'identity_refused', blueprint), /create the service principal/);
    // What it was sent is a token of its blueprint, and of no managed identity.
    for (const code of [700231, 700236]) {
      assert.match(
        described(code, 'credential_refused', agent),
        /agent identity agent in tenant t\]$/,
      );
    }
  });
});
