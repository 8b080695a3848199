/** The metrics of an agent, read through the API server's proxy. */
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
  { namespace, name, config }: AgentView,
): Promise<Read<readonly MetricSample[]>> {
  const port = config?.metricsPort ?? 9090;
  const path = `/api/v1/namespaces/${namespace}/pods/${name}:${port}/proxy/metrics`;
  const run = await kubectl.run(['get', `--raw=${path}`]);
  if (run.code !== 0) return { ok: false, failure: classifyFailure(run) };
  return { ok: true, value: parseMetrics(run.stdout) };
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
