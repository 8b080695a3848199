/**
 * Probes and metrics, on ports of their own and never on the redirected one.
 *
 * `/healthz` has the texts of the replaced system (always 200, `Active` once the redirect was
 * installed), `/livez` reports that the event loop runs, `/readyz` lists what is missing. An outage
 * of the API server or of the upstream never fails liveness.
 *
 * Pods can reach these ports too. A connection serves one request, and all clients share a
 * rendering of the metrics.
 */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { createServer as createNetServer, Socket, type Server } from 'node:net';
import { endianness } from 'node:os';
import { descriptorOf } from '../base/descriptor.ts';
import type { Clock } from '../../base/time/clock.ts';
import type { Config } from '../config/config.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Part } from '../base/part.ts';
import { nativeModule } from '../../redirect/native/addon.ts';
import { networkCode } from '../../base/network-code.ts';
import { portError } from '../base/port-error.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import { guardPipeline } from '../server/pipeline-guard.ts';
import { PageConnections } from './page-connections.ts';
import { readiness } from '../base/readiness.ts';
import { takeParser } from '../base/timeout-checks.ts';

export interface AdminOptions {
  /** Port 0 turns either off; equal ports share one server. */
  readonly config: Pick<Config, 'probePort' | 'metricsPort' | 'metricsAddress'>;
  readonly metrics: Pick<Metrics, 'contentType' | 'render'>;
  readonly clock: Clock;
  readonly parts: readonly Part[];
  /** The redirect has reached the wanted state at least once. */
  readonly hasBeenActive: () => boolean;
  /**
   * Set if an agent that ends soon may still use the ports: called once for each port in use, which
   * is then waited for. Undefined: a port in use is an error.
   */
  readonly onTaken?: ((port: number) => unknown) | undefined;
}

/** Slower clients are not ours: ours send a request as soon as they have connected. */
const requestMs = 2_000;
const timeoutCheckMs = 500;
/** The kernel caps it at somaxconn, which is as much. */
const backlog = 4_096;
const isLittleEndian = endianness() === 'LE';
/** A rendering of the metrics is kept this many times as long as it took. */
const pausesPerRender = 20;
/** Log message. */
export const waitingForPort = 'port still in use by the agent before, waiting';

const portRetryMs = 250;
/** Scrapes are 10 s apart or more. A rendering that a busy machine delays must not delay them. */
const longestKeptMs = 5_000;

/** @throws StartError when a port cannot be bound. */
export async function openAdminPages(options: AdminOptions): Promise<AsyncDisposable> {
  const { probePort, metricsPort, metricsAddress } = options.config;
  const connections = new PageConnections();
  const renderMetrics = shareRenders(options);
  const doors: Door[] = [];
  const waiting = new Set<Disposable>();
  const close = async () => {
    for (const wait of waiting) wait[Symbol.dispose]();
    const closed = doors.map((door) => door[Symbol.asyncDispose]());
    connections.destroyAll();
    await Promise.all(closed);
  };
  try {
    for (const port of new Set([probePort, metricsPort])) {
      if (port === 0) continue;
      const door = new Door(
        createPageServer(connections, (path, response) => {
          void answer(path, port, options, renderMetrics, response);
        }),
      );
      const isOfMetrics = port !== probePort && metricsAddress !== '';
      const address = isOfMetrics ? { port, host: metricsAddress } : { port };
      if (options.onTaken === undefined) await door.listen(address);
      else waiting.add(listenWhenFree(door, address, options.clock, options.onTaken));
      doors.push(door);
    }
  } catch (error) {
    await close();
    const where =
      networkCode(error) === 'EADDRNOTAVAIL'
        ? metricsAddress
        : `one of the ports ${probePort} and ${metricsPort}`;
    const flags =
      metricsAddress === ''
        ? '--http-probe-port or --prometheus-port'
        : '--http-probe-port, --prometheus-port or --prometheus-address';
    throw portError(error, where, flags);
  }
  return { [Symbol.asyncDispose]: close };
}

/**
 * Returns a handler of connections.
 * @param serve is called for the first request of each.
 */
function createPageServer(
  connections: PageConnections,
  serve: (path: string, response: ServerResponse) => void,
): (socket: Socket) => void {
  const usedSockets = new WeakSet<object>();
  const server = createServer({
    headersTimeout: requestMs,
    requestTimeout: requestMs,
    keepAlive: false,
  });
  const parseHttp = takeParser(server, timeoutCheckMs);
  server.on('request', (request, response) => {
    // A second request on a connection closes it.
    if (usedSockets.has(request.socket)) return void request.socket.destroy();
    usedSockets.add(request.socket);
    response.shouldKeepAlive = false;
    const [path = ''] = (request.url ?? '').split('?', 1);
    serve(path, response);
  });
  return (socket) => {
    connections.add(socket);
    onFirstBytes(socket, () => {
      parseHttp(socket);
      guardPipeline(socket, 1);
    });
  };
}

