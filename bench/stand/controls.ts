/** Servers that know nothing, of the same bytes or of an upstream: what anything costs at least. */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { subjects } from '../core/results.ts';
import { onCore } from '../machine/cores.ts';
import { freePort, start, stop, untilItSpeaks } from '../machine/child.ts';
import type { Subject } from './rounds.ts';
import { defaultTarget } from './stand.ts';

export type ControlName = (typeof subjects)['nodeHttp' | 'rawTcp' | 'goHttp'];

const servers = join(import.meta.dirname, '../servers');

/** The words that start a control; undefined where its language is not installed. */
export function controlCommand(name: ControlName): readonly [string, ...string[]] | undefined {
  switch (name) {
    case 'node:http':
      return [process.execPath, join(servers, 'node-http.ts')];
    case 'raw TCP':
      return [process.execPath, join(servers, 'raw-tcp.ts')];
    case 'Go net/http':
      return buildGo();
  }
}

/** On loopback, on the core of the servers. */
export async function openControl(
  name: ControlName,
  bodyBytes: number,
  stack: AsyncDisposableStack,
): Promise<Subject | undefined> {
  const command = controlCommand(name);
  if (command === undefined) return undefined;
  return {
    ...(await openServer(command, [String(bodyBytes)], stack)),
    name,
    callers: [controlCaller],
  };
}

/** The upstream itself, as it would answer a pod. */
export async function openFakeUpstream(stack: AsyncDisposableStack): Promise<Subject> {
  const identity = 'upstream';
  const command = [process.execPath, join(servers, 'fake-imds.ts')] as const;
  return {
    ...(await openServer(command, [identity], stack)),
    name: subjects.fakeImds,
    callers: [{ target: defaultTarget, expect: { kind: 'identity', name: identity } }],
  };
}

/**
 * What one more hop through Node costs in front of an upstream, HTTPS or not.
 * @param caPem trusted instead of Node's own authorities.
 * @returns its origin.
 */
export async function openBareProxy(
  upstream: string,
  caPem: string,
  stack: AsyncDisposableStack,
): Promise<string> {
  const command = [process.execPath, join(servers, 'bare-proxy.ts')] as const;
  const { host, port } = await openServer(command, [upstream, caPem], stack);
  return `http://${host}:${port}`;
}

async function openServer(
  command: readonly [string, ...string[]],
  args: readonly string[],
  stack: AsyncDisposableStack,
): Promise<Pick<Subject, 'host' | 'port' | 'pids'>> {
  const host = '127.0.0.1';
  const port = await freePort(host);
  const words = onCore('server', [...command, host, String(port), ...args]);
  const child = start(words, { stdio: ['ignore', 'pipe', 'inherit'] });
  stack.defer(() => stop(child));
  await untilItSpeaks(child);
  return { host, port, pids: child.pid === undefined ? [] : [child.pid] };
}

export const controlCaller = {
  target: defaultTarget,
  expect: { kind: 'status', statuses: [200] },
} as const;

/** `taskset` and the fabric replace themselves by the program: a pid stays that of the server. */
function buildGo(): readonly [string, ...string[]] | undefined {
  const folder = join(import.meta.dirname, '../../.cache/bench');
  mkdirSync(folder, { recursive: true });
  const built = spawnSync('go', ['build', '-o', join(folder, 'go-http'), 'main.go'], {
    cwd: join(servers, 'go'),
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, GOFLAGS: '-mod=mod', GO111MODULE: 'off' },
  });
  return built.status === 0 ? [join(folder, 'go-http')] : undefined;
}
