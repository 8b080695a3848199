/** What the agents may do, asked in the name of their service account. */
import { createFinding, type Finding } from '../../nmi/diagnosis/finding.ts';
import type { RawObject } from '../base/object.ts';
import { trustedOf, unverified, type AgentView } from '../cluster/agents.ts';
import { identityResources } from '../cluster/resources.ts';
import { askRight, everywhere, type Answer, type Right } from '../cluster/rights.ts';
import { describeUnread, losses, type Unread } from '../cluster/unread.ts';
import {
  findingOfIdentityRight,
  rightsForIdentities,
  rightsOfAgent,
  type IdentityRight,
} from '../findings/agent-rights.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import type { Judged, Look } from './checks.ts';

/** Empty where the agents have it, or the identity needs no token of a service account. */
export interface AgentRight {
  readonly findings: readonly Finding[];
  readonly unread: readonly Unread[];
}

export async function askAgentRight(
  kubectl: Kubectl,
  identity: RawObject,
  agents: readonly AgentView[] | undefined,
): Promise<AgentRight> {
  const [agent] = trustedOf(agents);
  const [right] = rightsForIdentities([identity], agent ?? { namespace: '' });
  if (right?.resource !== 'serviceaccounts/token') return { findings: [], unread: [] };
  const what = 'ask for the rights of the agents, as kubectl nmi doctor does';
  const loses = losses.rights;
  if (agent === undefined) return { findings: [], unread: [{ what, why: unverified, loses }] };
  const { account, ask } = inNameOf(kubectl, agent);
  const { kind, failure } = await ask(right, right.namespace);
  return {
    findings: kind === 'no' ? [findingOfIdentityRight(account, right)] : [],
    unread: failure === undefined ? [] : [describeUnread(what, failure, loses)],
  };
}

function inNameOf(kubectl: Kubectl, { namespace, serviceAccount }: AgentView) {
  const user = `system:serviceaccount:${namespace}:${serviceAccount}`;
  const ask = <T extends Right>(right: T, where?: string): Promise<Answer<T>> =>
    askRight(kubectl, right, where === undefined ? everywhere : [`--namespace=${where}`], user);
  return { account: `${namespace}/${serviceAccount}`, ask };
}

/** Agents of this project; undefined if they cannot be read, or nothing proves one. */
export async function readTrusted({ agents, open }: Look) {
  const all = await agents();
  const isProven = all?.every(({ isVerified }) => isVerified);
  if (isProven === false) open('know the account and the options of the agents', unverified);
  return isProven === true ? trustedOf(all) : undefined;
}

/** Most namespaces that are asked for one by one: each takes a process. */
const maxNamespaces = 20;

type Answers = readonly Answer<Right | IdentityRight>[];

/** `wide` are those that it has everywhere, and not only as its node. */
export async function readAgentRights(look: Look) {
  const trusted = await readTrusted(look);
  const [agent] = trusted ?? [];
  if (agent === undefined) return trusted && { account: '', answers: [] as Answers, wide: [] };
  const { account, ask } = inNameOf(look.kubectl, agent);
  const needed = rightsForIdentities((await look.list(identityResources.identities)) ?? [], agent);
  const kinds = [...new Map(needed.map((each) => [each.resource, each])).values()];
  const [own, ofKinds] = await Promise.all([
    Promise.all(rightsOfAgent(agent).map((right) => ask(right))),
    Promise.all(kinds.map((right) => ask(right))),
  ]);
  const given = ofKinds.filter(({ kind }) => kind === 'yes' || kind === 'as_node');
  const wholly = new Set(given.map(({ right }) => right.resource));
  const narrow = needed.filter(({ resource }) => !wholly.has(resource));
  if (narrow.length > maxNamespaces) {
    const why = `${narrow.length} namespaces have identities, and doctor asks for ${maxNamespaces}`;
    look.open('ask for each namespace', why);
  }
  const some = narrow.slice(0, maxNamespaces);
  const ofIdentities = await Promise.all(some.map((right) => ask(right, right.namespace)));
  const answers: Answers = [...own.map((each) => withoutGuess(each, look)), ...ofIdentities];
  const failed = answers.find(({ failure }) => failure !== undefined);
  if (failed?.failure !== undefined) {
    const { verb, resource } = failed.right;
    look.open(`ask the server who may ${verb} ${resource}`, failed.failure);
  }
  const wide = given.filter(({ kind }) => kind === 'yes').map(({ right }) => right);
  return { account, answers, wide };
}

function withoutGuess(answer: Answer<Right>, { open }: Look): Answer<Right> {
  const { verb, resource, isPerNamespace = false } = answer.right;
  if (answer.kind !== 'no' || !isPerNamespace) return answer;
  const why = 'it may not in all; rbac.federationNamespaces must have those of its pods';
  open(`see in which namespaces the agent may ${verb} ${resource}`, why);
  return { ...answer, kind: 'unknown' };
}

type AgentRights = NonNullable<Awaited<ReturnType<typeof readAgentRights>>>;

export function judgeAgentRights({ account, answers, wide }: AgentRights): Judged | undefined {
  if (answers.length === 0) return undefined;
  const object = `ServiceAccount ${account}`;
  const lacking = answers
    .filter(({ kind }) => kind === 'no')
    .map(({ right }) => {
      if ('identities' in right) return findingOfIdentityRight(account, right);
      const text = `It may not ${right.verb} ${right.resource} in all namespaces.`;
      return createFinding('agent_rights', { object, text });
    });
  const reaching = wide.map(({ verb, resource }) => {
    const text = `It may ${verb} ${resource} in all namespaces: so may anyone who takes over one agent.`;
    return createFinding('agent_rights_wide', { object, text });
  });
  const unknown = answers.filter(({ kind }) => kind === 'unknown').length;
  const rest = unknown === 0 ? '' : `, ${unknown} not checked`;
  const isComplete = lacking.length === 0 && unknown === 0;
  const result = isComplete ? 'complete' : `${lacking.length} missing${rest}`;
  return { result, findings: [...lacking, ...reaching] };
}
