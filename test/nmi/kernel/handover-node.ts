/** A node with pods of two processes each, a holder and an agent. They end with the node. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { get, type Agent } from 'node:http';
import { join } from 'node:path';
import { bundle } from '../../../scripts/bundle.ts';
import { freshNative, nativeFolder } from '../../../scripts/native.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { freePort, twoFreePorts } from '../../../lab/fabric/free-ports.ts';

export interface Child {
  readonly pid: number;
  readonly output: () => string;
  readonly until: (text: RegExp, maxMs?: number) => Promise<void>;
  readonly end: (signal: NodeJS.Signals) => Promise<void>;
  /** Its exit code; undefined after a signal. */
  readonly exited: Promise<number | undefined>;
}

/** Starts a pod's processes; a pod's name is also the name of its folder. */
export interface Node extends AsyncDisposable {
  readonly port: number;
  readonly place: string;
  readonly handoverPath: string;
  startHolder(pod: string): Child;
  startAgent(pod: string): Child;
}

/**
 * Bundles the processes' program, which then starts in a tenth of the time.
 * @returns its path in the folder.
 */
export async function buildChild(folder: string): Promise<string> {
  freshNative();
  const stamp = { version: '0.0.0', commit: 'test', date: '2026-01-01T00:00:00Z' };
  const { script } = await bundle(join(import.meta.dirname, 'handover-child.ts'), stamp);
  const program = join(folder, 'child.cjs');
  writeFileSync(program, script);
  symlinkSync(nativeFolder, join(folder, 'native'));
  return program;
}

/** A busy machine takes many seconds to start a process. */
export const startMs = 60_000;

/**
 * @param program the path from `buildChild`.
 * @param place a folder that only this node uses; created here.
 */
export async function openNode(program: string, place: string): Promise<Node> {
  mkdirSync(place);
  const port = await freePort();
  const [holderPages, agentPages] = await twoFreePorts();
  const handoverPath = join(place, 'handover.sock');
  const running = new Set<Child>();
  const start = (...words: readonly (string | number)[]): Child => {
    const child = spawn(process.execPath, [program, ...words.map(String)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    }
    const exited = once(child, 'exit').then(([code]) => {
      running.delete(started);
      return typeof code === 'number' ? code : undefined;
    });
    const started: Child = {
      pid: child.pid ?? 0,
      output: () => output,
      until: (text, maxMs = startMs) => eventually(() => assert.match(output, text), maxMs),
      end: async (signal) => {
        child.kill(signal);
        await exited;
      },
      exited,
    };
    running.add(started);
    return started;
  };
  const agentsPath = (pod: string) => join(place, pod, 'listener.sock');
  return {
    port,
    place,
    handoverPath,
    startHolder: (pod) => {
      mkdirSync(join(place, pod), { recursive: true });
      return start('holder', port, holderPages, agentsPath(pod), handoverPath);
    },
    startAgent: (pod) => start('agent', port, agentPages, agentsPath(pod)),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([...running].map((child) => child.end('SIGKILL')));
    },
  };
}

export async function startPod(node: Node, pod: string) {
  const holder = node.startHolder(pod);
  await holder.until(/^ready/m);
  const agent = node.startAgent(pod);
  await agent.until(/^ready/m);
  return { holder, agent };
}

/** Whether a holder changes the kernel; at most one of a node may. */
export function writesKernel(holder: Child): boolean {
  const output = holder.output();
  return output.lastIndexOf('resumed') >= output.lastIndexOf('paused');
}

/** @returns the process that answered, or the error code. */
export function ask(port: number, agent: Agent | false = false): Promise<string> {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, agent, timeout: 10_000 };
    const request = get(options, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => resolve(/answered by (\d+)/.exec(body)?.[1] ?? body));
    });
    request.on('timeout', () => request.destroy(new Error('timed out')));
    request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}
