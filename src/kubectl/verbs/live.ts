/** For `explain --live`: the report of the agent on the pod's node, by its own `nmi explain`. */
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { isExplanation, type Explanation } from '../../nmi/explain/explanation.ts';
import { nameOf, namespaceOf, specOf, type RawObject } from '../base/object.ts';
import { shellWord } from '../base/output.ts';
import { failedError, PluginError } from '../base/plugin-error.ts';
import { servingAgents, trustedOf, type AgentView } from '../cluster/agents.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import { classifyFailure, toPluginError } from '../transport/kubectl-failure.ts';

/** @throws PluginError unless a DaemonSet of agents controls it: nothing else is run or trusted. */
export function agentOn(
  pod: RawObject,
  agents: readonly AgentView[] | undefined,
  agentNamespace: string,
): AgentView {
  const node = stringAt(specOf(pod), 'nodeName');
  const agent = servingAgents(trustedOf(agents)).get(node);
  if (agent !== undefined) return agent;
  throw failedError(
    node === ''
      ? 'the pod is on no node yet, so no agent serves it'
      : `no proven agent of this project is on node ${node} in namespace ${agentNamespace}`,
    'See the agents: kubectl nmi doctor. --agent-namespace names another namespace.',
  );
}

export type Live = Explanation | { readonly kind: 'unread'; readonly problem: string };

/** The verdict stands without it, so a problem is a part of the answer. */
export async function askAgent(
  kubectl: Kubectl,
  pod: RawObject,
  findAgent: () => AgentView,
  flags: Readonly<Record<string, string | undefined>>,
): Promise<Live> {
  try {
    return await explanationOf(kubectl, pod, findAgent(), flags);
  } catch (error) {
    if (!(error instanceof PluginError)) throw error;
    return { kind: 'unread', problem: `${error.message}. ${error.nextStep}` };
  }
}

async function explanationOf(
  kubectl: Kubectl,
  pod: RawObject,
  { namespace, name }: AgentView,
  flags: Readonly<Record<string, string | undefined>>,
): Promise<Explanation> {
  const given = Object.entries(flags).flatMap(([flag, value]) =>
    value === undefined ? [] : [`--${flag}=${value}`],
  );
  const explain = ['nmi', 'explain', `--pod=${namespaceOf(pod)}/${nameOf(pod)}`, ...given];
  const where = ['exec', `--namespace=${namespace}`, name, '--container=nmi', '--'];
  const run = await kubectl.run([...where, ...explain, '--output=json']);
  // It exits with 1 if the agent does not know the pod.
  const body = parseRecord(run.stdout);
  if (isExplanation(body)) return body;
  const what = `ask the agent ${namespace}/${name}`;
  if (run.code === 0) {
    throw failedError(
      `cannot ${what}: its release reports in another form`,
      'Take the plugin of that release.',
    );
  }
  const failure = classifyFailure(run);
  const error = toPluginError(failure, what);
  if (failure.kind !== 'forbidden') throw error;
  const command = ['kubectl', ...where, ...explain].map(shellWord).join(' ');
  const next = `${error.nextStep}. Or an administrator runs: ${command}`;
  throw new PluginError(error.exitCode, error.message, next);
}
