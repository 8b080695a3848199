/**
 * Network namespaces for the kernel tests: every change to iptables, routing or links happens
 * inside one that the test made, and is removed with it.
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { NativeModule } from '../../../src/redirect/native/addon.ts';
import {
  createHost,
  missingTool,
  outputOf,
  type Host,
} from '../../../src/redirect/host/command.ts';

const PREFIX = 'nmi-test-';
const native = join(import.meta.dirname, '../../../src/redirect/native/addon.ts');
const machine = createHost({ timeoutMs: 20_000 });
let made = 0;

/** Why the kernel tests cannot run here, or `false`. */
export async function whyNoKernelTests(...tools: readonly string[]): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'not root';
  for (const tool of ['ip', ...tools]) {
    const version = await machine.run(tool, ['--version']);
    if (version === missingTool) return `no ${tool} on the PATH`;
  }
  const probe = await machine.run('ip', ['netns', 'add', `${PREFIX}${process.pid}-probe`]);
  if (probe.kind !== 'exited' || probe.exitCode !== 0) return 'no network namespaces';
  await machine.run('ip', ['netns', 'del', `${PREFIX}${process.pid}-probe`]);
  return false;
}

/** Why this kernel has no tables of legacy iptables, which newer ones may lack, or `false`. */
export async function whyNoLegacyTables(): Promise<string | false> {
  const name = `${PREFIX}${process.pid}-legacy`;
  const inside = ['netns', 'exec', name, 'iptables-legacy', '-t', 'nat', '-S'];
  await machine.run('ip', ['netns', 'add', name]);
  const probe = await machine.run('ip', inside);
  await machine.run('ip', ['netns', 'del', name]);
  const isRefused = probe.kind === 'exited' && /Table does not exist/.test(probe.stderr);
  return isRefused ? 'this kernel has no tables of legacy iptables' : false;
}

/** Why this kernel has no MPTCP, or `false`. */
export function whyNoMptcp(): string | false {
  return existsSync('/proc/sys/net/mptcp/enabled') ? false : 'this kernel has no MPTCP';
}

/** Namespaces left by runs that no longer have a process. */
export async function sweepDeadNamespaces(): Promise<void> {
  const listed = outputOf('list', 'ip', await machine.run('ip', ['netns', 'list']));
  for (const line of listed.split('\n')) {
    const name = line.split(' ')[0] ?? '';
    const pid = Number(/^nmi-test-(\d+)-/.exec(name)?.[1]);
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    await machine.run('ip', ['netns', 'del', name]);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** A host whose tools run inside a namespace. */
function hostIn(name: string, calls: Omit<Host, 'run' | 'read'>): Host {
  const enter = ['netns', 'exec', name];
  return {
    run: async (tool, args, input) => {
      const result = await machine.run('ip', [...enter, tool, ...args], input);
      const missing = result.kind === 'exited' && result.stderr.startsWith(`exec of "${tool}"`);
      return missing ? missingTool : result;
    },
    read: async (path) => {
      const result = await machine.run('ip', [...enter, 'cat', path]);
      return result.kind === 'exited' && result.exitCode === 0 ? result.stdout : undefined;
    },
    ...calls,
  };
}

export interface Namespace extends AsyncDisposable {
  readonly name: string;
  readonly host: Host;
  /** Runs a tool that must succeed, words separated by single spaces; returns its output. */
  run(commandLine: string, input?: string): Promise<string>;
  /** Starts a script in the namespace, and in a cgroup; it ends with this process or the namespace. */
  start(script: string, cgroup?: string): Script;
}

/** A Node program in a namespace that is controlled by lines of text. */
export interface Script {
  /** The next line it prints. */
  line(): Promise<string>;
  say(line: string): void;
  stop(): Promise<void>;
}

export async function openNamespace(): Promise<Namespace> {
  made += 1;
  const name = `${PREFIX}${process.pid}-${made}`;
  outputOf('add', 'ip', await machine.run('ip', ['netns', 'add', name]));
  const scripts: Script[] = [];
  function start(text: string, cgroup?: string): Script {
    const script = startScript(name, text, cgroup);
    scripts.push(script);
    return script;
  }
  let caller: Script | undefined;
  const call = async (...words: readonly [keyof NativeModule, ...unknown[]]): Promise<string> => {
    caller ??= start(NATIVE_CALLER);
    caller.say(JSON.stringify(words));
    const { result = '', error: stderr } = JSON.parse(await caller.line()) as NativeAnswer;
    const ended = { kind: 'exited', stdout: result } as const;
    return outputOf(
      'call',
      'native module',
      stderr === undefined
        ? { ...ended, exitCode: 0, stderr: '' }
        : { ...ended, exitCode: 1, stderr },
    );
  };
  const host = hostIn(name, {
    cutFlows: async (cut) => Number(await call('cutFlows', cut)),
    ruleGeneration: async () => Number(await call('ruleGeneration')),
    isLocal: async (ip) => (await call('isLocal', ip)) === 'true',
  });
  const namespace: Namespace = {
    name,
    host,
    run: async (commandLine, input) => {
      const [tool = '', ...args] = commandLine.split(' ');
      return outputOf(commandLine, tool, await host.run(tool, args, input));
    },
    start,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(scripts.map((script) => script.stop()));
      await machine.run('ip', ['netns', 'del', name]);
    },
  };
  await namespace.run('ip link set lo up');
  return namespace;
}

/**
 * Calls the native module in its namespace, since this process does not change its own: one answer for each
 * line. It serves all calls, since a start of Node with the native module takes 0.2 s of processor time.
 */
const NATIVE_CALLER = `
  import('${native}').then(({ nativeModule }) => {
    require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
      const [name, ...args] = JSON.parse(line);
      let answer;
      try {
        answer = { result: String(nativeModule()[name](...args.map((arg) => arg ?? undefined))) };
      } catch (error) {
        answer = { error: error.message };
      }
      console.log(JSON.stringify(answer));
    });
  });
`;

interface NativeAnswer {
  readonly result?: string;
  readonly error?: string;
}

const END_WITH_PARENT = `process.stdin.on('end', () => process.exit());`;

/** Enters the cgroup first, so that no socket is made outside it. */
const IN_CGROUP = 'echo $$ > "$0/cgroup.procs" && exec "$@"';

function startScript(namespace: string, text: string, cgroup: string | undefined): Script {
  const command = [
    ...(cgroup === undefined ? [] : ['sh', '-c', IN_CGROUP, cgroup]),
    // Unlike `ip netns exec` it leaves the mounts alone, including cgroups.
    ...['nsenter', `--net=/run/netns/${namespace}`, '--'],
    ...[process.execPath, '-e', `${END_WITH_PARENT}${text}`],
  ];
  const [program = '', ...args] = command;
  const child: ChildProcess = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const { stdin, stdout } = child;
  assert.ok(stdin !== null && stdout !== null);
  stdin.on('error', () => undefined);
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  const exited = once(child, 'exit');
  return {
    line: async () => {
      const next = await lines.next();
      assert.ok(next.done !== true, 'the script ended without another line');
      return next.value;
    },
    say: (line) => {
      stdin.write(`${line}\n`);
    },
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await exited;
    },
  };
}
