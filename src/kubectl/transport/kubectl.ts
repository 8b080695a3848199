/**
 * Reaches the API server through the user's own kubectl: contexts, login plugins, proxies and
 * certificates work as configured by the user, and the plugin never sees a credential.
 */
import { asRecord, parseRecord, stringAt } from '../../base/json-value.ts';
import { itemsOf, recordsAt, type RawObject } from '../base/object.ts';
import { exitCodes, type Io, type ProgramRun, type RunOptions } from '../base/io.ts';
import { PluginError } from '../base/plugin-error.ts';
import { classifyFailure, toPluginError, type KubectlFailure } from './kubectl-failure.ts';

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

/** Undefined is every namespace. */
export type Scope = string | undefined;

export interface ListOptions {
  readonly labels?: string;
  readonly fields?: string;
}

export type Read<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly failure: KubectlFailure };

/** kubectl itself waits minutes for a server that does not answer. */
const defaultTimeout = '15s';

/** One context of the user's configuration, whatever becomes the current one meanwhile. */
export interface PinnedContext {
  readonly kubectl: Kubectl;
  /** Empty without a configuration file, as in a pod. */
  readonly name: string;
  readonly namespace: string;
}

export class Kubectl {
  readonly #io: Io;
  readonly #given: PassedFlags;
  readonly #flags: readonly string[];
  readonly #program: string;

  constructor(io: Io, flags: PassedFlags = {}) {
    this.#io = io;
    this.#given = flags;
    this.#program = io.environment['KUBECTL'] ?? 'kubectl';
    const all: PassedFlags = { 'request-timeout': defaultTimeout, ...flags };
    this.#flags = passedFlags.flatMap((name) => {
      const value = all[name];
      return value === undefined ? [] : [`--${name}=${value}`];
    });
  }

  run(args: readonly string[], options: RunOptions = {}): Promise<ProgramRun> {
    // Connection flags must precede `--`.
    const cut = args.indexOf('--');
    const [before, after] = cut < 0 ? [args, []] : [args.slice(0, cut), args.slice(cut)];
    // kubectl uses the last of two --as flags, so ours is dropped if the caller passes another.
    const isOther = before.some((word) => word.startsWith('--as='));
    const flags = this.#flags.filter((word) => !isOther || !word.startsWith('--as='));
    return this.#io.run(this.#program, [...before, ...flags, ...after], options);
  }

  /** Returns its output. @throws PluginError */
  async expect(what: string, args: readonly string[], input?: string): Promise<string> {
    const run = await this.run(args, input === undefined ? {} : { input });
    if (run.code === 0) return run.stdout;
    throw toPluginError(classifyFailure(run), what);
  }

  async list(
    resource: string,
    scope: Scope,
    options: ListOptions = {},
  ): Promise<Read<readonly RawObject[]>> {
    const args = [
      'get',
      resource,
      ...(scope === undefined ? ['--all-namespaces'] : ['--namespace', scope]),
      '--output=json',
      ...(options.labels === undefined ? [] : [`--selector=${options.labels}`]),
      ...(options.fields === undefined ? [] : [`--field-selector=${options.fields}`]),
    ];
    return this.#read(args, itemsOf);
  }

  /** `namespace` is empty for a cluster-scoped object. */
  async get(resource: string, namespace: string, name: string): Promise<Read<RawObject>> {
    // After `--`, kubectl does not read a name as a flag.
    const where = namespace === '' ? [] : ['--namespace', namespace];
    return this.#read(['get', resource, ...where, '--output=json', '--', name], (object) => object);
  }

  /** The namespace of the context, or `default` if it has none. */
  async currentNamespace(): Promise<string> {
    const run = await this.run(['config', 'view', '--minify', '--output=jsonpath={..namespace}']);
    if (run.code === undefined) throw toPluginError(classifyFailure(run), 'read the configuration');
    const text = run.code === 0 ? run.stdout.trim() : '';
    return text === '' ? 'default' : text;
  }

  /** What a command line needs to reach the same server as the same user. */
  get shownFlags(): readonly string[] {
    return this.#flags.filter((flag) => !flag.startsWith('--request-timeout='));
  }

  /** Somebody may switch the current context between two calls, so a verb that writes names it. */
  async pin(): Promise<PinnedContext> {
    const run = await this.run(['config', 'view', '--minify', '--output=json']);
    if (run.code === undefined) throw toPluginError(classifyFailure(run), 'read the configuration');
    const parsed = run.code === 0 ? parseRecord(run.stdout) : undefined;
    const name = stringAt(parsed, 'current-context');
    const [context] = recordsAt(parsed, 'contexts');
    const namespace = stringAt(asRecord(context?.['context']), 'namespace') || 'default';
    if (name === '') return { kubectl: this, name, namespace };
    return { kubectl: new Kubectl(this.#io, { ...this.#given, context: name }), name, namespace };
  }

  async #read<T>(args: readonly string[], read: (parsed: RawObject) => T): Promise<Read<T>> {
    const run = await this.run(args);
    if (run.code !== 0) return { ok: false, failure: classifyFailure(run) };
    const parsed = parseRecord(run.stdout);
    if (parsed === undefined) {
      throw new PluginError(
        exitCodes.unavailable,
        `kubectl ${args.slice(0, 2).join(' ')} printed no JSON`,
        "Check that the program kubectl on the PATH is Kubernetes' own.",
      );
    }
    return { ok: true, value: read(parsed) };
  }
}

/** @throws PluginError */
export function valueOf<T>(read: Read<T>, what: string): T {
  if (read.ok) return read.value;
  throw toPluginError(read.failure, what);
}
