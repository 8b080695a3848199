/** What an agent reports about its node and itself, read by exec into the agent's pod. */
import type { Kubectl } from '../transport/kubectl.ts';
import { classifyFailure } from '../transport/kubectl-failure.ts';
import { unverified, type AgentView } from './agents.ts';
import { describeUnread, type Unread } from './unread.ts';

/**
 * The JSON of its `nmi explain`, or undefined.
 * @param loses what the report lacks then; added to `unread` with the reason.
 */
export async function readAgentExplanation(
  kubectl: Kubectl,
  { namespace, name, isVerified }: AgentView,
  loses: string,
  unread: Unread[],
): Promise<string | undefined> {
  const what = `ask the agent ${namespace}/${name}`;
  if (!isVerified) {
    unread.push({ what, why: unverified, loses });
    return undefined;
  }
  const run = await kubectl.run([
    ...['exec', `--namespace=${namespace}`, name, '--container=nmi', '--'],
    ...['nmi', 'explain', '--output=json'],
  ]);
  if (run.code === 0) return run.stdout;
  unread.push(describeUnread(what, { ok: false, failure: classifyFailure(run) }, loses));
  return undefined;
}
