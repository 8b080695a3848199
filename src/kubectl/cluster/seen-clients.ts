/** Which clients the agents saw pods use, read by exec into the agents' pods. */
import { parseRecord, stringAt } from '../../nmi/base/json-value.ts';
import { recordsAt, textsAt } from '../base/object.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import { classifyFailure } from '../transport/kubectl-failure.ts';
import { unverified, type AgentView } from './agents.ts';
import { describeUnread, type Unread } from './snapshot.ts';

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
  for (const { namespace, name, isVerified } of agents) {
    const what = `ask the agent ${namespace}/${name}`;
    const loses = 'which SDKs the pods of its node use';
    if (!isVerified) {
      unread.push({ what, why: unverified, loses });
      continue;
    }
    const run = await kubectl.run([
      'exec',
      `--namespace=${namespace}`,
      name,
      '--container=nmi',
      '--',
      'nmi',
      'explain',
      '--output=json',
    ]);
    if (run.code !== 0) {
      const read = { ok: false, failure: classifyFailure(run) } as const;
      unread.push(describeUnread(what, read, loses));
      continue;
    }
    for (const pod of recordsAt(parseRecord(run.stdout), 'pods')) {
      seen.set(`${stringAt(pod, 'namespace')}/${stringAt(pod, 'name')}`, textsAt(pod, 'clients'));
    }
  }
  return seen;
}
