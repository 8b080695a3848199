/** The local socket for `nmi explain` and `nmi ready`, for the agent's own user alone. */
import { createServer, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { parseExplainQuery, type ExplainQuery } from './question.ts';
import type { Explanation } from './explanation.ts';
import { listenAt, makeOwnFolder, whyNot } from '../kernel/local-socket.ts';
import type { Log } from '../../base/log.ts';
import type { Readiness } from '../base/readiness.ts';

export interface ExplainServerOptions {
  /** Its folder, but none above that, is created if it does not exist. Empty is off. */
  readonly path: string;
  readonly explain: (query: ExplainQuery) => Explanation;
  readonly ready: () => Readiness;
  readonly log: Log;
}

const maxConnections = 8;
// No mutation: node:http looks for late requests twice a minute, longer than a test may take.
const timeoutMs = 5_000;

export async function openExplainServer(options: ExplainServerOptions): Promise<AsyncDisposable> {
  const { path, log } = options;
  const server = createServer(
    { headersTimeout: timeoutMs, requestTimeout: timeoutMs, maxHeaderSize: 8 * 1024 },
    (request, response) => answer(request.method ?? '', request.url ?? '', response, options),
  );
  server.maxConnections = maxConnections;
  if (path !== '') {
    const problem = await whyNot(
      async () => (await makeOwnFolder(dirname(path))) ?? listenAt(server, path, 0o600),
    );
    if (problem !== undefined) log.warn({ path, problem }, 'explain socket unavailable');
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
  { explain, ready, log }: ExplainServerOptions,
): void {
  const [path, search = ''] = target.split('?', 2);
  if (path !== '/explain' && path !== '/ready') {
    return send(response, 404, { problem: 'only /explain and /ready are here' });
  }
  if (method !== 'GET') return send(response, 405, { problem: 'only GET is allowed' });
  if (path === '/ready') {
    const state = ready();
    return send(response, state.ready ? 200 : 503, state);
  }
  const parsed = parseExplainQuery(search);
  if (!parsed.ok) return send(response, 400, { problem: parsed.problem });
  try {
    send(response, 200, explain(parsed.query));
  } catch (error) {
    log.error({ err: error instanceof Error ? error.stack : 'unknown' }, 'explain request failed');
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
