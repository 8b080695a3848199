/** The chart, rendered by the real helm. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { chartFolder } from '../../../scripts/chart-schema.ts';
import { options as allOptions } from '../../../src/nmi/config/options.ts';

/** The fields of a Kubernetes object that the tests read. */
export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

export interface RenderOptions {
  readonly helm: string;
  readonly release?: string;
  readonly namespace?: string;
  /** In the structure of values.yaml. */
  readonly values?: object;
  readonly flags?: readonly string[];
  /** Include the objects of `helm test`. */
  readonly withTests?: boolean;
}

export interface Rendered {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export const testRepository = 'registry.example/team';

/**
 * The result of `helm template`, good or bad. Values are passed as YAML, of which JSON is a subset.
 */
export function runHelmTemplate(options: RenderOptions): Rendered {
  const { helm, release = 'nmi', namespace = 'kube-system', values = {}, flags = [] } = options;
  const { withTests = false } = options;
  const words = [
    'template',
    release,
    chartFolder,
    `--namespace=${namespace}`,
    '--values=-',
    ...(withTests ? [] : ['--skip-tests']),
  ];
  // The chart requires one; a test's own value has priority.
  const image = {
    repository: testRepository,
    ...('image' in values ? (values.image as object) : {}),
  };
  const input = JSON.stringify({ ...values, image });
  const run = spawnSync(helm, [...words, ...flags], { encoding: 'utf8', input, timeout: 60_000 });
  return { exitCode: run.status, stdout: run.stdout, stderr: run.stderr };
}

/** The text of all objects. */
export function renderChart(options: RenderOptions): string {
  const { exitCode, stdout, stderr } = runHelmTemplate(options);
  assert.equal(exitCode, 0, stderr);
  return stdout;
}

export function objectsOf(yaml: string): readonly KubeObject[] {
  return parseAllDocuments(yaml).flatMap((document) => {
    assert.deepEqual(document.errors, []);
    const object = document.toJS() as KubeObject | null;
    return object === null ? [] : [object];
  });
}

/** A value deep inside, by the names that lead to it: `spec.template.spec.containers.0.args`. */
export function at(value: unknown, path: string): unknown {
  const inside = (outer: unknown, name: string): unknown =>
    (outer as Readonly<Record<string, unknown>> | undefined)?.[name];
  return path.split('.').reduce(inside, value);
}

/** The default of an option, by the name of its flag. */
export function defaultOf(name: string): string {
  return String(allOptions.find((option) => option.name === name)?.default);
}

interface Rule {
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

/** The rules of all roles, as `get+list pods`. */
export function rightsOf(all: readonly KubeObject[]): readonly string[] {
  return all
    .flatMap((object) => (object.kind.endsWith('Role') ? (object['rules'] as readonly Rule[]) : []))
    .map(({ resources, resourceNames = [], verbs }) =>
      [verbs.join('+'), resources.join('+'), ...resourceNames].join(' '),
    );
}

/** By kind and name, without the labels of the Helm release. */
export function withoutRelease(objects: readonly KubeObject[]): ReadonlyMap<string, KubeObject> {
  const ofRelease = new Set([
    'helm.sh/chart',
    'app.kubernetes.io/managed-by',
    'app.kubernetes.io/instance',
  ]);
  const entries = objects.map((object) => {
    const { labels, ...metadata } = object.metadata;
    const kept = Object.entries(labels ?? {}).filter(([name]) => !ofRelease.has(name));
    const bare =
      labels === undefined ? metadata : { ...metadata, labels: Object.fromEntries(kept) };
    return [`${object.kind} ${metadata.name}`, { ...object, metadata: bare }] as const;
  });
  return new Map(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly env?: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: { readonly fieldRef: { readonly fieldPath: string } };
  }[];
  readonly securityContext: {
    readonly runAsUser?: number;
    readonly capabilities: { readonly drop: readonly string[]; readonly add?: readonly string[] };
  };
  readonly volumeMounts?: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly readOnly?: boolean;
  }[];
  readonly livenessProbe?: object;
  readonly readinessProbe?: object;
  readonly startupProbe?: { readonly exec?: { readonly command: readonly string[] } };
  readonly ports?: readonly { readonly containerPort: number }[];
}

export interface DaemonSetSpec {
  readonly selector: { readonly matchLabels: Readonly<Record<string, string>> };
  readonly updateStrategy: { readonly rollingUpdate: Readonly<Record<string, unknown>> };
  readonly template: {
    readonly metadata: { readonly labels: Readonly<Record<string, string>> };
    readonly spec: {
      readonly terminationGracePeriodSeconds: number;
      readonly serviceAccountName?: string;
      readonly automountServiceAccountToken?: boolean;
      readonly initContainers?: readonly Container[];
      readonly containers: readonly Container[];
      readonly volumes?: readonly {
        readonly name: string;
        readonly hostPath?: { readonly path: string; readonly type: string };
      }[];
    };
  };
}

/** The pod of the workload of a kind in a file below `deploy`. */
export async function readPodSpec(file: string, kind = 'DaemonSet') {
  const text = await readFile(join(chartFolder, '..', file), 'utf8');
  return (specOf(objectsOf(text), kind) as DaemonSetSpec).template.spec;
}

export function daemonSetOf(objects: readonly KubeObject[]): DaemonSetSpec {
  return specOf(objects, 'DaemonSet') as DaemonSetSpec;
}

/** The spec of the first object of the kind. */
export function specOf(objects: readonly KubeObject[], wanted: string): unknown {
  const found = objects.find(({ kind }) => kind === wanted);
  assert.ok(found !== undefined, `there is no ${wanted}`);
  return found['spec'];
}

/** The first container, which is the agent. */
export function agentOf(objects: readonly KubeObject[]): Container {
  const [agent] = daemonSetOf(objects).template.spec.containers;
  assert.ok(agent !== undefined);
  return agent;
}

/** The agent's arguments by flag, as the command line parses them. */
export function flagsOf({ args = [] }: Container): Readonly<Record<string, string>> {
  return Object.fromEntries(
    args.map((arg) => {
      const [, name = '', value = 'true'] = /^--?([^=]+)(?:=(.*))?$/s.exec(arg) ?? [];
      return [name, value.replace('$(NODE_NAME)', 'node-1')];
    }),
  );
}

const fields: Readonly<Record<string, string>> = {
  'spec.nodeName': 'node-1',
  'status.hostIP': '10.0.0.4',
  'metadata.uid': '7e570000-1ab0-4000-8000-000000000001',
};

/** The container's variables, as a command typed in the container gets them. */
export function environmentOf({ env = [] }: Container): Readonly<Record<string, string>> {
  return Object.fromEntries(
    env.map(({ name, value, valueFrom }) => [
      name,
      value ?? fields[valueFrom?.fieldRef.fieldPath ?? ''] ?? '',
    ]),
  );
}
