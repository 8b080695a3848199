/** The agents' metrics pages, and the nodes that they should be on. */
import type { RawObject } from '../base/object.ts';
import type { Kubectl, Read } from '../transport/kubectl.ts';
import { classifyFailure } from '../transport/kubectl-failure.ts';
import type { AgentView } from './agents.ts';
import { valueOrUnread, type Unread } from './unread.ts';

/** Through the API server's proxy. */
export async function readMetricsPage(
  kubectl: Kubectl,
  { namespace, name, config }: AgentView,
): Promise<Read<string>> {
  const port = config?.metricsPort ?? 9090;
  const path = `/api/v1/namespaces/${namespace}/pods/${name}:${port}/proxy/metrics`;
  const run = await kubectl.run(['get', `--raw=${path}`]);
  if (run.code !== 0) return { ok: false, failure: classifyFailure(run) };
  return { ok: true, value: run.stdout };
}

/** Nodes of the cluster; undefined if the user may not list them. */
export async function listNodes(
  kubectl: Kubectl,
  unread: Unread[],
): Promise<readonly RawObject[] | undefined> {
  const read = await kubectl.list('nodes', undefined);
  return valueOrUnread(read, 'list nodes', 'nodes without an agent', unread);
}
