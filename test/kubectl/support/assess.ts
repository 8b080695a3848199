/** Assessments of one pod, from objects of its namespace. */
import assert from 'node:assert/strict';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import type { Snapshot } from '../../../src/kubectl/cluster/snapshot.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { assessPod } from '../../../src/kubectl/findings/assessment.ts';
import { anyRequest, type PodRequest } from '../../../src/kubectl/cluster/cluster-state.ts';
import { createContexts } from '../../../src/kubectl/findings/contexts.ts';
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
} from './recorded-kubectl.ts';

export const bound = { labels: { aadpodidbinding: 'orders' } };
export const tenantID = '7e570000-1ab0-4000-8000-000000000001';
export const agentWith = (...args: readonly string[]) => [
  { ...viewAgent(createAgentPod('node-1', { args })), isVerified: true },
];

export function assess(
  pod: RawObject,
  changes: Partial<Snapshot> = {},
  request: PodRequest = anyRequest,
) {
  const snapshot = createSnapshot({ pods: [pod], agents: agentWith(), ...changes });
  const assessed = assessPod(pod, createContexts(snapshot, nowWallMs), request);
  assert.ok(assessed !== undefined);
  return assessed;
}

export const verdictOf = (...args: Parameters<typeof assess>) => {
  const { kind, summary } = assess(...args).verdict;
  return `${kind} ${summary}`;
};
export const lossesOf = (...args: Parameters<typeof assess>) =>
  assess(...args).unread.map(({ loses }) => loses);
export const web = createPod('web', bound);
export const two = {
  identities: [createIdentity('orders'), createIdentity('stock', { clientID: clientB })],
  bindings: [
    createBinding('orders'),
    createBinding('stock', { azureIdentity: 'stock', selector: 'orders' }),
  ],
};
export const grants = [
  {
    ...createObject('AzureIdentityGrant', 'g', { namespaces: ['other'], clientIDs: [clientA] }),
    metadata: { name: 'g', uid: 'uid-g', creationTimestamp: '2026-11-01T00:00:00Z' },
  },
];
export const statusOf = (status: string, reason: string) => ({
  conditions: [{ type: 'Ready', status, reason, message: 'Because.' }],
});
