import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { anyRequest } from '../../../src/kubectl/cluster/cluster-state.ts';
import { assessPod } from '../../../src/kubectl/findings/assessment.ts';
import { createContexts } from '../../../src/kubectl/findings/contexts.ts';
import { agentWith, bound, assess, web } from '../support/assess.ts';
import {
  clientA,
  clientB,
  createAgentPod,
  createAgentSet,
  createBinding,
  createPod,
  createSnapshot,
  nowWallMs,
} from '../support/recorded-kubectl.ts';

describe('an assessment', () => {
  it('has a refusal for AZURE_CLIENT_ID once, where it can be changed', () => {
    const env = [{ name: 'AZURE_CLIENT_ID', value: clientB }];
    const pod = createPod('web', { ...bound, spec: { containers: [{ name: 'main', env }] } });
    const request = {
      selector: { kind: 'client_id', value: clientB },
      resource: undefined,
    } as const;
    const codes = assess(pod, {}, request).findings.map(({ code }) => code);
    assert.deepEqual(codes, ['selector_not_bound']);
  });

  it('is about the client id that was asked for, whatever the environment of the pod says', () => {
    const env = [{ name: 'AZURE_CLIENT_ID', value: clientB }];
    const pod = createPod('web', { ...bound, spec: { containers: [{ name: 'main', env }] } });
    const selector = { kind: 'client_id', value: clientA } as const;
    const { verdict, findings } = assess(pod, {}, { selector, resource: undefined });
    assert.deepEqual([verdict.kind, findings], ['granted', []]);
  });

  it('does not exist for a pod that is not in the cluster', () => {
    const contexts = createContexts(createSnapshot({ pods: [] }), nowWallMs);
    assert.equal(assessPod(web, contexts, anyRequest), undefined);
  });

  it('has the agent of the node, if it can be seen', () => {
    const [missing] = assess(web, { agents: [] }).findings;
    assert.deepEqual([missing?.code, missing?.object], ['agent_missing', 'Node node-1']);
    assert.deepEqual(assess(web, { agents: undefined }).findings, []);
    const [unready] = assess(web, {
      agents: [viewAgent(createAgentPod('node-1', { isReady: false }))],
    }).findings;
    assert.deepEqual(
      [unready?.code, unready?.fix],
      ['agent_not_ready', 'See why: kubectl -n kube-system logs nmi-node-1 -c nmi'],
    );
  });

  it('has one finding for a pod on a Windows node, whatever else is wrong', () => {
    const nodes = [
      { metadata: { name: 'node-1', labels: { 'kubernetes.io/os': 'windows' } } },
      { metadata: { name: 'node-2', labels: { 'kubernetes.io/os': 'linux' } } },
    ];
    const bare = createPod('web');
    const bySpec = createPod('web', { ...bound, spec: { os: { name: 'windows' } } });
    for (const [pod, changes] of [
      [web, { nodes }],
      [bare, { nodes }],
      [bySpec, { bindings: [] }],
    ] as const) {
      const { verdict, findings } = assess(pod, { agents: [], ...changes });
      assert.deepEqual(
        findings.map(({ code, object }) => `${code} ${object}`),
        ['pod_on_windows Pod shop/web'],
      );
      assert.deepEqual(verdict, { kind: 'not-ready', summary: 'is not served: pod_on_windows' });
    }
    const linux = createPod('web', { ...bound, spec: { nodeName: 'node-2' } });
    assert.equal(assess(linux, { agents: [], nodes }).findings[0]?.code, 'agent_missing');
  });

  it('tells a node with the old NMI from one without an agent', () => {
    const image = 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17';
    const old = { ...viewAgent(createAgentPod('node-1', { image })), isVerified: true };
    for (const bindings of [[createBinding('orders')], []]) {
      const { verdict, findings } = assess(web, { agents: [old], bindings });
      const codes = findings.map(({ code }) => code);
      assert.ok(codes.includes('old_nmi') && !codes.includes('agent_missing'), codes.join());
      assert.deepEqual(verdict, {
        kind: 'unknown',
        summary: 'is answered by the NMI of aad-pod-identity, the only one on its node: old_nmi',
      });
    }
    const elsewhere = createPod('web', { ...bound, spec: { nodeName: 'node-2' } });
    assert.equal(assess(elsewhere, { agents: [old] }).findings[0]?.code, 'agent_missing');
  });

  it('has a second release on the node, whose options may be the ones that count', () => {
    const other = createAgentPod('node-1', { name: 'other', set: createAgentSet('other') });
    const agents = [...agentWith(), { ...viewAgent(other), isVerified: true }];
    const [second, ...rest] = assess(web, { agents }).findings;
    assert.deepEqual([second?.code, second?.object, rest], ['agents_on_node', 'Node node-1', []]);
  });

  it('warns of ignored objects of the namespace of the pod, and of no other', () => {
    const bad = { selector: 7 };
    const bindings = [
      createBinding('orders'),
      createBinding('bad', bad),
      createBinding('bad', bad, { namespace: 'other' }),
    ];
    assert.deepEqual(
      assess(web, { bindings }).findings.map(({ severity, object }) => `${severity} ${object}`),
      ['warning AzureIdentityBinding shop/bad'],
    );
  });
});
