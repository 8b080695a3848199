import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { unverified, viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import type { PodRequest } from '../../../src/kubectl/cluster/cluster-state.ts';
import { losses } from '../../../src/kubectl/cluster/unread.ts';
import {
  bound,
  tenantID,
  agentWith,
  assess,
  verdictOf,
  lossesOf,
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
} from '../support/recorded-kubectl.ts';

describe('what a verdict does not know', () => {
  it('is what only Azure knows of the identity', () => {
    const of = (spec: object, status = {}) =>
      lossesOf(web, { identities: [{ ...createIdentity('orders', spec), status }] });
    const entra = { clientID: clientA, tenantID };
    const password = { name: 'sp', namespace: 'shop' };
    assert.deepEqual(of({ clientID: clientA }), ['assignment of the identity in Azure']);
    assert.deepEqual(of({ ...entra, type: 3 }), ['federated credential in Entra ID']);
    const binding = { ...entra, type: 3, federation: 'binding' };
    assert.deepEqual(of(binding), ['identity binding of AKS', 'right on the identity']);
    const { unread } = assess(web, { identities: [createIdentity('orders', binding)] });
    const command = `kubectl auth can-i use-managed-identity ${clientA}.cid.wi.aks.azure.com`;
    assert.equal(unread[1]?.why, `${command} --as=system:serviceaccount:shop:default shows it`);
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

  it('is what a chain begins with, and whether its application trusts that', () => {
    const application = { tenantID, clientID: clientB };
    const of = (spec: object) => lossesOf(web, { identities: [createIdentity('orders', spec)] });
    assert.deepEqual(of({ type: 4, clientID: clientA, application }), [
      'assignment of the managed identity in Azure',
      'federated credential in Entra ID',
    ]);
    const agentIdentity = clientA;
    assert.deepEqual(of({ type: 4, federation: 'pod', application, agentIdentity }), [
      'federated credential in Entra ID',
    ]);
  });

  it('is AZURE_CLIENT_ID of a container, where the pod itself does not have its value', () => {
    const from = (env: readonly object[], envFrom: readonly object[] = []) =>
      createPod('web', { ...bound, spec: { containers: [{ name: 'main', env, envFrom }] } });
    const name = 'AZURE_CLIENT_ID';
    const ref = { name: 'ids', key: 'id' };
    const lost = (pod: RawObject, ...more: readonly PodRequest[]) =>
      assess(pod, {}, ...more)
        .unread.filter(({ loses }) => loses.includes(name))
        .map(({ loses, what }) => `${loses}: ${what}`);
    const of = 'AZURE_CLIENT_ID of container main: ';
    for (const [pod, what] of [
      [from([{ name, valueFrom: { configMapKeyRef: ref } }]), 'read ConfigMap ids'],
      [from([{ name, valueFrom: { secretKeyRef: ref } }]), 'read Secret ids'],
      [
        from([{ name, valueFrom: { fieldRef: { fieldPath: 'metadata.uid' } } }]),
        'read the field metadata.uid',
      ],
      [from([{ name, value: '$(ID)' }]), 'work out $(ID)'],
      [from([], [{ configMapRef: { name: 'ids' } }]), 'read ConfigMap ids'],
      [from([], [{ prefix: 'AZURE_', secretRef: { name: 'ids' } }]), 'read Secret ids'],
    ] as const) {
      assert.deepEqual(lost(pod), [of + what]);
      assert.equal(assess(pod).verdict.kind, 'granted');
    }
    for (const pod of [
      from([{ name, value: clientA }]),
      from([{ name, value: clientA }], [{ secretRef: { name: 'ids' } }]),
      from([{ name: 'OTHER', valueFrom: { secretKeyRef: ref } }]),
      from([], [{ prefix: 'X_', secretRef: { name: 'ids' } }]),
    ]) {
      assert.deepEqual(lost(pod), []);
    }
    const selector = { kind: 'client_id', value: clientA } as const;
    const hidden = from([{ name, valueFrom: { secretKeyRef: ref } }]);
    assert.deepEqual(lost(hidden, { selector, resource: undefined }), [], 'the user names one');
    const { spec } = hidden as { spec: object };
    const use = { 'azure.workload.identity/use': 'true' };
    const exceptions = [
      createObject('AzurePodIdentityException', 'x', { podLabels: { app: 'addon' } }),
    ];
    for (const labels of [{ ...bound.labels, ...use }, { app: 'addon' }]) {
      const { verdict, unread } = assess(createPod('web', { labels, spec }), { exceptions });
      assert.equal(verdict.kind, 'granted');
      assert.ok(!unread.some(({ loses }) => loses.includes(name)));
    }
  });

  it('is that of the identity which the request gets', () => {
    const identities = [
      two.identities[0] ?? {},
      createIdentity('stock', { clientID: clientB, tenantID, type: 3 }),
    ];
    const selector = { kind: 'client_id', value: clientB } as const;
    assert.deepEqual(lossesOf(web, { ...two, identities }, { selector, resource: undefined }), [
      'federated credential in Entra ID',
    ]);
    const exceptions = [
      createObject('AzurePodIdentityException', 'x', { podLabels: bound.labels }),
    ];
    assert.deepEqual(
      assess(web, { exceptions }).unread.map(({ loses, what }) => [loses, what]),
      [['identities of the node', 'see which identities the node has']],
    );
  });

  it('is what the user may not read, if it can change the verdict', () => {
    const unread = Object.values(losses).map((loses) => ({ loses, what: 'x', why: 'y' }));
    const granted = lossesOf(web, { unread }).slice(1);
    assert.deepEqual(granted, [
      ...[losses.policies, losses.grants, losses.agents, losses.twins, losses.nodes],
      ...[losses.refusals, losses.rights],
    ]);
    const account = { 'azure.workload.identity/use': 'true' };
    const exceptions = [
      createObject('AzurePodIdentityException', 'x', { podLabels: { app: 'addon' } }),
    ];
    const addon = createPod('web', { labels: { app: 'addon' } });
    const host = createPod('web', { ...bound, spec: { hostNetwork: true } });
    const federated = { unread, agents: agentWith('--workload-identity') };
    for (const [what, lost, isLost] of [
      [
        'an exception',
        lossesOf(addon, { unread, exceptions }).slice(1).includes(losses.policies),
        true,
      ],
      [
        'a pod on the host network',
        lossesOf(host, { unread, agents: agentWith('--redirect=ebpf') }).includes(losses.policies),
        false,
      ],
      [
        'a pod for Workload Identity',
        lossesOf(createPod('web', { labels: { ...bound.labels, ...account } }), {
          unread,
        }).includes(losses.accounts),
        true,
      ],
      ['an agent with Workload Identity', lossesOf(web, federated).includes(losses.accounts), true],
    ] as const) {
      assert.equal(lost, isLost, what);
    }
    const off = { unread, agents: agentWith('--identity-owners=off') };
    assert.ok(!lossesOf(web, off).includes(losses.grants));
    const refused = lossesOf(createPod('web'), { unread });
    assert.ok(refused.includes(losses.elsewhere) && refused.includes(losses.workloads));
    assert.ok(!refused.includes(losses.policies));
    const pending = createPod('web', { ...bound, status: { phase: 'Pending' } });
    const unproven = [viewAgent(createAgentPod('node-1'))];
    assert.deepEqual(lossesOf(pending, { agents: unproven }), [], 'the next state shows it');
  });

  it('is a policy with a CIDR that cannot be read, if all depends on it', () => {
    const policyWith = (cidr: string, podSelector = {}) =>
      createObject('NetworkPolicy', 'p', {
        podSelector,
        egress: [{ to: [{ ipBlock: { cidr } }] }],
      });
    const of = (policy: object) => {
      const { verdict, findings, unread } = assess(web, { policies: [{ ...policy }] });
      return [verdict.kind, findings.map(({ code }) => code), unread.map(({ what }) => what)];
    };
    const azure = 'see whether Azure assigned it to the node';
    assert.deepEqual(of(policyWith('010.0.0.0/8')), [
      'granted',
      [],
      ['judge NetworkPolicy p', azure],
    ]);
    assert.deepEqual(of(policyWith('0.0.0.0/0')), ['granted', [], [azure]]);
    assert.deepEqual(of(policyWith('010.0.0.0/8', { matchLabels: { app: 'db' } })), [
      'granted',
      [],
      [azure],
    ]);
    assert.deepEqual(of(policyWith('10.0.0.0/8')), ['refused', ['network_policy'], []]);
    const host = createPod('web', { ...bound, spec: { hostNetwork: true } });
    const policies = [policyWith('010.0.0.0/8')];
    const agents = agentWith('--redirect=ebpf');
    assert.ok(!lossesOf(host, { policies, agents }).includes(losses.policies));
  });

  it('is the options of an agent that is not verified, or has some of another version', () => {
    const { unread } = assess(web, { agents: agentWith('--of-a-later-version=1') });
    const unproven = [viewAgent(createAgentPod('node-1'))];
    assert.match(unread[1]?.why ?? '', /^this version does not know/);
    assert.equal(assess(web, { agents: unproven }).unread[1]?.why, unverified);
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
