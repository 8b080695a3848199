import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { AgentContexts } from '../../../src/kubectl/findings/contexts.ts';
import { renderObjectReport, reportObject } from '../../../src/kubectl/findings/object-report.ts';
import { agentWith, web, statusOf } from '../support/assess.ts';
import {
  createAgentPod,
  createIdentity,
  createPod,
  createSnapshot,
  nowWallMs,
} from '../support/recorded-kubectl.ts';

const report = (kind: 'AzureIdentity' | 'AzureIdentityBinding', changes = {}) => {
  const snapshot = createSnapshot({
    pods: [web, createPod('plain', { ip: '10.244.1.8' })],
    agents: agentWith(),
    ...changes,
  });
  const [object] = kind === 'AzureIdentity' ? snapshot.identities : snapshot.bindings;
  assert.ok(object !== undefined);
  return reportObject(kind, object, snapshot, new AgentContexts(snapshot, nowWallMs));
};

describe('the report on an identity or a binding', () => {
  it('has its bindings, its pods and what they get', () => {
    const lines = renderObjectReport(report('AzureIdentity'));
    assert.equal(lines[0], 'AzureIdentity shop/orders');
    assert.ok(lines.includes('  orders, selector orders'));
    assert.match(lines.at(-1) ?? '', /^web +a token of AzureIdentity orders/);
    assert.deepEqual(
      report('AzureIdentityBinding').pods.map(({ pod }) => pod),
      ['web'],
    );
    assert.ok(!renderObjectReport(report('AzureIdentityBinding')).includes('Bindings:'));
  });

  it('has no token for a pod whose identity is not ready by its status', () => {
    const status = statusOf('False', 'credential_missing');
    const identities = [{ ...createIdentity('orders'), status }];
    const { pods, findings } = report('AzureIdentity', { identities });
    assert.deepEqual(pods, [{ pod: 'web', gets: '400 credential_missing' }]);
    assert.deepEqual(
      findings.map(({ code }) => code),
      ['credential_missing'],
    );
  });

  it('has each finding once, whatever number of agents there is', () => {
    const strict = viewAgent(createAgentPod('node-2', { args: ['--strict-identity'] }));
    const agents = [...agentWith(), { ...strict, isVerified: true }];
    const { findings, pods } = report('AzureIdentityBinding', { identities: [], agents });
    assert.deepEqual(
      findings.map(({ code }) => code),
      ['identity_missing'],
    );
    assert.deepEqual(pods, [{ pod: 'web', gets: '400 identity_missing' }]);
    const alone = renderObjectReport(report('AzureIdentity', { bindings: [] }));
    assert.ok(alone.includes('No binding names it.') && alone.includes('No pod has it.'));
    assert.ok(alone.includes('Findings:'));
  });
});
