/** Which clients the agents saw pods use, read by exec into the agents' pods. */
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { recordsAt, textsAt } from '../base/object.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import { readAgentExplanation } from './agent-explanation.ts';
import type { AgentView } from './agents.ts';
import type { Unread } from './unread.ts';

/**
 * By `namespace/name` of the pod; empty for a pod that sent no request since its agent started.
 * @param agents of the relevant nodes; data that an agent does not return is added to `unread`.
 */
export async function readSeenClients(
  kubectl: Kubectl,
  agents: readonly AgentView[],
  unread: Unread[],
): Promise<ReadonlyMap<string, readonly string[]>> {
  const seen = new Map<string, readonly string[]>();
  for (const agent of agents) {
    const text = await readAgentExplanation(
      kubectl,
      agent,
      'which SDKs the pods of its node use',
      unread,
    );
    for (const pod of recordsAt(parseRecord(text ?? ''), 'pods')) {
      seen.set(`${stringAt(pod, 'namespace')}/${stringAt(pod, 'name')}`, textsAt(pod, 'clients'));
    }
  }
  return seen;
}
