/** Whether the agents may create the tokens that an identity needs, asked in their name. */
import { rightsForIdentities, type IdentityRight } from '../findings/agent-rights.ts';
import type { RawObject } from '../base/object.ts';
import { unverified, verifiedOf, type AgentView } from '../cluster/agents.ts';
import { askRight } from '../cluster/rights.ts';
import { describeUnread, losses, type Unread } from '../cluster/unread.ts';
import type { Kubectl } from '../transport/kubectl.ts';

export type AgentRight =
  | { readonly kind: 'given' }
  /** @param user the account of the agents. */
  | { readonly kind: 'lacking'; readonly account: string; readonly right: IdentityRight }
  | { readonly kind: 'unknown'; readonly unread: Unread };

/** Undefined if it needs no token of a service account. */
export async function askAgentRight(
  kubectl: Kubectl,
  identity: RawObject,
  agents: readonly AgentView[] | undefined,
): Promise<AgentRight | undefined> {
  const agent = verifiedOf(agents).find(({ isOldNmi }) => !isOldNmi);
  const [right] = rightsForIdentities([identity], agent ?? { namespace: '' });
  if (right?.resource !== 'serviceaccounts/token') return undefined;
  const what = 'ask for the rights of the agents, as kubectl nmi doctor does';
  const loses = losses.rights;
  if (agent === undefined) return { kind: 'unknown', unread: { what, why: unverified, loses } };
  const account = `${agent.namespace}/${agent.serviceAccount}`;
  const user = `system:serviceaccount:${account.replace('/', ':')}`;
  const { kind, failure } = await askRight(
    kubectl,
    right,
    [`--namespace=${right.namespace}`],
    user,
  );
  if (failure !== undefined)
    return { kind: 'unknown', unread: describeUnread(what, failure, loses) };
  return kind === 'no' ? { kind: 'lacking', account, right } : { kind: 'given' };
}
