/** Reaches the API server by the user's own kubectl, so the plugin never sees a credential. */
import { delimiter } from 'node:path';
import { asRecord, parseRecord, stringAt, type JsonRecord } from '../../base/json-value.ts';
import { itemsOf, recordsAt, type RawObject } from '../base/object.ts';
import { exitCodes, type Io, type ProgramRun, type RunOptions } from '../base/io.ts';
import { PluginError } from '../base/plugin-error.ts';
import {
  classifyFailure,
  failuresByKind,
  missingKind,
  toPluginError,
  type KubectlFailure,
} from './kubectl-failure.ts';

/** Flags that are kubectl's own and are passed on as they are. */
export const passedFlags = [
  'context',
  'cluster',
  'user',
  'kubeconfig',
  'as',
  'request-timeout',
] as const;

export type PassedFlags = Readonly<Partial<Record<(typeof passedFlags)[number], string>>>;

export function passedOf(flags: JsonRecord): PassedFlags {
  const given = passedFlags.map((name) => [name, stringAt(flags, name)] as const);
  return Object.fromEntries(given.filter(([, value]) => value !== ''));
}

/** Undefined is every namespace. */
export type Scope = string | undefined;

/** Parameters of the API: labelSelector, fieldSelector. */
type Selectors = Readonly<Record<string, string>>;

export const ofContext = Symbol('the namespace of the kubectl context');

export type KindLists = ReadonlyMap<string, Read<readonly RawObject[]>>;

export type Read<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly failure: KubectlFailure };

const namespaceFile = '/var/run/secrets/kubernetes.io/serviceaccount/namespace';

/** kubectl itself waits minutes for a server that does not answer. */
const defaultTimeout = '15s';

export class Kubectl {
  readonly #io: Io;
  readonly #given: PassedFlags;
  readonly #flags: readonly string[];
  readonly #program: string;
  #ofPod: Promise<boolean> | undefined;

