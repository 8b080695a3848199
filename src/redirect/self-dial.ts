/**
 * Dials the metadata address as a pod does, to see who answers. It takes a process that is no part
 * of the agent, in a place that is made for the moment and taken away again:
 *
 * 1. A cgroup below that of all pods, where programs redirect what their cgroup dials. Needs the
 *    cgroup2 tree to be writable, and this process to see it from its root.
 * 2. A network namespace with a link to the node, where packets are redirected on their way. Needs
 *    CAP_SYS_ADMIN, for which alone nobody should be given it: without it the test is impossible,
 *    and says so.
 */
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { cgroupIdOf } from './cgroup/cgroup-tree.ts';
import { createHost, outputOf, type Host } from './host/command.ts';
import { RedirectError, type RedirectTarget } from './redirect.ts';

export type DialOutcome =
  | {
      readonly kind: 'answered';
      readonly status: number;
      /** Where it was dialled from; undefined where no programs look at it. */
      readonly cgroupId: bigint | undefined;
    }
  /** `problem`: why there was no answer, as an error code. */
  | { readonly kind: 'unanswered'; readonly problem: string }
  /** There is no place to dial from. */
  | { readonly kind: 'impossible'; readonly why: string };

/** GETs a path of the metadata address. Never rejects. */
export type Dial = (path: string) => Promise<DialOutcome>;

export interface SelfDialOptions {
  readonly target: RedirectTarget;
  /** This program, to be followed by `self-dial` and what `dialOnce` takes. */
  readonly self: readonly [string, ...string[]];
  /** The folder of all pods where their cgroups are redirected; undefined where packets are. */
  readonly podsRoot: (() => string | undefined) | undefined;
  readonly host?: Host;
}

const STEP = 'self-test';
const timeoutMs = 10_000;
const answerTimeoutMs = 3_000;

export function createSelfDial(options: SelfDialOptions): Dial {
  const host = options.host ?? createHost({ timeoutMs });
  const { podsRoot } = options;
  return async (path) => {
    try {
      return podsRoot === undefined
        ? await dialFromNamespace(host, options, path)
        : await dialFromCgroup(host, options, podsRoot(), path);
    } catch (error) {
      return { kind: 'impossible', why: reasonOf(error) };
    }
  };
}

async function dialFromCgroup(
  host: Host,
  options: SelfDialOptions,
  podsRoot: string | undefined,
  path: string,
): Promise<DialOutcome> {
  if (podsRoot === undefined) return { kind: 'impossible', why: 'no pods in the cgroup2 tree' };
  const folder = join(podsRoot, `nmi-self-test-${options.target.listenPort}`);
  makeFolder(folder);
  try {
    const [program, ...leading] = options.self;
    const { target } = options;
    const words = [target.metadataIp, String(target.metadataPort), path, folder];
    const printed = await host.run(program, [...leading, 'self-dial', ...words]);
    return readDial(outputOf(STEP, 'self-dial', printed), cgroupIdOf(folder));
  } finally {
    removeFolder(folder);
  }
}

/** Not `recursive`: where the kernel says ENOENT to it (below /proc), Node tries that for ever. */
function makeFolder(folder: string): void {
  try {
    mkdirSync(folder);
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error;
  }
}

/** What is left is used again by the next test. */
function removeFolder(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // A process that has ended may be in it for a moment more.
  }
}

/** Two addresses of the block that the agent's own is in, of no use to anybody else. */
const nodeEnd = '169.254.25.81';
const podEnd = '169.254.25.82';

async function dialFromNamespace(
  host: Host,
  { target, self }: SelfDialOptions,
  path: string,
): Promise<DialOutcome> {
  const namespace = `nmi-self-test-${target.listenPort}`;
  const link = `nmist${target.listenPort}`;
  const batch = async (where: readonly string[], lines: readonly string[]): Promise<void> => {
    const input = `${lines.join('\n')}\n`;
    outputOf(STEP, 'ip', await host.run('ip', [...where, '-batch', '-'], { input }));
  };
  const clear = async (): Promise<void> => {
    // The kernel would come round to a dead namespace's links later.
    await host.run('ip', ['link', 'del', link]);
    await host.run('ip', ['netns', 'del', namespace]);
  };
  await clear();
  outputOf(STEP, 'ip netns', await host.run('ip', ['netns', 'add', namespace]));
  try {
    await batch(
      [],
      [
        `link add ${link} type veth peer name eth0 netns ${namespace}`,
        `addr add ${nodeEnd}/30 dev ${link} scope link`,
        `link set ${link} up`,
      ],
    );
    await batch(
      ['-n', namespace],
      [`addr add ${podEnd}/30 dev eth0`, 'link set eth0 up', `route add default via ${nodeEnd}`],
    );
    const words = ['self-dial', target.metadataIp, String(target.metadataPort), path];
    const enter = ['netns', 'exec', namespace];
    const printed = await host.run('ip', [...enter, ...self, ...words]);
    return readDial(outputOf(STEP, 'self-dial', printed), undefined);
  } finally {
    await clear();
  }
}

function readDial(printed: string, cgroupId: bigint | undefined): DialOutcome {
  const [kind, value = ''] = printed.trim().split(' ');
  switch (kind) {
    case 'answered':
      return { kind, status: Number(value), cgroupId };
    case 'unanswered':
      return { kind, problem: value };
    default:
      return { kind: 'impossible', why: `the cgroup cannot be entered: ${value}` };
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof RedirectError) {
    return error.code === 'NOT_PERMITTED'
      ? `needs CAP_SYS_ADMIN (${error.message})`
      : error.message;
  }
  const code = errorCode(error);
  const isRefused = code === 'EROFS' || code === 'EACCES' || code === 'EPERM';
  return isRefused ? `needs a cgroup2 tree that it may write to (${code})` : code;
}

/**
 * The other end of it, in a process of its own: enters a cgroup if one is named, asks once, and
 * says in two words what came.
 */
export function dialOnce(words: readonly string[]): Promise<string> {
  const [host = '', port = '', path = '', cgroup] = words;
  if (cgroup !== undefined) {
    try {
      writeFileSync(join(cgroup, 'cgroup.procs'), String(process.pid));
    } catch (error) {
      return Promise.resolve(`elsewhere ${errorCode(error)}`);
    }
  }
  const { promise, resolve } = Promise.withResolvers<string>();
  const signal = AbortSignal.timeout(answerTimeoutMs);
  const sent = request({ host, port: Number(port), path, agent: false, signal }, (response) => {
    response.resume();
    resolve(`answered ${response.statusCode ?? 0}`);
  });
  sent.on('error', (error) => {
    resolve(`unanswered ${signal.aborted ? 'TIMEOUT' : errorCode(error)}`);
  });
  sent.end();
  return promise;
}

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : 'unknown';
}
