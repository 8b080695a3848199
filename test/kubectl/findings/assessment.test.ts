/** Verdicts, from objects: what a pod gets, and what is not known. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import type { Snapshot } from '../../../src/kubectl/cluster/snapshot.ts';
import { losses } from '../../../src/kubectl/cluster/unread.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { assessPod } from '../../../src/kubectl/findings/assessment.ts';
import { AgentContexts } from '../../../src/kubectl/findings/contexts.ts';
import { asRecord } from '../../../src/base/json-value.ts';
import {
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  nowWallMs,
} from '../support/recorded-kubectl.ts';

const bound = { labels: { aadpodidbinding: 'orders' } };
const tenantID = '7e570000-1ab0-4000-8000-000000000001';
const agentWith = (...args: readonly string[]) => [
  { ...viewAgent(createAgentPod('node-1', { args })), isVerified: true },
];
const none = { selector: { kind: 'none' }, resource: undefined } as const;

function assess(pod: RawObject, changes: Partial<Snapshot> = {}) {
  const snapshot = createSnapshot({ pods: [pod], agents: agentWith(), ...changes });
  const assessed = assessPod(pod, new AgentContexts(snapshot, nowWallMs), none);
  assert.ok(assessed !== undefined);
  return assessed;
}

const verdictOf = (...args: Parameters<typeof assess>) => {
  const { kind, summary } = assess(...args).verdict;
  return `${kind} ${summary}`;
};
const lossesOf = (...args: Parameters<typeof assess>) =>
  assess(...args).unread.map(({ loses }) => loses);
const web = createPod('web', bound);
const two = {
  identities: [createIdentity('orders'), createIdentity('stock', { clientID: clientB })],
  bindings: [
    createBinding('orders'),
    createBinding('stock', { azureIdentity: 'stock', selector: 'orders' }),
  ],
};
const grants = [
  {
    ...createObject('AzureIdentityGrant', 'g', { namespaces: ['other'], clientIDs: [clientA] }),
    metadata: { name: 'g', uid: 'uid-g', creationTimestamp: '2026-11-01T00:00:00Z' },
  },
];
const statusOf = (status: string, reason: string) => ({
  conditions: [{ type: 'Ready', status, reason, message: 'Because.' }],
});

describe('the verdict on a pod', () => {
  it('is granted if nothing speaks against it', () => {
    assert.match(
      verdictOf(web),
      /^granted gets a token of AzureIdentity orders, client id 431054d5/,
    );
    const resourceID =
      '/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x';
    const identities = [createIdentity('orders', { resourceID })];
    assert.match(verdictOf(web, { identities }), /, resource id \/subscriptions\//);
  });

  it('is refused for its objects, its policies and the status of its identity', () => {
    assert.equal(verdictOf(createPod('web')), 'refused gets 400 no_binding_label');
    const policies = [
      createObject('NetworkPolicy', 'deny', { podSelector: {}, policyTypes: ['Egress'] }),
    ];
    assert.equal(verdictOf(web, { policies }), 'refused gets no token: network_policy');
    const identities = [
      { ...createIdentity('orders'), status: statusOf('False', 'credential_missing') },
    ];
    assert.equal(verdictOf(web, { identities }), 'refused gets 400 credential_missing');
  });

  it('is not refused for the status of an identity that the request does not get', () => {
    const [orders = {}, other = {}] = two.identities;
    const identities = [orders, { ...other, status: statusOf('False', 'credential_missing') }];
    const { verdict, findings } = assess(web, { ...two, identities });
    assert.equal(verdict.kind, 'granted');
    const found = findings.find(({ code }) => code === 'credential_missing');
    assert.deepEqual([found?.severity, found?.object], ['warning', 'AzureIdentity shop/stock']);
  });

  it('is not refused for the label of its owner, if the pod has one', () => {
    const owner = { kind: 'StatefulSet', name: 'db' };
    const workloads = [createObject('StatefulSet', 'db', { template: {} }, bound, 'apps/v1')];
    const { verdict, findings } = assess(createPod('web', { ...bound, owner }), { workloads });
    assert.equal(verdict.kind, 'granted');
    assert.equal(findings[0]?.code, 'label_on_owner');
  });

  it('is not ready while nothing answers the pod', () => {
    const waiting = { state: { waiting: { reason: 'ImagePullBackOff' } } };
    const condition = { type: 'PodScheduled', status: 'False', message: 'no node fits' };
    for (const [status, spec, expected] of [
      [{ phase: 'Failed' }, {}, 'has ended (Failed) and sends no requests'],
      [{ phase: 'Pending' }, {}, 'gets nothing yet: it is Pending'],
      [
        { phase: 'Pending', containerStatuses: [waiting] },
        {},
        'gets nothing yet: it is Pending (ImagePullBackOff)',
      ],
      [
        { phase: 'Pending', conditions: [condition] },
        { nodeName: '' },
        'gets nothing yet: it is Pending (no node fits)',
      ],
      [{ podIP: '', podIPs: [] }, {}, 'gets nothing yet: it has no address'],
      [{}, { nodeSelector: { 'kubernetes.io/os': 'windows' } }, 'is not served: pod_on_windows'],
      [{}, { nodeName: 'node-2' }, 'is not served: agent_missing'],
    ] as const) {
      assert.equal(
        verdictOf(createPod('web', { ...bound, status, spec })),
        `not-ready ${expected}`,
      );
    }
    const unready = [viewAgent(createAgentPod('node-1', { isReady: false }))];
    assert.equal(verdictOf(web, { agents: unready }), 'not-ready is not served: agent_not_ready');
  });

  it('is not ready while the binding may be on its way', () => {
    const young = {
      ...asRecord(web['metadata']),
      creationTimestamp: new Date(nowWallMs).toISOString(),
    };
    const { verdict, findings } = assess({ ...web, metadata: young }, { bindings: [] });
    assert.deepEqual(verdict, { kind: 'not-ready', summary: 'gets 503 binding_pending: not yet' });
    assert.equal(findings[0]?.severity, 'warning');
  });

  it('is unknown where an option that is not known decides', () => {
    const unseen = { agents: undefined };
    assert.match(
      verdictOf(web, { ...two, ...unseen }),
      /^unknown gets a token .*; gets 400 identity_ambiguous if the agent has --strict-identity$/,
    );
    assert.match(verdictOf(web, { ...unseen, grants }), /^unknown .* --identity-owners=enforce$/);
    assert.match(verdictOf(web, { ...two, grants }), /^granted /, 'the agent has neither option');
    const host = createPod('web', { ...bound, spec: { hostNetwork: true } });
    assert.match(
      verdictOf(host),
      /^unknown .*\(host network\) if the agent has --redirect=iptables$/,
    );
    assert.match(verdictOf(host, { agents: agentWith('--redirect=ebpf') }), /^granted /);
    assert.match(
      verdictOf(host, { agents: agentWith('--redirect=iptables') }),
      /^unknown gets the answer/,
    );
    const account = { labels: { 'azure.workload.identity/use': 'true' } };
    const annotations = {
      'azure.workload.identity/client-id': clientA,
      'azure.workload.identity/tenant-id': tenantID,
    };
    const accounts = [createObject('ServiceAccount', 'default', {}, { annotations }, 'v1')];
    assert.equal(
      verdictOf(createPod('web', account), { ...unseen, accounts }),
      `unknown gets 400 no_binding_label; gets a token of the application of service account default, client id ${clientA} (by service account) if the agent has --workload-identity`,
    );
  });
});

describe('what a verdict does not know', () => {
  it('is what only Azure knows of the identity', () => {
    const of = (spec: object, status = {}) =>
      lossesOf(web, { identities: [{ ...createIdentity('orders', spec), status }] });
    const entra = { clientID: clientA, tenantID };
    const password = { name: 'sp', namespace: 'shop' };
    assert.deepEqual(of({ clientID: clientA }), ['assignment of the identity in Azure']);
    assert.deepEqual(of({ ...entra, type: 3 }), ['federated credential in Entra ID']);
    assert.deepEqual(of({ ...entra, type: 1, clientPassword: password }), [
      'Secret shop/sp',
      'whether Entra ID accepts the secret',
    ]);
    assert.deepEqual(
      of({ ...entra, type: 1, clientPassword: password }, statusOf('True', 'ok')),
      ['whether Entra ID accepts the secret'],
      'the status shows that the Secret was read',
    );
  });

  it('is what the user may not read, if it can change the verdict', () => {
    const unread = Object.values(losses).map((loses) => ({ loses, what: 'x', why: 'y' }));
    const granted = lossesOf(web, { unread }).slice(1);
    assert.deepEqual(granted, [
      ...[losses.policies, losses.grants, losses.agents, losses.twins, losses.nodes],
    ]);
    const off = { unread, agents: agentWith('--identity-owners=off') };
    assert.ok(!lossesOf(web, off).includes(losses.grants));
    const refused = lossesOf(createPod('web'), { unread });
    assert.ok(refused.includes(losses.elsewhere) && refused.includes(losses.workloads));
    assert.ok(!refused.includes(losses.policies));
  });

  it('is the options of an agent that is not verified, or has some of another version', () => {
    const { unread } = assess(web, { agents: agentWith('--of-a-later-version=1') });
    const unproven = [viewAgent(createAgentPod('node-1'))];
    assert.deepEqual(lossesOf(web, { agents: unproven }).slice(1), [losses.agents]);
    assert.match(verdictOf(web, { ...two, agents: unproven }), /^unknown /);
    assert.deepEqual(
      unread.map(({ what }) => what),
      [
        'see whether Azure assigned it to the node',
        'know the options of the agent kube-system/nmi-node-1',
      ],
    );
  });
});
