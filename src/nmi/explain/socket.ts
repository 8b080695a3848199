/**
 * The local socket that `nmi explain` reads: HTTP over a Unix socket in a folder of the agent's own,
 * for its own user alone. Whoever may run a program beside the agent as its user may ask; pods and
 * the network cannot. The agent works without it, so what is wrong with it is one warning.
 */
import { once } from 'node:events';
import { chmod, lstat, mkdir, unlink } from 'node:fs/promises';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { parseExplainQuery, type ExplainQuery } from './question.ts';
import type { Explanation } from './explanation.ts';
import type { Log } from '../base/log.ts';
import { networkCode } from '../base/network-code.ts';

export interface ExplainServerOptions {
  /** Of the socket; its folder, but none above that, is made when it is not there. Empty is off. */
  readonly path: string;
  readonly explain: (query: ExplainQuery) => Explanation;
  readonly log: Log;
}

const maxConnections = 8;
const timeoutMs = 5_000;

/** Never rejects. */
export async function openExplainServer(options: ExplainServerOptions): Promise<AsyncDisposable> {
  const { path, log } = options;
  const server = createServer(
    { headersTimeout: timeoutMs, requestTimeout: timeoutMs, maxHeaderSize: 8 * 1024 },
    (request, response) => answer(request.method ?? '', request.url ?? '', response, options),
  );
  server.maxConnections = maxConnections;
  if (path !== '') {
    const problem = await listenAt(server, path);
    if (problem !== undefined) {
      log.warn({ path, problem }, 'nmi explain has no socket to ask, all else works');
    }
  }
  return {
    [Symbol.asyncDispose]: () => {
      const { promise, resolve } = Promise.withResolvers<undefined>();
      server.close(() => resolve(undefined));
      server.closeAllConnections();
      return promise;
    },
  };
}

function answer(
  method: string,
  target: string,
  response: ServerResponse,
  { explain, log }: ExplainServerOptions,
): void {
  const [path, search = ''] = target.split('?', 2);
  if (path !== '/explain') return send(response, 404, { problem: 'only /explain is here' });
  if (method !== 'GET') return send(response, 405, { problem: 'only GET is allowed' });
  const parsed = parseExplainQuery(search);
  if (!parsed.ok) return send(response, 400, { problem: parsed.problem });
  try {
    send(response, 200, explain(parsed.query));
  } catch (error) {
    log.error({ err: error instanceof Error ? error.stack : 'unknown' }, 'explaining failed');
    send(response, 500, { problem: 'the agent failed to explain it; its log says why' });
  }
}

function send(response: ServerResponse, status: number, value: object): void {
  const body = JSON.stringify(value);
  response.writeHead(status, [
    ...['Content-Type', 'application/json; charset=utf-8'],
    ...['Content-Length', String(Buffer.byteLength(body)), 'Connection', 'close'],
  ]);
  response.end(body);
}

/** @returns why it does not listen, or undefined when it does. */
async function listenAt(server: Server, path: string): Promise<string | undefined> {
  try {
    const folder = dirname(path);
    await makeFolder(folder);
    const { uid, mode } = await lstat(folder);
    // Another user could put a socket of its own there, and answer in the agent's name.
    if (uid !== process.geteuid?.() || (mode & 0o022) !== 0) {
      return `${folder} is no folder that this user alone can write to`;
    }
    if (!(await tryListen(server, path))) {
      if (!(await lstat(path)).isSocket()) return 'something that is no socket is there';
      if (await isAnswered(path)) return 'another process answers there';
      // Left by an agent that was killed.
      await unlink(path);
      if (!(await tryListen(server, path))) return 'another process has just taken it';
    }
    await chmod(path, 0o600);
    return undefined;
  } catch (error) {
    return networkCode(error);
  }
}

/** Not the folders above it: under /proc Node 26 tries those for ever. */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (networkCode(error) !== 'EEXIST') throw error;
  }
}

/** False when the path is taken. */
async function tryListen(server: Server, path: string): Promise<boolean> {
  try {
    server.listen({ path });
    await once(server, 'listening');
    return true;
  } catch (error) {
    if (networkCode(error) === 'EADDRINUSE') return false;
    throw error;
  }
}

async function isAnswered(path: string): Promise<boolean> {
  const socket = connect({ path });
  try {
    await once(socket, 'connect');
    return true;
  } catch (error) {
    if (networkCode(error) === 'ECONNREFUSED') return false;
    throw error;
  } finally {
    socket.destroy();
  }
}
