/**
 * Classifies a failure of kubectl by the text on its standard error. kubectl has no other interface
 * for this; the texts have been the same since Kubernetes 1.20 or before. Pure.
 */
import { exitCodes, type ProgramRun } from '../base/io.ts';
import { PluginError } from '../base/plugin-error.ts';

/** The RBAC rule that would grant the permission. */
export interface RbacRule {
  readonly verb: string;
  /** With its group, as in `deployments.apps`. */
  readonly resource: string;
  /** Empty for the whole cluster. */
  readonly namespace: string;
}

export type KubectlFailure =
  | {
      readonly kind: 'no-kubectl' | 'old-kubectl' | 'no-config' | 'unreachable' | 'unauthorized';
      readonly detail: string;
    }
  | { readonly kind: 'forbidden'; readonly rule: RbacRule; readonly detail: string }
  /** The server has no such kind: its definition is not installed. */
  | { readonly kind: 'no-kind' | 'not-found' | 'other'; readonly detail: string };

const forbidden =
  /cannot (\w+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]*)")?/;

/** @param run a failed run of kubectl. */
export function classifyFailure({
  code,
  stderr,
}: Pick<ProgramRun, 'code' | 'stderr'>): KubectlFailure {
  const detail = lastWords(stderr);
  if (code === undefined) return { kind: 'no-kubectl', detail: 'kubectl: not found' };
  const found = forbidden.exec(stderr);
  if (found !== null) {
    const [, verb = '', name = '', group = '', namespace = ''] = found;
    const resource = group === '' ? name : `${name}.${group}`;
    return { kind: 'forbidden', rule: { verb, resource, namespace }, detail };
  }
  // Without a configuration, kubectl connects to a default server on this machine.
  if (/localhost:8080|no configuration has been provided|current-context is not set/.test(stderr)) {
    return { kind: 'no-config', detail };
  }
  if (
    /context "[^"]*" does not exist|context was not found|error loading config file|invalid configuration/i.test(
      stderr,
    )
  ) {
    return { kind: 'no-config', detail };
  }
  if (
    /\(Unauthorized\)|must be logged in to the server|the server has asked for the client to provide credentials/.test(
      stderr,
    )
  ) {
    return { kind: 'unauthorized', detail };
  }
  if (
    /doesn't have a resource type|no matches for kind|the server could not find the requested resource/.test(
      stderr,
    )
  ) {
    return { kind: 'no-kind', detail: 'the server does not have this kind of object' };
  }
  if (/\(NotFound\)/.test(stderr)) return { kind: 'not-found', detail };
  if (/unknown (?:shorthand )?flag|unknown command/.test(stderr))
    return { kind: 'old-kubectl', detail };
  if (
    /Unable to connect to the server|was refused - did you specify|i\/o timeout|no such host|\(ServiceUnavailable\)|\(Timeout\)|TLS handshake|x509: |connection refused|context deadline exceeded|getting credentials: exec|network is unreachable/.test(
      stderr,
    )
  ) {
    return { kind: 'unreachable', detail };
  }
  return { kind: 'other', detail };
}

/** The rule as it is written in a Role. */
export function renderRule({ verb, resource, namespace }: RbacRule): string {
  const [name = '', ...group] = resource.split('.');
  const where = namespace === '' ? 'in a ClusterRole' : `in namespace ${namespace}`;
  return `apiGroups: ["${group.join('.')}"], resources: ["${name}"], verbs: ["${verb}"] ${where}`;
}

/** @param what the attempt, as "list pods in namespace shop". */
export function toPluginError(failure: KubectlFailure, what: string): PluginError {
  const problem = `cannot ${what}: ${failure.detail}`;
  switch (failure.kind) {
    case 'no-kubectl':
      return new PluginError(
        exitCodes.unavailable,
        `cannot ${what}: the program kubectl is not on the PATH`,
        'Install kubectl, or set KUBECTL to its path.',
      );
    case 'old-kubectl':
      return new PluginError(
        exitCodes.unavailable,
        `cannot ${what}: this kubectl is too old: ${failure.detail}`,
        'Install a kubectl of a supported version (1.28 or later).',
      );
    case 'no-config':
      return new PluginError(
        exitCodes.usage,
        `cannot ${what}: kubectl has no usable configuration: ${failure.detail}`,
        'Set KUBECONFIG or --kubeconfig, and choose a context: kubectl config get-contexts',
      );
    case 'unreachable':
      return new PluginError(
        exitCodes.unavailable,
        problem,
        'Check the network and the context: kubectl cluster-info',
      );
    case 'unauthorized':
      return new PluginError(
        exitCodes.noRight,
        problem,
        'Log in again; for AKS: az aks get-credentials, or kubelogin.',
      );
    case 'forbidden':
      return new PluginError(
        exitCodes.noRight,
        problem,
        `Ask for this RBAC rule: ${renderRule(failure.rule)}`,
      );
    case 'no-kind':
      return new PluginError(
        exitCodes.findings,
        problem,
        'Install the custom resource definitions: kubectl apply -f deploy/crds.yaml',
      );
    case 'not-found':
      return new PluginError(exitCodes.findings, problem, 'Check the name and the namespace (-n).');
    case 'other':
      return new PluginError(exitCodes.findings, problem, 'The text above is kubectl’s own.');
  }
}

/** The last line, without the prefix of the kind of error; client-go logs its attempts before it. */
function lastWords(stderr: string): string {
  const lines = stderr.split('\n').map((line) => line.trim());
  const said = lines.filter((line) => line !== '' && !/^[EWI]\d{4} /.test(line));
  const last = said.at(-1) ?? lines.findLast((line) => line !== '') ?? 'kubectl gave no reason';
  return last.replace(/^error: /i, '').slice(0, 500);
}
