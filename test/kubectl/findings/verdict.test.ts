import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord } from '../../../src/base/json-value.ts';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import {
  agentWith,
  bound,
  assess,
  grants as unowning,
  verdictOf,
  web,
  two,
  statusOf,
} from '../support/assess.ts';
import {
  clientA,
  clientB,
  createAgentPod,
  createIdentity,
  createObject,
  createPod,
  nowWallMs,
} from '../support/recorded-kubectl.ts';

describe('the verdict on a pod', () => {
  it('names the identities of the node for an excepted pod', () => {
    const exceptions = [
      createObject('AzurePodIdentityException', 'x', { podLabels: { app: 'addon' } }),
    ];
    assert.equal(
      verdictOf(createPod('web', { labels: { app: 'addon' } }), { exceptions }),
      "granted gets a token of the node's own identities (exception x)",
    );
  });

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

  it('is refused for a grant that the status misses and the user may not read', () => {
    const agents = agentWith('--identity-owners=enforce');
    const status = statusOf('False', 'identity_not_owned');
    const identities = [{ ...createIdentity('orders'), status }];
    const unreadable = { agents, identities, grants: undefined };
    assert.equal(verdictOf(web, unreadable), 'refused gets 400 identity_not_owned');
    const spec = { namespaces: ['shop'], clientIDs: [clientA] };
    const [grant] = unowning;
    const grants = [{ ...grant, spec }];
    assert.match(verdictOf(web, { ...unreadable, grants }), /^granted /, 'newer than the status');
  });

  it('is not refused for the status of an identity that the request does not get', () => {
    const [orders = {}, other = {}] = two.identities;
    const identities = [orders, { ...other, status: statusOf('False', 'credential_missing') }];
    const { verdict, findings } = assess(web, { ...two, identities });
    assert.equal(verdict.kind, 'granted');
    const found = findings.find(({ code }) => code === 'credential_missing');
    assert.deepEqual([found?.severity, found?.object], ['warning', 'AzureIdentity shop/stock']);
  });

  it('is about the identity that the request names', () => {
    const selector = { kind: 'client_id', value: clientB } as const;
    const named = verdictOf(web, two, { selector, resource: undefined });
    assert.equal(
      named,
      `granted gets a token of AzureIdentity stock, client id ${clientB} (by client_id)`,
    );
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
    const unpulled = unready.map((each) => ({ ...each, problem: 'ErrImagePull: no such image' }));
    assert.equal(verdictOf(web, { agents: unpulled }), 'not-ready is not served: image_not_pulled');
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
});