/**
 * A port. Its connections are accepted in a thread, which keeps those that have sent nothing to itself: a process that
 * connected without end filled the queue of connections to accept, and probes of the kubelet found no room.
 * TCP_DEFER_ACCEPT does not help: once that many are silent, the kernel answers with SYN cookies, and accepts silent ones.
 */
class Door implements AsyncDisposable {
  readonly #onConnection: (socket: Socket) => void;
  /** Without the native module it also accepts. There is no redirect then, and the pages must say so. */
  #server: Server | undefined;
  /** Descriptors from the thread. */
  #accepted: Socket | undefined;

  constructor(onConnection: (socket: Socket) => void) {
    this.#onConnection = onConnection;
  }

  async listen(address: { readonly port: number; readonly host?: string }): Promise<void> {
    const server = createNetServer({ allowHalfOpen: true }, this.#onConnection);
    this.#server = server;
    server.listen({ ...address, backlog });
    server.once('listening', () => {
      const fd = descriptorOf(server);
      if (fd !== undefined && this.#acceptFrom(fd)) server.close();
    });
    await once(server, 'listening');
  }

  #acceptFrom(listener: number): boolean {
    let fd: number;
    try {
      fd = nativeModule().acceptEagerly(listener, requestMs);
    } catch {
      return false;
    }
    const accepted = new Socket({ fd });
    accepted.on('error', () => accepted.destroy());
    accepted.on('data', (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; at += 4) {
        const descriptor = isLittleEndian ? chunk.readInt32LE(at) : chunk.readInt32BE(at);
        const socket = new Socket({ fd: descriptor, allowHalfOpen: true });
        if (accepted.writable) this.#onConnection(socket);
        else socket.destroy();
      }
    });
    this.#accepted = accepted;
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed =
      this.#server?.listening === true ? this.#server[Symbol.asyncDispose]() : undefined;
    if (this.#accepted !== undefined) {
      const ended = once(this.#accepted, 'close');
      this.#accepted.end();
      await ended;
    }
    await closed;
  }
}

/**
 * A connection gets a parser with its first bytes: the parsers for thousands of silent connections
 * of one pod made 40 MB of garbage. A silent connection ends after `requestMs`.
 */
function onFirstBytes(socket: Socket, parse: () => void): void {
  const end = (): void => {
    socket.destroy();
  };
  socket.on('error', end);
  socket.setTimeout(requestMs, end);
  socket.once('end', end);
  socket.once('data', (chunk: Buffer) => {
    socket.setTimeout(0, end);
    socket.off('end', end);
    socket.pause();
    socket.unshift(chunk);
    parse();
    socket.resume();
  });
}

/** Retries until it listens or is disposed. */
function listenWhenFree(
  door: Door,
  address: { readonly port: number; readonly host?: string },
  clock: Clock,
  onTaken: (port: number) => unknown,
): Disposable {
  let isReported = false;
  const attempt = async (): Promise<number | undefined> => {
    try {
      await door.listen(address);
      return undefined;
    } catch {
      if (!isReported) onTaken(address.port);
      isReported = true;
      return portRetryMs;
    }
  };
  return startPeriodicJob(clock, 0, attempt);
}

async function answer(
  path: string,
  port: number,
  options: AdminOptions,
  renderMetrics: () => Promise<Buffer>,
  response: ServerResponse,
): Promise<void> {
  if (port === options.config.metricsPort && path === '/metrics') {
    try {
      send(response, 200, await renderMetrics(), options.metrics.contentType);
    } catch {
      send(response, 500, 'the metrics could not be collected\n');
    }
    return;
  }
  if (port === options.config.probePort) {
    switch (path) {
      case '/healthz':
        return send(response, 200, options.hasBeenActive() ? 'Active' : 'Not Active');
      case '/livez':
        return send(response, 200, 'ok');
      case '/readyz': {
        const state = readiness(options.parts);
        const status = state.ready ? 200 : 503;
        return send(response, status, JSON.stringify(state), 'application/json; charset=utf-8');
      }
    }
  }
  send(response, 404, 'not found\n');
}

/**
 * However frequent the requests, rendering takes a twentieth of the time at most, while each takes
 * less than 250 ms. All requests in the meantime share the bytes: a client that does not read them
 * keeps no copy.
 */
function shareRenders({ metrics, clock }: AdminOptions): () => Promise<Buffer> {
  let rendered: Promise<Buffer> | undefined;
  let keptUntilMs = -Infinity;

  async function render(): Promise<Buffer> {
    const startedAtMs = clock.monotonicMs();
    keptUntilMs = Infinity;
    try {
      return Buffer.from(await metrics.render());
    } finally {
      const nowMs = clock.monotonicMs();
      keptUntilMs = nowMs + Math.min(longestKeptMs, (nowMs - startedAtMs) * pausesPerRender);
    }
  }

  return () => {
    if (rendered === undefined || clock.monotonicMs() >= keptUntilMs) rendered = render();
    return rendered;
  };
}

function send(
  response: ServerResponse,
  status: number,
  body: string | Buffer,
  contentType = 'text/plain; charset=utf-8',
): void {
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
