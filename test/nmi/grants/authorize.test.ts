import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import type { Identity, Pod } from '../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { authorize, type GrantKnowledge } from '../../../src/nmi/grants/authorize.ts';
import type { Authorization } from '../../../src/nmi/grants/authorization.ts';
import type { IdentitySelector } from '../../../src/nmi/grants/grant.ts';
import { renderRefusal } from '../../../src/nmi/grants/refusal-text.ts';
import { UpstreamDirectory } from '../../../src/nmi/grants/resolve-upstream.ts';
import { createBinding, createIdentity, createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073309';
const now = 1_000_000;
const pod = createPod({
  ...{ labels: { aadpodidbinding: 'label' }, serviceAccount: 'robot', createdAtWallMs: now },
});
const vault = 'https://vault.azure.net';

interface World {
  readonly identity?: Partial<Identity>;
  /** Of the one binding. */
  readonly serviceAccount?: string;
}

function decide(
  { identity, serviceAccount = '' }: World,
  resource: string | undefined,
  selector: IdentitySelector = { kind: 'none' },
  asked: Pod = pod,
): Authorization {
  const pods = new PodIndex(new HandClock(now));
  pods.upsert(asked);
  const grants = new GrantIndex(pods);
  grants.identities.upsert(createIdentity({ clientId, ...identity }));
  grants.bindings.upsert(createBinding({ serviceAccount }));
  const knowledge: GrantKnowledge = {
    ...{
      pods,
      grants,
      isSynced: () => true,
      trustsAddresses: () => true,
      workloadIdentities: undefined,
    },
    upstreams: new UpstreamDirectory(() => ({ ok: false, problem: 'nobody asks' })),
  };
  const policy = { strict: false, graceMs: 60_000, hostNetwork: 'serve' } as const;
  return authorize(asked, { resource, selector }, knowledge, policy, now);
}

function bodyOf(decision: Authorization): string {
  assert.ok(decision.kind === 'refused', decision.kind);
  const { status, reason, body } = renderRefusal(decision);
  return `${status} ${reason} ${body}`;
}

describe('an identity with allowed resources', () => {
  const identity = { allowedResources: [vault, 'https://Storage.azure.com/'] };

  it('is for those, letter case and slashes at the end aside', () => {
    for (const resource of [
      vault,
      `${vault}/`,
      'HTTPS://VAULT.azure.net',
      'https://storage.azure.com',
    ]) {
      assert.equal(decide({ identity }, resource).kind, 'authorized', resource);
    }
  });

  it('is for no other, with words that say so', () => {
    for (const resource of [
      'https://management.azure.com',
      'https://vault.azure.net.evil.example',
      'https://vault.azure.net/.default',
      'https://vault.azure.ne',
      'http://vault.azure.net',
      '/',
      '',
    ]) {
      const said = bodyOf(decide({ identity }, resource));
      assert.match(said, /^400 resource_not_allowed .*"error":"invalid_resource"/, resource);
      assert.match(said, /AzureIdentity default\/identity .*is not for the resource/);
      assert.match(said, /spec\.allowedResources/);
    }
  });

  it('is for no other when it is named, by whatever id', () => {
    const byClient = { kind: 'client_id', value: clientId } as const;
    assert.equal(decide({ identity }, vault, byClient).kind, 'authorized');
    assert.match(bodyOf(decide({ identity }, 'https://graph.example', byClient)), /^400 resource_/);
    const byObject = { kind: 'object_id', value: 'any' } as const;
    const candidates = (resource: string): number => {
      const decision = decide({ identity }, resource, byObject);
      assert.ok(decision.kind === 'by-object-id');
      return decision.candidates.length;
    };
    assert.equal(candidates(vault), 1);
    assert.equal(candidates('https://graph.example'), 0);
  });

  it('is the identity all the same where no resource is spoken of', () => {
    assert.equal(decide({ identity }, undefined).kind, 'authorized');
  });

  it('is for anything when it says nothing', () => {
    assert.equal(decide({}, 'https://whatever.example').kind, 'authorized');
  });
});

describe('a binding for a service account', () => {
  it('is for pods under it', () => {
    assert.equal(decide({ serviceAccount: 'robot' }, vault).kind, 'authorized');
  });

  it('is for no other pod, which is told whose it is', () => {
    for (const serviceAccount of ['default', 'Robot', 'robot2']) {
      const said = bodyOf(decide({ serviceAccount }, vault));
      assert.match(said, /^503 binding_pending .*Identity not found: pod default\/pod /);
      assert.match(said, /AzureIdentityBinding binding .*not for its service account \\"robot\\"/);
      assert.ok(said.includes(`Run the pod under \\"${serviceAccount}\\"`), said);
    }
    const nameless = { ...pod, serviceAccount: '' };
    const decision = decide({ serviceAccount: 'robot' }, vault, undefined, nameless);
    assert.match(bodyOf(decision), /^503 binding_pending /);
  });
});
