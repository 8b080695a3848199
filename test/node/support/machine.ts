/**
 * A machine for one node: systemd as process 1 in separate namespaces and a separate cgroup, from a
 * Debian system that stays unchanged below an overlay. Its power can be cut and it can boot again.
 * It ends with the test's process, however that ends; the next run removes what a killed run left.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { inCgroup, removeCgroup } from '../../../lab/fabric/cgroups.ts';
import { isAlive } from '../../../lab/fabric/process-alive.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { findCgroupRoot } from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { removeDeadWork } from '../../support/test-cache.ts';
import { nodeCache } from './cached.ts';
import { openNodeNetwork } from './network.ts';

export interface MachineOptions {
  /** The Debian system. */
  readonly root: string;
  /** Folders of this machine by their read-only paths in the node. */
  readonly binds: Readonly<Record<string, string>>;
  /** Folders below /var/lib that are not on the overlay. */
  readonly states: readonly string[];
}

export interface RunOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
}

export interface Machine extends AsyncDisposable {
  /** Network namespace of the metadata service. */
  readonly azurePath: string;
  boot(): Promise<void>;
  /** Everything ends at once; disks keep their contents. */
  powerCut(): Promise<void>;
  /** The output of a program in the node; rejects with its output if it fails. */
  run(words: readonly string[], options?: RunOptions): Promise<string>;
  /** The folder behind the node's /var/lib/NAME, whether it runs or not. */
  state(name: string): string;
  /** The path of a node's file for this process; before the first boot it can only be written. */
  path(file: string): string;
  /** Creates its folder too. */
  write(file: string, content: string, mode?: number): void;
}

const cgroupPattern = /^nmi-node-(\d+)$/;
const bootScript = join(import.meta.dirname, '../system/boot.sh');
const defaultTimeoutMs = 60_000;
const bootLimitMs = 30_000;
const environment = [
  'PATH=/opt/cluster:/opt/kubernetes:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  'HOME=/root',
];

export async function openMachine(options: MachineOptions): Promise<Machine> {
  await using opening = new AsyncDisposableStack();
  mkdirSync(nodeCache, { recursive: true });
  const tree = findCgroupRoot();
  sweep(tree);
  const cgroup = join(tree, `nmi-node-${process.pid}`);
  const folder = mkdtempSync(join(nodeCache, `.work-${process.pid}-`));
  opening.defer(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  layOut(folder, options);
  const network = opening.use(await openNodeNetwork());
  let running: { readonly outer: ChildProcess; readonly pid: number } | undefined;

  async function powerCut(): Promise<void> {
    if (running === undefined) return;
    const { outer, pid } = running;
    running = undefined;
    const ended = outer.exitCode === null && outer.signalCode === null ? once(outer, 'exit') : [];
    if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    await ended;
    network.removeNode();
    removeCgroup(cgroup);
  }
  opening.defer(powerCut);

  async function boot(): Promise<void> {
    await network.renew();
    mkdirSync(cgroup);
    const spaces = ['--mount', '--pid', '--uts', '--ipc', '--cgroup', '--fork', '--kill-child'];
    const outer = spawn(
      'nsenter',
      [
        ...[`--net=${network.nodePath}`, '--', 'setpriv', '--pdeathsig', 'KILL', '--'],
        ...inCgroup(cgroup, ['unshare', ...spaces, '--', bootScript, options.root, folder]),
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let printed = '';
    for (const stream of [outer.stdout, outer.stderr]) {
      stream.setEncoding('utf8').on('data', (more: string) => (printed += more));
    }
    const pid = await eventually(() => {
      if (outer.exitCode !== null) throw new Error(`the node did not boot: ${printed}`);
      const child = childOf(outer.pid ?? 0);
      if (child === undefined) throw new Error('the node has no process 1');
      return child;
    }, bootLimitMs);
    running = { outer, pid };
    await eventually(() => {
      if (outer.exitCode !== null) throw new Error(`the node ended while it booted: ${printed}`);
      const name = readFileSync(`/proc/${pid}/comm`, 'latin1').trim();
      if (name !== 'systemd') throw new Error(`process 1 is ${name}: ${printed}`);
    }, bootLimitMs);
  }

  const path = (file: string): string =>
    running === undefined ? join(folder, 'upper', file) : `/proc/${running.pid}/root${file}`;

  const owned = opening.move();
  return {
    azurePath: network.azurePath,
    boot,
    powerCut,
    async run(words, { input = '', timeoutMs = defaultTimeoutMs } = {}) {
      if (running === undefined) throw new Error(`the node is off: ${words.join(' ')}`);
      const enter = ['--mount', '--pid', '--net', '--uts', '--ipc', '--cgroup', '--root', '--wd'];
      const target = `--target=${running.pid}`;
      return runProcess('nsenter', [target, ...enter, 'env', '-i', ...environment, ...words], {
        input,
        timeoutMs,
      });
    },
    state: (name) => join(folder, 'state', name),
    path,
    write(file, content, mode = 0o644) {
      const at = path(file);
      mkdirSync(dirname(at), { recursive: true });
      writeFileSync(at, content, { mode });
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Its output; rejects with both streams if it fails, or does not end in time. */
export async function runProcess(
  program: string,
  args: readonly string[],
  { input = '', timeoutMs = defaultTimeoutMs, env }: RunOptions & { env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    signal: AbortSignal.timeout(timeoutMs),
    killSignal: 'SIGKILL',
    ...(env === undefined ? {} : { env }),
  });
  const exited = once(child, 'exit') as Promise<[number | null]>;
  // The exit code reports a program that ends before it has read everything.
  child.stdin.on('error', () => undefined).end(input);
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    exited,
  ]);
  if (code === 0) return stdout;
  throw new Error(`${program} ${args.join(' ')}: ${stderr}${stdout}`);
}

function layOut(folder: string, { binds, states }: MachineOptions): void {
  for (const part of ['upper', 'work', 'root', 'bind', 'state']) mkdirSync(join(folder, part));
  for (const state of states) mkdirSync(join(folder, 'state', state));
  for (const [at, from] of Object.entries(binds)) {
    symlinkSync(from, join(folder, 'bind', at.slice(1).replaceAll('/', '-')));
  }
}

function sweep(tree: string): void {
  for (const name of readdirSync(tree)) {
    const pid = Number(cgroupPattern.exec(name)?.[1]);
    if (!Number.isNaN(pid) && !isAlive(pid)) removeCgroup(join(tree, name));
  }
  removeDeadWork(nodeCache);
}

/** The only child of the process, after the process has become `unshare`. */
function childOf(pid: number): number | undefined {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ');
  return child === undefined || child === '' ? undefined : Number(child);
}

/** A start of kubectl takes 0.1 s of processor time, and a node is waited for most of a minute. */
const pauseMs = 500;

/** As `eventually`, for a check that starts a process each time. */
export function eventuallyByProcess<T>(check: () => Promise<T>, maxMs: number): Promise<T> {
  return eventually(check, maxMs, pauseMs);
}
