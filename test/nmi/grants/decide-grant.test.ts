import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import type { Exception, Identity, IdentityGrant, Pod } from '../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { decideGrant, type GrantState } from '../../../src/nmi/grants/decide-grant.ts';
import type { Grant } from '../../../src/nmi/grants/grant.ts';
import type { IdentitySelector } from '../../../src/nmi/grants/choose-identity.ts';
import { renderRefusal } from '../../../src/nmi/grants/refusal-text.ts';
import { NearNames } from '../../../src/nmi/grants/near-names.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import type { WorkloadIdentities } from '../../../src/nmi/grants/workload-identities.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createPod,
} from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import type { OwnersMode } from '../../../src/nmi/grants/identity-owners.ts';
import { createOwners } from '../../support/owners.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073309';
const now = 1_000_000;
const pod = createPod({
  labels: { aadpodidbinding: 'label' },
  serviceAccount: 'robot',
  createdAtWallMs: now,
});
const vault = 'https://vault.azure.net';

interface TestBed {
  readonly identity?: Partial<Identity>;
  /** Account that the one binding is restricted to. */
  readonly serviceAccount?: string;
  readonly exception?: Partial<Exception>;
  readonly hostNetwork?: 'serve' | 'refuse';
  /** Default: the node has a metadata service. */
  /** Default: identity owners are not checked. */
  readonly owners?: OwnersMode;
  readonly granted?: readonly Partial<IdentityGrant>[];
  readonly rightsProblem?: string;
  /** Applications of service accounts, when that is on. */
  readonly account?: ReturnType<WorkloadIdentities['of']>;
}

function decide(
  testBed: TestBed,
  resource: string | undefined,
  selector: IdentitySelector = { kind: 'none' },
  asked: Pod = pod,
): Grant {
  const { identity, serviceAccount = '', exception, hostNetwork = 'serve', account } = testBed;
  const pods = new PodIndex(new HandClock(now));
  pods.upsert(asked);
  const grants = new GrantIndex(pods);
  grants.identities.upsert(createIdentity({ clientId, ...identity }));
  grants.bindings.upsert(createBinding({ serviceAccount }));
  if (exception !== undefined) grants.exceptions.upsert(createException(exception));
  const clusterState: GrantState = {
    pods,
    grants,
    owners: createOwners(testBed.owners ?? 'off', ...(testBed.granted ?? [])).owners,
    isSynced: () => true,
    trusts: () => true,
    rightsProblem: () => testBed.rightsProblem,
    nearNames: new NearNames(grants),
    workloadIdentities:
      account === undefined ? undefined : ({ of: () => account } as unknown as WorkloadIdentities),
    upstreams: new UpstreamResolver(() => ({
      ok: true,
      authority: 'https://login.example',
      audience: 'api://exchange',
      accountAudience: 'api://exchange',
    })),
  };
  const policy = { strict: false, graceMs: 60_000, hostNetwork } as const;
  return decideGrant(asked, { resource, selector }, clusterState, policy, now);
}

function bodyOf(decision: Grant): string {
  assert.ok(decision.kind === 'refused', decision.kind);
  const { status, reason, body } = renderRefusal(decision);
  return `${status} ${reason} ${body}`;
}

describe('a label that no binding has', () => {
  it('is refused with the selector that was probably meant', () => {
    const slip = { ...pod, labels: { aadpodidbinding: 'lable' } };
    const unlike = { ...pod, labels: { aadpodidbinding: 'stock' } };
    const asks = (asked: Pod) => bodyOf(decide({}, vault, { kind: 'none' }, asked));
    assert.match(asks(slip), /^503 binding_pending .* Did you mean \\"label\\"\?/);
    assert.match(asks(unlike), /that selector\. Create one: /);
  });
});

