/** The input of every verb: the machine, the user's kubectl, and the common flags. */
import { renderReport, shellWord, type OutputFormat } from '../base/output.ts';
import { exitCodes, type Io } from '../base/io.ts';
import { failedError, type ExitCode } from '../base/plugin-error.ts';
import { valueOf, type Kubectl, type Scope } from '../transport/kubectl.ts';

export interface VerbContext {
  readonly io: Io;
  readonly kubectl: Kubectl;
  readonly agentNamespace: string;
  readonly warn: (text: string) => void;
  /** Value of the flag; undefined for the namespace of the kubectl context. */
  readonly namespace: string | undefined;
  readonly allNamespaces: boolean;
  readonly output: OutputFormat;
  readonly failOn: FailOn;
}

export function print(
  { io, output }: VerbContext,
  value: object,
  lines: () => readonly string[],
): void {
  io.stdout(renderReport(output, value, lines));
}

export const failLimits = ['never', 'warning', 'error'] as const;
export type FailOn = (typeof failLimits)[number];

/** @param reachesLimit whether something of that severity or above was found. */
export function exitOf(
  { failOn }: VerbContext,
  reachesLimit: (limit: 'warning' | 'error') => boolean,
): ExitCode {
  return failOn !== 'never' && reachesLimit(failOn) ? exitCodes.findings : exitCodes.ok;
}

export async function namespaceFor(context: VerbContext): Promise<string> {
  return context.namespace ?? (await context.kubectl.currentNamespace());
}

/** For a verb that writes: one context and one namespace from its first read to its last write. */
export interface PinnedContext extends VerbContext {
  readonly namespace: string;
  /** For people: where it writes. */
  readonly target: string;
}

export async function pin(context: VerbContext): Promise<PinnedContext> {
  const pinned = await context.kubectl.pin();
  const { namespace = pinned.namespace } = context;
  const name = pinned.name === '' ? '' : `context ${pinned.name}, `;
  return {
    ...context,
    kubectl: pinned.kubectl,
    namespace,
    target: `${name}namespace ${namespace}`,
  };
}

export function kubectlCommand({ kubectl }: PinnedContext): string {
  return ['kubectl', ...kubectl.shownFlags].map(shellWord).join(' ');
}

export function nmiCommand({ kubectl, namespace }: PinnedContext, ...words: readonly string[]) {
  return ['kubectl', 'nmi', ...words, '-n', namespace, ...kubectl.shownFlags]
    .map(shellWord)
    .join(' ');
}

/** Undefined is every namespace. @throws PluginError */
export async function scopeOf(context: VerbContext): Promise<Scope> {
  return context.allNamespaces ? undefined : namespaceFor(context);
}

/** For kubectl, an unknown namespace is empty. @throws PluginError if it surely does not exist. */
export async function refuseUnknownNamespace(
  { kubectl }: VerbContext,
  namespace: string,
): Promise<void> {
  const read = await kubectl.get('namespaces', '', namespace);
  if (read.ok || read.failure.kind === 'forbidden') return;
  if (read.failure.kind !== 'not-found') valueOf(read, `get namespace ${namespace}`);
  throw failedError(
    `namespace ${namespace} does not exist`,
    'Check -n and the context: kubectl get namespaces',
  );
}
