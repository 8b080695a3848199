/** Pods of the client's image, and their answers. */
import { clientImage, clientProgram } from './images.ts';
import type { TestNode } from './node.ts';

export interface ClientPod {
  readonly name: string;
  /** Default: `idle`. */
  readonly args?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  /** Merged into the pod's spec. */
  readonly spec?: object;
  /** Merged into its container. */
  readonly container?: object;
}

/** One request, as the client reports it. */
export interface ClientAnswer {
  readonly at: number;
  readonly tookMs: number;
  readonly outcome: string;
  readonly identity?: string;
  readonly error?: string;
}

export function clientContainer(args: readonly string[], more: object = {}): object {
  return { name: 'client', image: clientImage, imagePullPolicy: 'Never', args, ...more };
}

export function clientPod({ name, args = ['idle'], labels, spec, container }: ClientPod): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { ...labels } },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [clientContainer(args, container)],
      ...spec,
    },
  };
}

/** One request from a container of a pod. */
export async function askFrom(node: TestNode, pod: string): Promise<ClientAnswer> {
  const command = ['exec', pod, '--', 'node', clientProgram, 'ask'];
  return JSON.parse(await node.kubectl(command)) as ClientAnswer;
}

/** The token's identity, or status and text of any other answer. */
export function describeAnswer({ outcome, identity, error = '' }: ClientAnswer): string {
  return identity ?? `${outcome} ${error}`.trim();
}

export async function untilPodsReady(node: TestNode, ...pods: readonly string[]): Promise<void> {
  const names = pods.map((name) => `pod/${name}`);
  await node.kubectl(['wait', '--for=condition=Ready', ...names, '--timeout=90s'], {
    timeoutMs: 100_000,
  });
}
