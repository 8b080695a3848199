/**
 * The HTTP server on the metadata address. It parses, names the connection's caller, hands the
 * request on and writes the answer; every error path, the parser's own included, is JSON.
 */
import { randomUUID } from 'node:crypto';
import {
  createServer,
  STATUS_CODES,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { isIPv4, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock } from '../../cache/clock.ts';
import type { Attestation, Peer } from '../../redirect/redirect.ts';
import { AnswerBatch } from './fast-path/write-batch.ts';
import { refuse, type Answer } from '../base/answers.ts';
import { CallerConnection, type CallerEnd, type FindCgroupUid } from '../grants/caller.ts';
import { ConnectionShare, type ConnectionLimits } from './connection-limits.ts';
import { HttpExchange } from './request.ts';
import type { Hits } from './fast-path/lookup.ts';
import { QuickAnswers } from './fast-path/response-cache.ts';
import { serveQuickly } from './fast-path/connection.ts';

/** An answer that is already on its way, written by the handler itself. */
export const relayed = Symbol('relayed');
export type Handled = Answer | typeof relayed;

export interface ListenerOptions {
  readonly host: string;
  /** 0 lets the kernel choose. */
  readonly port: number;
  readonly clock: Clock;
  /** The `Server` header; clients look for "IMDS" in it. */
  readonly serverHeader: string;
  readonly attest: (peer: Peer) => Attestation;
  /** For attested callers. */
  readonly findCgroupUid: FindCgroupUid;
  /** A connection was accepted; its caller is not looked up yet. */
  readonly onConnection: (caller: CallerConnection) => void;
  readonly limits: ConnectionLimits;
  /** A connection was closed at once: its caller has its fill, or there are too many. */
  readonly onTooMany: (whose: 'caller' | 'all') => void;
  /** Must not throw; a synchronous answer is written in the same turn. */
  readonly handle: (exchange: HttpExchange) => Handled | Promise<Handled>;
  /** Answers from memory for a connection, beside the HTTP server. */
  readonly openHits: (caller: CallerConnection) => Hits;
  /** A request that was refused before it came to `handle`, for the counters. */
  readonly onRefusal: (answer: Answer) => void;
  /** One of the above threw. The connection is closed, or answered on the other way. */
  readonly onBug: (error: unknown) => void;
}

export interface Listener extends AsyncDisposable {
  readonly port: number;
  readonly connections: number;
  /** Ends the connections of these callers at once; returns how many there were. */
  reset(isMeant: (caller: CallerConnection) => boolean): number;
  /** Stops accepting, lets requests under way finish for at most `maxMs`, then cuts the rest. */
  drain(maxMs: number): Promise<void>;
}

/** Whole-request and head limits, against slow senders. Azure SDKs send one small packet. */
const headersTimeoutMs = 5_000;
const requestTimeoutMs = 15_000;
/** Longer than any client's idle pool, so that the client and not we close first. */
const keepAliveTimeoutMs = 120_000;
/** Longer than clients are told by so much: one that goes by it must not meet the end on its way. */
const keepAliveBufferMs = 1_000;
const maxHeaderBytes = 16 * 1024;
/** Node parses every pipelined request at once; beyond this many the sender is no client of ours. */
const maxPipelined = 16;
/** While draining, how often connections that have become idle are looked for. */
const drainTickMs = 100;

interface Connection {
  readonly caller: CallerConnection;
  /** Responses that are not finished. */
  readonly open: Set<ServerResponse>;
}

export async function openListener(options: ListenerOptions): Promise<Listener> {
  const connections = new Map<Socket, Connection>();
  const share = new ConnectionShare(options.limits.each);
  const batch = new AnswerBatch();
  const shared = { last: undefined };
  let bound: Bound | undefined;
  const quickAnswers = new QuickAnswers({
    ...{ clock: options.clock, serverHeader: options.serverHeader },
    keepAliveTimeoutS: keepAliveTimeoutMs / 1000,
  });
  let isDraining = false;

  const server = createServer(
    {
      headersTimeout: headersTimeoutMs,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: keepAliveTimeoutMs,
      keepAliveTimeoutBuffer: keepAliveBufferMs,
      maxHeaderSize: maxHeaderBytes,
      connectionsCheckingInterval: 1_000,
      // Node's own answer to a missing Host header has no body; IMDS clients need JSON.
      requireHostHeader: false,
      noDelay: true,
    },
    (request, response) => {
      serve(request, response);
    },
  );
  server.maxConnections = options.limits.total;
  server.on('drop', () => {
    options.onTooMany('all');
  });
  // Node's own handling of a connection: it takes one over when the quick way has ended.
  const [parseHttp] = server.listeners('connection');
  server.removeAllListeners('connection');

  server.on('connection', (socket: Socket) => {
    // Without a listener of our own a reset after CONNECT, when Node has taken its own away, would
    // be an uncaught exception: any pod could end the agent.
    socket.on('error', () => socket.destroy());
    try {
      accept(socket);
    } catch (error) {
      socket.destroy();
      options.onBug(error);
    }
  });
  server.on('checkExpectation', (_request: IncomingMessage, response: ServerResponse) => {
    const answer = refuse('request_malformed', 'Expectations are not supported.', { close: true });
    options.onRefusal(answer);
    writeAnswer(response, answer, randomUUID());
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    refuseUnparsed(error.code, socket);
  });
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    const answer = methodNotAllowed();
    options.onRefusal(answer);
    writeRaw(socket, answer);
  });

  function accept(socket: Socket): void {
    const ends = new SocketEnds(socket, bound);
    const caller = new CallerConnection(ends, options.attest(ends), options.findCgroupUid);
    if (!share.enter(caller.sharer)) {
      socket.destroy();
      options.onTooMany('caller');
      return;
    }
    connections.set(socket, { caller, open: new Set() });
    socket.once('close', () => {
      connections.delete(socket);
      share.leave(caller.sharer);
    });
    options.onConnection(caller);
    answerQuickly(socket, caller);
  }

  function answerQuickly(socket: Socket, caller: CallerConnection): void {
    const hits = options.openHits(caller);
    serveQuickly({
      ...{ socket, batch, shared },
      firstByteMs: headersTimeoutMs,
      idleMs: keepAliveTimeoutMs + keepAliveBufferMs,
      handOver: () => parseHttp?.call(server, socket),
      onSilent: () => {
        refuseUnparsed('ERR_HTTP_REQUEST_TIMEOUT', socket);
      },
      answer: (target, isLast) => {
        if (isDraining) return undefined;
        try {
          const requestId = randomUUID();
          const hit = hits.find(target, options.clock.monotonicMs(), requestId);
          return hit === undefined ? undefined : quickAnswers.render(hit, requestId, isLast);
        } catch (error) {
          // The other way finds the same, and answers that the agent failed.
          options.onBug(error);
          return undefined;
        }
      },
    });
  }

  function serve(request: IncomingMessage, response: ServerResponse): void {
    const connection = connections.get(request.socket);
    if (connection === undefined || connection.open.size >= maxPipelined) {
      request.socket.destroy();
      return;
    }
    const { caller, open } = connection;
    open.add(response);
    response.once('close', () => open.delete(response));
    // A body that nobody reads must not be taken for the next request, nor waited for.
    const hasBody =
      request.headers['transfer-encoding'] ?? request.headers['content-length'] ?? '0';
    if (isDraining || hasBody !== '0') response.shouldKeepAlive = false;
    const startedAtMs = options.clock.monotonicMs();
    const exchange = new HttpExchange(request, response, caller, startedAtMs, randomUUID());
    const handled = options.handle(exchange);
    if (handled instanceof Promise) {
      void handled.then((later) => {
        write(exchange, later);
      });
    } else {
      write(exchange, handled);
    }
  }

  function write(exchange: HttpExchange, handled: Handled): void {
    if (handled === relayed || exchange.isGone) return;
    writeAnswer(exchange.response, handled, exchange.requestId);
  }

  function writeAnswer(response: ServerResponse, answer: Answer, requestId: string): void {
    const headers = answerHeaders(answer, requestId);
    if (isDraining || answer.close === true) headers.push('Connection', 'close');
    response.writeHead(answer.status, headers);
    response.end(answer.body);
  }

  function answerHeaders(answer: Answer, requestId: string): string[] {
    const headers = [
      'Content-Type',
      'application/json; charset=utf-8',
      'Content-Length',
      String(Buffer.byteLength(answer.body)),
      'Server',
      options.serverHeader,
      'x-ms-request-id',
      requestId,
    ];
    if (answer.retryAfterS !== undefined) headers.push('Retry-After', String(answer.retryAfterS));
    if (answer.allow !== undefined) headers.push('Allow', answer.allow);
    return headers;
  }

  function refuseUnparsed(code: string | undefined, socket: Socket): void {
    if (code === 'ECONNRESET' || !socket.writable) {
      socket.destroy();
      return;
    }
    const connection = connections.get(socket);
    const last = connection === undefined ? undefined : [...connection.open].at(-1);
    if (last !== undefined) {
      // What was asked before is answered first, and what broke belongs to it or comes after it: an
      // answer of our own would be taken for one of those. The last of them ends the connection.
      last.shouldKeepAlive = false;
      last.once('close', () => socket.destroySoon());
      return;
    }
    const answer = parserRefusal(code);
    options.onRefusal(answer);
    writeRaw(socket, answer);
  }

  function writeRaw(socket: Duplex, answer: Answer): void {
    const headers = answerHeaders(answer, randomUUID());
    headers.push('Connection', 'close', 'Date', new Date(options.clock.wallMs()).toUTCString());
    const lines = [`HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status] ?? ''}`];
    for (let index = 0; index + 1 < headers.length; index += 2) {
      lines.push(headers.slice(index, index + 2).join(': '));
    }
    const head = `${lines.join('\r\n')}\r\n`;
    socket.end(`${head}\r\n${answer.body}`);
    // A peer that does not read must not keep the socket: ended is closed soon after.
    const disarm = options.clock.schedule(1_000, () => socket.destroy());
    socket.once('close', disarm);
  }

  await listen(server, options.host, options.port);
  // A socket that listens on one address accepts nothing on another.
  if (isIPv4(options.host) && options.host !== '0.0.0.0') {
    bound = { ip: options.host, port: boundPort(server) };
  }

  async function drain(maxMs: number): Promise<void> {
    isDraining = true;
    if (!server.listening) return;
    const closed = new Promise<void>((resolve) => {
      server.close(() => {
        resolve();
      });
    });
    for (const { open } of connections.values()) {
      for (const response of open) response.shouldKeepAlive = false;
    }
    // Node closes what is idle now; what becomes idle later, or never sent a whole head, is ours.
    const tick = setInterval(() => {
      for (const [socket, { open }] of connections) if (open.size === 0) socket.destroy();
    }, drainTickMs);
    const disarm = options.clock.schedule(maxMs, () => {
      server.closeAllConnections();
      for (const socket of connections.keys()) socket.destroy();
    });
    await closed;
    clearInterval(tick);
    disarm();
  }

  function reset(isMeant: (caller: CallerConnection) => boolean): number {
    const meant = [...connections].filter(([, { caller }]) => isMeant(caller));
    for (const [socket] of meant) socket.resetAndDestroy();
    return meant.length;
  }

  return {
    port: boundPort(server),
    get connections() {
      return connections.size;
    },
    reset,
    drain,
    [Symbol.asyncDispose]: () => drain(0),
  };
}