  constructor(io: Io, flags: PassedFlags = {}) {
    this.#io = io;
    this.#given = flags;
    this.#program = io.environment['KUBECTL'] ?? 'kubectl';
    this.#flags = passedFlags.flatMap((name) => {
      const value = flags[name];
      return value === undefined ? [] : [`--${name}=${value}`];
    });
  }

  async run(args: readonly string[], options: RunOptions = {}): Promise<ProgramRun> {
    // Connection flags must precede `--`.
    const cut = args.indexOf('--');
    const [before, after] = cut < 0 ? [args, []] : [args.slice(0, cut), args.slice(cut)];
    // kubectl uses the last of two --as flags, so ours is dropped if the caller passes another.
    const isOther = before.some((word) => word.startsWith('--as='));
    const flags = this.#flags.filter((word) => !isOther || !word.startsWith('--as='));
    const hasTimeout = this.#given['request-timeout'] !== undefined || (await this.#usesPod());
    if (!hasTimeout) flags.push(`--request-timeout=${defaultTimeout}`);
    return this.#io.run(this.#program, [...before, ...flags, ...after], options);
  }

  async expect(what: string, args: readonly string[], input?: string): Promise<string> {
    const run = await this.run(args, input === undefined ? {} : { input });
    if (run.code === 0) return run.stdout;
    throw toPluginError(classifyFailure(run), what);
  }

  /** As the server sends it: `kubectl get` prints a list twenty times slower, 5,000 pods in 8 s. */
  async list(
    resource: string,
    scope: Scope,
    selectors: Selectors = {},
  ): Promise<Read<readonly RawObject[]>> {
    return this.#read(['get', `--raw=${pathOf(resource, scope, selectors)}`], itemsOf);
  }

  /** By one process, for namespaces of usual size: by kind, since a user may lack some rights. */
  async listKinds(
    resources: readonly string[],
    scope: Scope | typeof ofContext,
  ): Promise<KindLists> {
    const where =
      scope === undefined
        ? ['--all-namespaces']
        : scope === ofContext
          ? []
          : ['--namespace', scope];
    const run = await this.run(['get', resources.join(','), ...where, '--output=json']);
    const missing = missingKind(run, resources);
    if (missing !== undefined) {
      // kubectl reads nothing if the server lacks one of the kinds.
      const failure = classifyFailure(run);
      const rest = resources.filter((each) => each !== missing);
      const others = rest.length === 0 ? new Map() : await this.listKinds(rest, scope);
      return new Map([...others, [missing, { ok: false, failure }]]);
    }
    const failures = failuresByKind(run);
    const items = run.stdout === '' ? [] : itemsOf(this.#parse(run.stdout, 'get'));
    const byKind = Map.groupBy(items, resourceOf);
    const isPartial = run.code === 0 || failures.size > 0;
    return new Map(
      resources.map((resource): [string, Read<readonly RawObject[]>] => {
        const failure = failures.get(resource) ?? (isPartial ? undefined : classifyFailure(run));
        if (failure !== undefined) return [resource, { ok: false, failure }];
        return [resource, { ok: true, value: byKind.get(resource) ?? [] }];
      }),
    );
  }

  /** `namespace` is empty for a cluster-scoped object. */
  async get(resource: string, namespace: string, name: string): Promise<Read<RawObject>> {
    // After `--`, kubectl does not read a name as a flag.
    const where = namespace === '' ? [] : ['--namespace', namespace];
    return this.#read(['get', resource, ...where, '--output=json', '--', name], (object) => object);
  }

  async currentNamespace(): Promise<string> {
    return (await this.pin()).namespace;
  }

  get shownFlags(): readonly string[] {
    return this.#flags.filter((flag) => !flag.startsWith('--request-timeout='));
  }

  /** Another context may become the current one. The name is empty without a configuration file. */
  async pin() {
    const run = await this.run(['config', 'view', '--minify', '--output=json']);
    if (run.code === undefined) throw toPluginError(classifyFailure(run), 'read the configuration');
    const parsed = run.code === 0 ? parseRecord(run.stdout) : undefined;
    const name = stringAt(parsed, 'current-context');
    const [context] = recordsAt(parsed, 'contexts');
    const own = stringAt(asRecord(context?.['context']), 'namespace');
    const namespace = own || (await this.#namespaceOfPod()) || 'default';
    const kubectl: Kubectl =
      name === '' ? this : new Kubectl(this.#io, { ...this.#given, context: name });
    return { kubectl, name, namespace };
  }

  /**
   * Whether kubectl takes the account of the pod that it runs in. It does so without a configuration and
   * without any flag about the connection, a timeout included.
   */
  #usesPod(): Promise<boolean> {
    const { environment, readText } = this.#io;
    const isPod = (environment['KUBERNETES_SERVICE_HOST'] ?? '') !== '';
    if (!isPod || this.#flags.length > 0) return Promise.resolve(false);
    const paths = environment['KUBECONFIG'] ?? `${environment['HOME'] ?? ''}/.kube/config`;
    this.#ofPod ??= Promise.all(paths.split(delimiter).map(readText)).then((texts) =>
      texts.every((each = '') => each.trim() === ''),
    );
    return this.#ofPod;
  }

  async #namespaceOfPod(): Promise<string> {
    if (!(await this.#usesPod())) return '';
    const { environment, readText } = this.#io;
    return environment['POD_NAMESPACE'] ?? (await readText(namespaceFile))?.trim() ?? '';
  }

  async #read<T>(args: readonly string[], read: (parsed: RawObject) => T): Promise<Read<T>> {
    const run = await this.run(args);
    if (run.code !== 0) return { ok: false, failure: classifyFailure(run) };
    return { ok: true, value: read(this.#parse(run.stdout, args.slice(0, 2).join(' '))) };
  }

  #parse(stdout: string, what: string): RawObject {
    const parsed = parseRecord(stdout);
    if (parsed !== undefined) return parsed;
    throw new PluginError(
      exitCodes.unavailable,
      `kubectl ${what} printed no JSON`,
      "Check that the program kubectl on the PATH is Kubernetes' own.",
    );
  }
}

/** Of the API server; every kind that is listed has the version v1. */
function pathOf(resource: string, scope: Scope, selectors: Selectors): string {
  const [name = '', ...group] = resource.split('.');
  const root = group.length === 0 ? '/api/v1' : `/apis/${group.join('.')}/v1`;
  const query = new URLSearchParams(selectors).toString();
  const where = scope === undefined ? '' : `/namespaces/${encodeURIComponent(scope)}`;
  return `${root}${where}/${name}${query === '' ? '' : `?${query}`}`;
}

/** The name of a kind for kubectl, as `networkpolicies.networking.k8s.io`. */
function resourceOf(object: RawObject): string {
  const plural = `${stringAt(object, 'kind').toLowerCase().replace(/y$/, 'ie')}s`;
  const [group = ''] = stringAt(object, 'apiVersion').split('/').slice(0, -1);
  return group === '' ? plural : `${plural}.${group}`;
}

export function valueOf<T>(read: Read<T>, what: string): T {
  if (read.ok) return read.value;
  throw toPluginError(read.failure, what);
}
