/**
 * Probes and metrics, on ports of their own and never on the redirected one.
 *
 * `/healthz` keeps the words of the replaced system (always 200, `Active` once the redirect was
 * installed), `/livez` says that the event loop turns, `/readyz` names what is missing. An outage
 * of the API server or of the upstream never fails liveness.
 */
import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Part } from '../base/part.ts';
import { portError } from '../base/port-error.ts';
import { readiness } from '../base/readiness.ts';

export interface AdminOptions {
  /** 0 is off for either; equal ports share one server. */
  readonly probePort: number;
  readonly metricsPort: number;
  readonly metrics: Metrics;
  readonly parts: readonly Part[];
  /** The redirect was brought to the wanted state at least once. */
  readonly hasBeenActive: () => boolean;
}

/** @throws StartError when a port cannot be bound. */
export async function openAdminPages(options: AdminOptions): Promise<AsyncDisposable> {
  const pages = new Map<number, Set<'probes' | 'metrics'>>();
  const add = (port: number, page: 'probes' | 'metrics') => {
    if (port === 0) return;
    pages.set(port, (pages.get(port) ?? new Set()).add(page));
  };
  add(options.probePort, 'probes');
  add(options.metricsPort, 'metrics');

  const servers: Server[] = [];
  const close = async () => {
    const closed = servers.map((server) => server[Symbol.asyncDispose]());
    for (const server of servers) server.closeAllConnections();
    await Promise.all(closed);
  };
  try {
    for (const [port, served] of pages) {
      const server = createServer({ headersTimeout: 5_000, requestTimeout: 5_000 });
      // Pods can reach these ports too; probes and scrapes need a few connections.
      server.maxConnections = 64;
      server.on('request', (request, response) => {
        const path = (request.url ?? '').split('?', 1)[0] ?? '';
        void answer(path, served, options, response);
      });
      server.listen({ port });
      await once(server, 'listening');
      servers.push(server);
    }
  } catch (error) {
    await close();
    const where = `one of the ports ${options.probePort} and ${options.metricsPort}`;
    throw portError(error, where, '--http-probe-port or --prometheus-port');
  }
  return {
    [Symbol.asyncDispose]: close,
  };
}

async function answer(
  path: string,
  served: ReadonlySet<'probes' | 'metrics'>,
  options: AdminOptions,
  response: ServerResponse,
): Promise<void> {
  if (served.has('metrics') && path === '/metrics') {
    try {
      send(response, 200, options.metrics.contentType, await options.metrics.render());
    } catch {
      send(response, 500, 'text/plain; charset=utf-8', 'the metrics could not be collected\n');
    }
    return;
  }
  if (served.has('probes')) {
    switch (path) {
      case '/healthz':
        return send(
          response,
          200,
          'text/plain; charset=utf-8',
          options.hasBeenActive() ? 'Active' : 'Not Active',
        );
      case '/livez':
        return send(response, 200, 'text/plain; charset=utf-8', 'ok');
      case '/readyz': {
        const state = readiness(options.parts);
        const status = state.ready ? 200 : 503;
        return send(response, status, 'application/json; charset=utf-8', JSON.stringify(state));
      }
    }
  }
  send(response, 404, 'text/plain; charset=utf-8', 'not found\n');
}

function send(response: ServerResponse, status: number, contentType: string, body: string): void {
  response.writeHead(status, [
    'Content-Type',
    contentType,
    'Content-Length',
    String(Buffer.byteLength(body)),
    'X-Content-Type-Options',
    'nosniff',
  ]);
  response.end(body);
}
