/**
 * The lab's client in a pod: one interface, two implementations. In a fabric it is a process in the
 * pod's namespace; without root it is a separate loopback address in this process.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import type { Fabric } from '../fabric/fabric.ts';
import { inCgroup } from '../fabric/cgroups.ts';
import { LabError } from '../fabric/lab-error.ts';
import type {
  PodAnswer,
  PodAttack,
  PodAttackReport,
  PodCommand,
  PodLoad,
  PodLoadReport,
  PodReply,
  PodRequest,
} from './pod-protocol.ts';
import { openPodSession } from './pod-session.ts';
import { compileCache, labCommand, type Command } from '../fabric/lab-command.ts';

export interface PodClient extends AsyncDisposable {
  readonly name: string;
  /**
   * Resolves with the response or the failure; network errors never reject.
   * @throws LabError `POD_GONE` when the pod's process ended.
   */
  request(request: PodRequest): Promise<PodAnswer>;
  /** @throws LabError `POD_GONE`. */
  load(load: PodLoad): Promise<PodLoadReport>;
  /** @throws LabError `POD_GONE`. */
  attack(attack: PodAttack): Promise<PodAttackReport>;
  /** Closes a kept-alive connection; no error if the name has no connection. */
  closeConnection(name: string): Promise<void>;
}

export interface LoopbackPodOptions {
  readonly name: string;
  /** Source address of its connections, in 127.0.0.0/8, one per pod. */
  readonly sourceIp: string;
  /** The address that replaces the metadata address. */
  readonly host: string;
  readonly port: number;
}

/** A pod without a namespace, in this process. */
export function openLoopbackPod(options: LoopbackPodOptions): PodClient {
  const session = openPodSession(options);
  return {
    name: options.name,
    request: (request) => session.request(request),
    load: (load) => session.load(load),
    attack: (attack) => session.attack(attack),
    closeConnection: (name) => {
      session.closeConnection(name);
      return Promise.resolve();
    },
    [Symbol.asyncDispose]: () => {
      session[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}

export interface FabricPodOptions {
  readonly fabric: Fabric;
  /** A pod of the fabric, or `node` for a pod on the host network. */
  readonly space: string;
  /** Its folder in the cgroup2 tree; default: its parent's. */
  readonly cgroup?: string;
  /** Default: {@link labCommand} with the verb `pod`. */
  readonly command?: Command;
}

const startLimitMs = 20_000;
const stopLimitMs = 2_000;

/**
 * Starts the pod's process and waits until it accepts commands.
 * @throws LabError `POD_GONE` when it exits, or is not ready within 20s.
 */
export async function openFabricPod(options: FabricPodOptions): Promise<PodClient> {
  const own = options.command ?? [...labCommand, 'pod'];
  const [program, ...args] = options.cgroup === undefined ? own : inCgroup(options.cgroup, own);
  if (program === undefined) throw new LabError('TOOL_MISSING', 'no program for the pod');
  const child = options.fabric.exec(options.space, program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
  });
  const link = openLink(child, options.space);
  const late = setTimeout(() => child.kill('SIGKILL'), startLimitMs);
  try {
    await link.ready;
  } finally {
    clearTimeout(late);
  }
  return {
    name: options.space,
    request: async (request) => {
      const reply = await link.ask((id) => ({ id, command: 'request', request }));
      if (reply.kind === 'answer') return reply.answer;
      throw new LabError('POD_GONE', `${options.space} answered with ${reply.kind}`);
    },
    load: async (load) => {
      const reply = await link.ask((id) => ({ id, command: 'load', load }));
      if (reply.kind === 'report') return reply.report;
      throw new LabError('POD_GONE', `${options.space} answered with ${reply.kind}`);
    },
    attack: async (attack) => {
      const reply = await link.ask((id) => ({ id, command: 'attack', attack }));
      if (reply.kind === 'attacked') return reply.report;
      throw new LabError('POD_GONE', `${options.space} answered with ${reply.kind}`);
    },
    closeConnection: async (name) => {
      await link.ask((id) => ({ id, command: 'close', connection: name }));
    },
    [Symbol.asyncDispose]: () => link.close(),
  };
}

interface Link {
  readonly ready: Promise<void>;
  ask(command: (id: number) => PodCommand): Promise<PodReply>;
  close(): Promise<void>;
}

type Waiter = PromiseWithResolvers<PodReply>;

/** Matches replies to commands by their id; when the process exits, all waiters are rejected. */
function openLink(child: ChildProcess, name: string): Link {
  const { stdin, stdout, stderr } = child;
  if (stdin === null || stdout === null || stderr === null) {
    throw new LabError('POD_GONE', `${name}: its streams are not piped`);
  }
  const ready = Promise.withResolvers<void>();
  const waiters = new Map<number, Waiter>();
  let lastId = 0;
  let gone: LabError | undefined;
  let complaint = '';

  const end = (why: string): void => {
    if (gone !== undefined) return;
    gone = new LabError('POD_GONE', `pod ${name}: ${why} ${complaint.trim()}`.trim());
    ready.reject(gone);
    for (const waiter of waiters.values()) waiter.reject(gone);
    waiters.clear();
  };

  // Keeps only the tail: an error's name is at the end, and a crash loop must not fill memory.
  stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-2_000);
  });
  stdin.on('error', () => undefined);
  child.once('error', (error) => {
    end(error.message);
  });
  child.once('close', (code, signal) => {
    end(`ended (${String(code ?? signal)})`);
  });
  createInterface({ input: stdout, crlfDelay: Infinity }).on('line', (line) => {
    const reply = parseReply(line);
    if (reply === undefined) {
      end('said something that is not a reply');
      child.kill('SIGKILL');
    } else if (reply.kind === 'ready') {
      ready.resolve();
    } else {
      waiters.get(reply.id)?.resolve(reply);
      waiters.delete(reply.id);
    }
  });

  return {
    ready: ready.promise,
    ask: async (command) => {
      if (gone !== undefined) throw gone;
      lastId += 1;
      const waiter: Waiter = Promise.withResolvers();
      waiters.set(lastId, waiter);
      stdin.write(`${JSON.stringify(command(lastId))}\n`);
      return waiter.promise;
    },
    close: async () => {
      if (gone !== undefined) return;
      const closed = once(child, 'close');
      stdin.end();
      const late = setTimeout(() => child.kill('SIGKILL'), stopLimitMs);
      await closed;
      clearTimeout(late);
    },
  };
}

function parseReply(line: string): PodReply | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return isPodReply(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isPodReply(value: unknown): value is PodReply {
  if (typeof value !== 'object' || value === null || !('kind' in value)) return false;
  return value.kind === 'ready' || ('id' in value && typeof value.id === 'number');
}
