/** Classifies failures of kubectl by its texts, the same since Kubernetes 1.20 or before. Pure. */
import { exitCodes, type ProgramRun } from '../base/io.ts';
import { PluginError, type ExitCode } from '../base/plugin-error.ts';

export interface RbacRule {
  readonly verb: string;
  /** With its group, as in `deployments.apps`. */
  readonly resource: string;
  readonly namespace: string;
}

type PlainKind =
  'no-kubectl' | 'no-config' | 'unreachable' | 'unauthorized' | 'no-kind' | 'not-found' | 'other';

export type KubectlFailure =
  | { readonly kind: PlainKind; readonly detail: string }
  | { readonly kind: 'forbidden'; readonly rule: RbacRule; readonly detail: string };

const forbidden =
  /cannot (\w+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]*)")?/;

/** The first match counts. */
const texts: readonly (readonly [PlainKind, RegExp])[] = [
  // Without a configuration, kubectl connects to a default server on this machine.
  [
    'no-config',
    /localhost:8080|no configuration has been provided|current-context is not set|context "[^"]*" does not exist|context was not found|error loading config file|invalid configuration/i,
  ],
  [
    'unauthorized',
    /\(Unauthorized\)|must be logged in to the server|the server has asked for the client to provide credentials/,
  ],
  [
    'no-kind',
    /doesn't have a resource type|no matches for kind|the server could not find the requested resource/,
  ],
  ['not-found', /\(NotFound\)/],
  [
    'unreachable',
    /Unable to connect to the server|was refused - did you specify|i\/o timeout|no such host|\(ServiceUnavailable\)|\(Timeout\)|TLS handshake|x509: |connection refused|context deadline exceeded|getting credentials: exec|network is unreachable/,
  ],
];

export function classifyFailure({
  code,
  stderr,
}: Pick<ProgramRun, 'code' | 'stderr'>): KubectlFailure {
  const detail = lastWords(stderr);
  if (code === undefined) {
    return { kind: 'no-kubectl', detail: 'the program kubectl is not on the PATH' };
  }
  const found = forbidden.exec(stderr);
  if (found !== null) {
    const [, verb = '', name = '', group = '', namespace = ''] = found;
    const resource = group === '' ? name : `${name}.${group}`;
    return { kind: 'forbidden', rule: { verb, resource, namespace }, detail };
  }
  const [kind = 'other'] = texts.find(([, text]) => text.test(stderr)) ?? [];
  return kind === 'no-kind'
    ? { kind, detail: 'the server does not have this kind of object' }
    : { kind, detail };
}

/** The failures of a call for several kinds, by kind: kubectl prints a line for each. */
export function failuresByKind({
  stderr,
}: Pick<ProgramRun, 'stderr'>): ReadonlyMap<string, KubectlFailure> {
  const failures = stderr.split('\n').flatMap((line) => {
    const failure = classifyFailure({ code: 1, stderr: line });
    return failure.kind === 'forbidden' ? [[failure.rule.resource, failure] as const] : [];
  });
  return new Map(failures);
}

/** The one of several kinds that the server does not have; kubectl names the first. */
export function missingKind(
  { stderr }: Pick<ProgramRun, 'stderr'>,
  resources: readonly string[],
): string | undefined {
  const [, name = '', group = ''] =
    /doesn't have a resource type "([^"]+)"(?: in group "([^"]+)")?/.exec(stderr) ?? [];
  return resources.find((each) => each === name || each === `${name}.${group}`);
}

/** The rules as they are written in Roles: one for the resources of a group in a namespace. */
export function renderRules(rules: readonly RbacRule[]): string {
  const groups = Map.groupBy(rules, ({ verb, resource, namespace }) => {
    const [, ...group] = resource.split('.');
    const where = namespace === '' ? 'in a ClusterRole' : `in namespace ${namespace}`;
    return `apiGroups: ["${group.join('.')}"], resources: [], verbs: ["${verb}"] ${where}`;
  });
  const rendered = [...groups].map(([text, same]) => {
    const names = new Set(same.map(({ resource }) => `"${resource.split('.')[0] ?? ''}"`));
    return text.replace('resources: []', `resources: [${[...names].join(', ')}]`);
  });
  return rendered.join('; ');
}

const meanings: Readonly<Record<PlainKind, readonly [ExitCode, string, string]>> = {
  'no-kubectl': [exitCodes.unavailable, '', 'Install kubectl, or set KUBECTL to its path.'],
  'no-config': [
    exitCodes.usage,
    'kubectl has no usable configuration: ',
    'Set KUBECONFIG or --kubeconfig, and choose a context: kubectl config get-contexts',
  ],
  unreachable: [
    exitCodes.unavailable,
    '',
    'Check the network and the context: kubectl cluster-info',
  ],
  unauthorized: [
    exitCodes.noRight,
    '',
    'Log in again; for AKS: az aks get-credentials, or kubelogin.',
  ],
  'no-kind': [
    exitCodes.findings,
    '',
    'Install the custom resource definitions: kubectl apply -f deploy/crds.yaml',
  ],
  'not-found': [exitCodes.findings, '', 'Check the name and the namespace (-n).'],
  other: [exitCodes.findings, '', "The text above is kubectl's own."],
};

export function toPluginError(failure: KubectlFailure, what: string): PluginError {
  const [exitCode, why, nextStep] =
    failure.kind === 'forbidden'
      ? [exitCodes.noRight, '', `Ask for this RBAC rule: ${renderRules([failure.rule])}`]
      : meanings[failure.kind];
  return new PluginError(exitCode, `cannot ${what}: ${why}${failure.detail}`, nextStep);
}

/** The last line, without the prefix of the kind of error; client-go logs its attempts before it. */
function lastWords(stderr: string): string {
  const lines = stderr.split('\n').map((line) => line.trim());
  const said = lines.filter((line) => line !== '' && !/^[EWI]\d{4} /.test(line));
  const last = said.at(-1) ?? lines.findLast((line) => line !== '') ?? 'kubectl gave no reason';
  return last.replace(/^error: /i, '').slice(0, 500);
}