interface Bound {
  readonly ip: string;
  readonly port: number;
}

/** Of a connection; the kernel is asked only for what is looked at and not known. */
class SocketEnds implements Peer, CallerEnd {
  readonly #socket: Socket;
  readonly #bound: Bound | undefined;

  constructor(socket: Socket, bound: Bound | undefined) {
    this.#socket = socket;
    this.#bound = bound;
  }

  get remoteAddress(): string {
    return this.remoteIp;
  }

  get localAddress(): string {
    return this.localIp;
  }

  get remoteIp(): string {
    return this.#socket.remoteAddress ?? '';
  }

  get remotePort(): number {
    return this.#socket.remotePort ?? 0;
  }

  get localIp(): string {
    return this.#bound?.ip ?? this.#socket.localAddress ?? '';
  }

  get localPort(): number {
    return this.#bound?.port ?? this.#socket.localPort ?? 0;
  }
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, backlog: 1024 }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function boundPort(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function parserRefusal(code: string | undefined): Answer {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return refuse(
        'headers_too_large',
        `The request head is larger than ${maxHeaderBytes} bytes.`,
      );
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return refuse('request_timeout', 'The request did not arrive in time.');
    case 'HPE_INVALID_METHOD':
      return methodNotAllowed();
    default:
      return refuse('request_malformed', 'The request is not well-formed HTTP/1.1.');
  }
}

function methodNotAllowed(): Answer {
  return refuse('method_not_allowed', 'Only GET is allowed.', { allow: 'GET' });
}
