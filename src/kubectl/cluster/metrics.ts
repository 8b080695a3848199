/** Pages of an agent, read through the API server's proxy: its metrics, and those for people. */
import type { Kubectl, Read } from '../transport/kubectl.ts';
import { classifyFailure } from '../transport/kubectl-failure.ts';
import type { AgentView } from './agents.ts';

export interface MetricSample {
  readonly name: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

export async function readMetrics(
  kubectl: Kubectl,
  agent: AgentView,
): Promise<Read<readonly MetricSample[]>> {
  const read = await readRaw(kubectl, agent, agent.config?.metricsPort ?? 9090, 'metrics');
  return read.ok ? { ok: true, value: parseMetrics(read.value) } : read;
}

/** Plain text. An agent older than its plugin may not have the page. */
export function readZPage(
  kubectl: Kubectl,
  agent: AgentView,
  page: 'statusz' | 'flagz',
): Promise<Read<string>> {
  return readRaw(kubectl, agent, agent.config?.probePort ?? 8080, page);
}

async function readRaw(
  kubectl: Kubectl,
  { namespace, name }: AgentView,
  port: number,
  page: string,
): Promise<Read<string>> {
  const path = `/api/v1/namespaces/${namespace}/pods/${name}:${port}/proxy/${page}`;
  const run = await kubectl.run(['get', `--raw=${path}`]);
  if (run.code !== 0) return { ok: false, failure: classifyFailure(run) };
  return { ok: true, value: run.stdout };
}

/** Lines that are not samples are left out. */
export function parseMetrics(text: string): readonly MetricSample[] {
  return text.split('\n').flatMap((line) => {
    const [, name, labels = '', value] =
      /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?$/.exec(line) ?? [];
    if (name === undefined) return [];
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
    return [
      {
        name,
        labels: new Map(pairs.map(([, key = '', label = '']) => [key, label] as const)),
        value: Number(value),
      },
    ];
  });
}
