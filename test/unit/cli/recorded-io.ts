/** A verb of `nmi` in this process: what it prints, and servers that it asks. */
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Io } from '../../../src/cli/io.ts';

/** By default without variables, and already stopped. */
export async function record(
  act: (io: Io) => number | Promise<number>,
  environment: Io['environment'] = {},
  stop = AbortSignal.abort(),
) {
  let [stdout, stderr] = ['', ''];
  const code = await act({
    environment,
    stdout: (text) => (stdout += text),
    stderr: (text) => (stderr += text),
    stop,
  });
  return { code, stdout, stderr };
}

/** The JSON lines of a log. */
export function linesOf(stdout: string): readonly Readonly<Record<string, unknown>>[] {
  const lines = stdout.split('\n').filter((line) => line !== '');
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Runs something beside a server on loopback, or on the socket of this path. */
export async function beside<T>(
  answer: RequestListener,
  act: (port: number) => Promise<T>,
  path?: string,
): Promise<T> {
  const server = createServer(answer);
  if (path === undefined) server.listen(0, '127.0.0.1');
  else server.listen(path);
  await once(server, 'listening');
  try {
    return await act(path === undefined ? (server.address() as AddressInfo).port : 0);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}