describe('an identity with allowed resources', () => {
  const identity = { allowedResources: [vault, 'https://storage.azure.com'] };

  it('is granted for those, regardless of case and trailing slashes', () => {
    for (const resource of [
      vault,
      `${vault}/`,
      'HTTPS://VAULT.azure.net',
      'https://storage.azure.com',
    ]) {
      assert.equal(decide({ identity }, resource).kind, 'granted', resource);
    }
  });

  it('is refused for any other, with a message that lists them', () => {
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

  it('is refused for any other when it is named, by any id', () => {
    const byClient = { kind: 'client_id', value: clientId } as const;
    assert.equal(decide({ identity }, vault, byClient).kind, 'granted');
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

  it('is granted when no resource is given', () => {
    assert.equal(decide({ identity }, undefined).kind, 'granted');
  });

  it('is granted for any resource when it lists none', () => {
    assert.equal(decide({}, 'https://whatever.example').kind, 'granted');
  });
});

describe('an identity with unusable fields', () => {
  it('is refused with the reason', () => {
    const identity = { clientId: 'no GUID' };
    assert.match(bodyOf(decide({ identity }, vault)), /^400 identity_invalid .*no GUID/);
    const account = { kind: 'application', clientId: 'x', tenantId: 'y' } as const;
    const unbound = { ...pod, labels: {} };
    const ofAccount = bodyOf(decide({ account }, vault, undefined, unbound));
    assert.match(ofAccount, /^400 identity_invalid .*no GUID/);
  });
});

describe('a binding for a service account', () => {
  it('grants its identity to pods with that account', () => {
    assert.equal(decide({ serviceAccount: 'robot' }, vault).kind, 'granted');
  });

  it('refuses any other pod, with the required account in the message', () => {
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

describe('a pod on the host network', () => {
  const host = { ...pod, hostNetwork: true };
  const unbound = { ...host, labels: {} };
  const exempt = { podLabels: { aadpodidbinding: 'label' } };

  it('is refused by that policy, whatever binding or exception it has', () => {
    const hostNetwork = 'refuse';
    for (const [asked, testBed] of [
      [host, {}],
      [host, { exception: exempt }],
      [unbound, {}],
    ] as const) {
      const said = bodyOf(decide({ ...testBed, hostNetwork }, vault, undefined, asked));
      assert.match(said, /^403 host_network_refused /);
    }
    assert.equal(decide({ hostNetwork }, vault).kind, 'granted', 'of another network');
  });

  it('is otherwise served: its identity if it has a label, else the node’s own', () => {
    const bound = decide({}, vault, undefined, host);
    assert.equal(bound.kind === 'granted' && bound.identity?.name, 'identity');
    const ofNode = decide({}, vault, undefined, unbound);
    assert.ok(ofNode.kind === 'granted');
    assert.deepEqual([ofNode.upstream, ofNode.by], [{ kind: 'unnamed' }, 'host network']);
    const named = decide({}, vault, { kind: 'client_id', value: 'x' }, unbound);
    assert.deepEqual(named.kind === 'granted' && named.upstream, {
      kind: 'client_id',
      value: 'x',
    });
  });
});

describe('an excepted pod', () => {
  it('gets the node’s own answer for the identity that it names', () => {
    const exception = { name: 'add-on', podLabels: { aadpodidbinding: 'label' } };
    const decision = decide({ exception }, vault, { kind: 'resource_id', value: '/x' });
    assert.ok(decision.kind === 'granted');
    assert.deepEqual(decision.upstream, { kind: 'resource_id', value: '/x' });
    assert.deepEqual([decision.identity, decision.by], [undefined, 'exception add-on']);
  });
});

describe('an identity that belongs to another namespace', () => {
  const owners = 'enforce';
  const byAgent: Partial<Identity> = {
    type: 3,
    entra: {
      tenantId: 'contoso.example',
      auxiliaryTenantIds: [],
      adEndpoint: '',
      secretNamespace: '',
      secretName: '',
      federation: 'node',
    },
  };
  const granted = [{ namespaces: ['default'], clientIds: [clientId] }];
  const other = [{ namespaces: ['other'], clientIds: [clientId] }];

  it('is refused by enforce, with the object and the fix, however it is named', () => {
    const text =
      /^400 identity_not_owned .*AzureIdentity default\/identity of pod default\/pod .*no AzureIdentityGrant gives to namespace default.*spec\.clientIDs/;
    const selectors: readonly IdentitySelector[] = [
      { kind: 'none' },
      { kind: 'client_id', value: clientId },
      { kind: 'object_id', value: 'any' },
    ];
    for (const selector of selectors) {
      assert.match(bodyOf(decide({ owners }, vault, selector)), text);
      assert.match(bodyOf(decide({ owners, granted: other }, vault, selector)), text);
      assert.notEqual(decide({ owners, granted }, vault, selector).kind, 'refused');
    }
    assert.match(bodyOf(decide({ owners, identity: byAgent }, vault)), text);
    assert.equal(decide({ owners, identity: byAgent, granted }, vault).kind, 'granted');
  });

  it('is not owned through an id other than the one that is sent upstream', () => {
    const resourceId =
      '/subscriptions/s/resourcegroups/g/providers/microsoft.managedidentity/userassignedidentities/x';
    const mine = [{ namespaces: ['default'], resourceIds: [resourceId] }];
    const both = decide({ owners, identity: { resourceId }, granted: mine }, vault);
    assert.match(bodyOf(both), /identity_not_owned .*client id/);
    const byResource = { clientId: '', resourceId };
    assert.equal(decide({ owners, identity: byResource, granted: mine }, vault).kind, 'granted');
    assert.match(bodyOf(decide({ owners, identity: byResource }, vault)), /spec\.resourceIDs/);
  });

  it('is served by warn and off', () => {
    for (const mode of ['warn', 'off'] as const) {
      assert.equal(decide({ owners: mode }, vault).kind, 'granted');
      const exception = { podLabels: { aadpodidbinding: 'label' } };
      assert.equal(decide({ owners: mode, exception }, vault).kind, 'granted');
    }
  });

  it('needs no grant when the service account of the pod is the credential at Entra ID', () => {
    const identity = {
      ...byAgent,
      entra: { ...byAgent.entra, federation: 'pod' },
    } as typeof byAgent;
    assert.equal(decide({ owners, identity }, vault).kind, 'granted');
    const account = { kind: 'application', clientId, tenantId: 'contoso.example' } as const;
    const unbound = { ...pod, labels: {} };
    assert.equal(decide({ owners, account }, vault, undefined, unbound).kind, 'granted');
  });

  it('is worth a wait while it is new: its grant may arrive soon', () => {
    const isPending = (createdAtWallMs: number) => {
      const decision = decide({ owners, identity: { createdAtWallMs } }, vault);
      return decision.kind === 'refused' && decision.isPending;
    };
    assert.equal(isPending(now - 59_999), true);
    assert.equal(isPending(now - 60_000), false);
  });

  it('of the node is for excepted pods of namespaces with an explicit grant', () => {
    const exception = { name: 'add-on', podLabels: { aadpodidbinding: 'label' } };
    const node = [{ namespaces: ['default'], nodeIdentities: true }];
    const refused = decide({ owners, exception, granted }, vault);
    assert.ok(refused.kind === 'refused' && !refused.isPending);
    const refusedText = bodyOf(refused);
    assert.match(
      refusedText,
      /^400 identity_not_owned .*AzurePodIdentityException default\/add-on/,
    );
    assert.match(refusedText, /spec\.nodeIdentities/);
    assert.equal(decide({ owners, exception, granted: node }, vault).kind, 'granted');
    assert.match(bodyOf(decide({ owners, granted: node }, vault)), /identity_not_owned/);
  });

  it('of the node is served to pods on the host network, which no namespaced object names', () => {
    const onHost = { ...pod, labels: {}, hostNetwork: true };
    assert.equal(decide({ owners }, vault, undefined, onHost).kind, 'granted');
  });
});

describe('rights that the API server has not confirmed for too long', () => {
  const rightsProblem = 'not proven current: bindings for 1 d 0 h';

  it('end, whatever they come from, and the answer names the watch', () => {
    const exempt = { podLabels: { aadpodidbinding: 'label' } };
    const account = { kind: 'application', clientId, tenantId: clientId } as const;
    for (const [asked, testBed] of [
      [pod, {}],
      [pod, { exception: exempt }],
      [{ ...pod, labels: {} }, { account }],
    ] as const) {
      assert.equal(decide(testBed, vault, undefined, asked).kind, 'granted');
      const body = bodyOf(decide({ ...testBed, rightsProblem }, vault, undefined, asked));
      assert.match(body, /^503 agent_not_synced .*bindings for 1 d 0 h\. Retry\./);
    }
  });

  it('are none of those that a pod on the host network has by itself', () => {
    const onHost = { ...pod, labels: {}, hostNetwork: true };
    assert.equal(decide({ rightsProblem }, vault, undefined, onHost).kind, 'granted');
  });
});

describe('a pod that is not known any more', () => {
  it('is refused, and may be known again soon', () => {
    const pods = new PodIndex(new HandClock(now));
    const clusterState = { grants: new GrantIndex(pods) } as unknown as GrantState;
    const query = { resource: vault, selector: { kind: 'none' } } as const;
    const policy = { strict: false, graceMs: 60_000, hostNetwork: 'serve' } as const;
    const decision = decideGrant(pod, query, clusterState, policy, now);
    assert.deepEqual(decision.kind === 'refused' && [decision.reason, decision.isPending], [
      'pod_unknown',
      true,
    ]);
  });
});

describe('a pod without the label', () => {
  const unbound = { ...pod, labels: {} };
  const account = {
    namespace: 'default',
    name: 'robot',
  };

  it('is refused when service accounts are not used', () => {
    for (const testBed of [{}, { account: { kind: 'none' } as const }]) {
      assert.match(bodyOf(decide(testBed, vault, undefined, unbound)), /^400 no_binding_label /);
    }
  });

  it('waits for its service account, and is refused when that names no identity', () => {
    const unknown = decide({ account: { kind: 'unknown' } }, vault, undefined, unbound);
    assert.deepEqual(unknown.kind === 'refused' && [unknown.reason, unknown.isPending], [
      'agent_not_synced',
      true,
    ]);
    for (const [kind, reason] of [
      ['unreadable', 'credential_invalid'],
      ['unannotated', 'no_binding_label'],
    ] as const) {
      const decision = decide({ account: { kind, account } }, vault, undefined, unbound);
      assert.deepEqual(decision.kind === 'refused' && [decision.reason, decision.isPending], [
        reason,
        false,
      ]);
    }
  });

  it('gets the application of its service account, and no other', () => {
    const application = {
      kind: 'application',
      clientId,
      tenantId: '72f988bf-86f1-41af-91ab-2d7cd011db47',
    } as const;
    const ask = (selector: IdentitySelector) =>
      decide({ account: application }, vault, selector, unbound);
    for (const selector of [
      { kind: 'none' },
      { kind: 'client_id', value: clientId },
      { kind: 'client_id', value: ` ${clientId.toUpperCase()}` },
    ] as const) {
      const decision = ask(selector);
      assert.ok(decision.kind === 'granted', selector.kind);
      assert.deepEqual([decision.by, decision.identity], ['service account', undefined]);
      assert.equal(decision.upstream.kind, 'entra');
    }
    for (const selector of [
      { kind: 'client_id', value: 'other' },
      { kind: 'object_id', value: clientId },
      { kind: 'resource_id', value: clientId },
    ] as const) {
      assert.match(bodyOf(ask(selector)), /^400 selector_not_bound /);
    }
  });
});

describe('a missing object', () => {
  it('may still arrive while the pod is young', () => {
    const young = { ...pod, labels: { aadpodidbinding: 'other' } };
    const old = { ...young, createdAtWallMs: now - 60_000 };
    for (const [asked, reason, isPending] of [
      [young, 'binding_pending', true],
      [old, 'binding_missing', false],
    ] as const) {
      const decision = decide({}, vault, undefined, asked);
      assert.deepEqual(decision.kind === 'refused' && [decision.reason, decision.isPending], [
        reason,
        isPending,
      ]);
    }
    const unnamed = decide({ identity: { name: 'elsewhere' } }, vault);
    assert.equal(unnamed.kind === 'refused' && unnamed.reason, 'identity_pending');
  });
});
