/**
 * The HTTP server on the metadata address. It parses requests, identifies the caller of each
 * connection, calls the handler and writes the answer. Every error, including those of the parser,
 * is JSON.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIPv4, Server as NetServer, type Socket } from 'node:net';
import { descriptorOf } from '../base/descriptor.ts';
import type { Clock } from '../../base/time/clock.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import type { Attestation, Peer } from '../../redirect/redirect.ts';
import { refuse, type Answer } from '../base/answers.ts';
import { takeParser } from '../base/timeout-checks.ts';
import { CallerConnection, type CallerEnd, type FindCgroupUid } from '../callers/caller.ts';
import { writeAnswer, writeRawAnswer } from './answer-writer.ts';
import type { ConnectionLimits } from './connection-limits.ts';
import { Connections, type Connection } from './connections.ts';
import type { FairTurns } from './fair-turns.ts';
import { guardPipeline } from './pipeline-guard.ts';
import { HttpExchange, relayed, type Handled } from './request.ts';

/** A connection as the fast path gets it, before `node:http` has read any of it. */
export interface FastPathConnection {
  readonly socket: Socket;
  readonly caller: CallerConnection;
  /** Answers must now announce that the connection closes, which the fast path does not do. */
  readonly isDraining: () => boolean;
  /** Hands the connection and the bytes read from it to `node:http` for good. */
  readonly handOver: () => void;
  /** No first request arrived in time. */
  readonly onSilent: () => void;
}

/** Answers the usual requests of a connection itself. */
export interface FastPath {
  accept(connection: FastPathConnection): void;
}

export interface ListenerOptions {
  readonly host: string;
  /** 0 lets the kernel choose. */
  readonly port: number;
  readonly clock: Clock;
  readonly attest: (peer: Peer) => Attestation;
  /** For attested callers. */
  readonly findCgroupUid: FindCgroupUid;
  /** Called when a connection is accepted, to look up its caller. */
  readonly onConnection: (caller: CallerConnection) => void;
  readonly limits: ConnectionLimits;
  /** A connection was closed: its caller (if known) or the listener has reached its limit. */
  readonly onTooMany: (limit: 'per_caller' | 'total', limitKey?: string) => void;
  /** Must not throw; a synchronous answer is written in the same turn. */
  readonly handle: (exchange: HttpExchange) => Handled | Promise<Handled>;
  readonly turns: FairTurns;
  /** Without it, `node:http` reads and writes everything. */
  readonly fastPath: FastPath | undefined;
  /** A request was refused before it reached `handle`; for the counters. */
  readonly onRefusal: (answer: Answer) => void;
  /** One of the above threw. The connection is closed. */
  readonly onBug: (error: unknown) => void;
}

/** Whole-request and head limits, against slow senders. Azure SDKs send one small packet. */
export const headersTimeoutMs = 5_000;
const requestTimeoutMs = 15_000;
// No mutation: a shorter interval only costs CPU time.
const timeoutCheckMs = 1_000;
/** Longer than the idle timeout of any client's pool, so that the client closes first. */
export const keepAliveTimeoutMs = 120_000;
/**
 * Added to the announced keep-alive time, so that a client's last request does not race the close.
 */
const keepAliveBufferMs = 1_000;
/** A connection without a request is closed after this time. */
export const idleMs = keepAliveTimeoutMs + keepAliveBufferMs;
const maxHeaderBytes = 16 * 1024;
/** Unanswered requests of one connection; no client of ours sends more. */
const maxPipelined = 16;
/** Event-loop time charged for a request that is not answered at once. */
const laterMs = 0.15;
/** While draining, the interval of checks for idle connections. */
// No mutation: a shorter interval only costs CPU time.
const drainTickMs = 100;
/**
 * How long an idle connection stays open while draining: a request that the client has already sent
 * is answered, and that answer closes the connection.
 */
const idleGraceMs = 500;

export class Listener implements AsyncDisposable {
  readonly #options: ListenerOptions;
  readonly #connections: Connections;
  readonly #server: Server;
  /** Node's own handler of a connection, which takes over when the fast path has ended. */
  readonly #parseHttp: (socket: Socket) => void;
  #boundIp: string | undefined;
  #isDraining = false;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#connections = new Connections(options.limits);
    const server: Server & { httpAllowHalfOpen?: boolean } = createServer({
      headersTimeout: headersTimeoutMs,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: keepAliveTimeoutMs,
      keepAliveTimeoutBuffer: keepAliveBufferMs,
      maxHeaderSize: maxHeaderBytes,
      // Node's own answer to a missing Host header has no body; IMDS clients need JSON.
      requireHostHeader: false,
      noDelay: true,
    });
    // A client that half-closes after the request (`nc -N`) is answered, as by Go's net/http. A
    // client that has disconnected looks the same until a write fails, so its request runs to its
    // end. This property is not in Node's documentation.
    server.httpAllowHalfOpen = true;
    this.#server = server;
    server.maxConnections = options.limits.total;
    const parseHttp = takeParser(server, timeoutCheckMs);
    this.#parseHttp = (socket) => {
      parseHttp(socket);
      guardPipeline(socket, maxPipelined);
    };
    server.on('connection', (socket: Socket) => this.#accept(socket));
    server.on('request', (request, response) => this.#serve(request, response));
    this.#refuseUnserved();
  }

  get host(): string {
    return this.#options.host;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : this.#options.port;
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Until it listens again, connections are refused. Those that are open stay open. */
  unlisten(): void {
    if (this.#server.listening) NetServer.prototype.close.call(this.#server);
  }

  /** @throws errors of listen(2). */
  async listen(port = this.#options.port): Promise<void> {
    if (this.#isDraining) return;
    const { host } = this.#options;
    this.#server.listen({ backlog: 1024, host, port });
    await once(this.#server, 'listening');
    // A socket that listens on one address accepts nothing on another.
    if (isIPv4(host) && host !== '0.0.0.0') this.#boundIp = host;
  }

  /** Handles the events of `node:http` other than requests. */
  #refuseUnserved(): void {
    const { onTooMany, onRefusal, clock } = this.#options;
    this.#server.on('drop', () => onTooMany('total'));
    this.#server.on('checkExpectation', (_request: IncomingMessage, response: ServerResponse) => {
      const answer = refuse('request_malformed', 'Expectations are not supported.', {
        close: true,
      });
      onRefusal(answer);
      writeAnswer(response, answer, randomUUID(), true);
    });
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
      this.#refuseUnparsed(error.code, socket);
    });
    this.#server.on('connect', (_request: IncomingMessage, socket: Socket) => {
      // Node has ended its parser.
      socket.removeAllListeners('data').resume();
      const refuseIt = (): void => {
        if (socket.destroyed) return;
        onRefusal(methodNotAllowed);
        writeRawAnswer(socket, methodNotAllowed, randomUUID(), clock);
      };
      const before = this.#lastOpen(socket);
      if (before === undefined) refuseIt();
      else before.once('close', refuseIt);
    });
  }

  #accept(socket: Socket): void {
    // After CONNECT, Node removes its own error listener. Without this one, a reset would then be
    // an uncaught exception: any pod could end the agent.
    socket.on('error', () => socket.destroy());
    this.#options.turns.accepted();
    try {
      this.#admit(socket);
    } catch (error) {
      socket.destroy();
      this.#options.onBug(error);
    }
  }

  #admit(socket: Socket): void {
    const { attest, findCgroupUid, onConnection, onTooMany } = this.#options;
    const ends = new SocketEnds(socket, this.#boundIp);
    const caller = new CallerConnection(ends, attest(ends), findCgroupUid);
    // Before it is counted, since it counts for its pod if that is known.
    onConnection(caller);
    // Its peer has reset it: it belongs to nobody, so it would be in no pod's count.
    if (caller.ip === '') {
      socket.destroy();
      return;
    }
    const connection = this.#connections.add(socket, caller, () =>
      onTooMany('per_caller', caller.limitKey),
    );
    if (connection === undefined) socket.destroy();
    else this.#read(socket, connection);
  }

  #read(socket: Socket, connection: Connection): void {
    const { fastPath } = this.#options;
    if (fastPath === undefined) {
      this.#parseHttp(socket);
      return;
    }
    fastPath.accept({
      socket,
      caller: connection.caller,
      isDraining: () => this.#isDraining,
      handOver: () => this.#parseHttp(socket),
      onSilent: () => this.#refuseUnparsed('ERR_HTTP_REQUEST_TIMEOUT', socket),
    });
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const connection = this.#connections.get(request.socket);
    if (connection === undefined || connection.open.size >= maxPipelined) {
      request.socket.destroy();
      return;
    }
    const { caller, open } = connection;
    open.add(response);
    response.once('close', () => open.delete(response));
    // An unread body must not be taken for the next request, and must not be waited for.
    const hasBody =
      request.headers['transfer-encoding'] ?? request.headers['content-length'] ?? '0';
    if (this.#isDraining || hasBody !== '0') response.shouldKeepAlive = false;
    const { clock, turns } = this.#options;
    const startedAtMs = clock.monotonicMs();
    const exchange = new HttpExchange(request, response, caller, startedAtMs, randomUUID());
    turns.run(caller.limitKey, () => this.#handle(exchange));
  }

  #handle(exchange: HttpExchange): void {
    if (exchange.isGone) return;
    const handled = this.#options.handle(exchange);
    if (handled instanceof Promise) {
      this.#options.turns.charge(exchange.caller.limitKey, laterMs);
      void handled.then((later) => this.#write(exchange, later));
    } else {
      this.#write(exchange, handled);
    }
  }

  #write(exchange: HttpExchange, handled: Handled): void {
    if (handled === relayed || exchange.isGone) return;
    writeAnswer(exchange.response, handled, exchange.requestId, this.#isDraining);
  }

  #refuseUnparsed(code: string | undefined, socket: Socket): void {
    if (code === 'ECONNRESET' || !socket.writable) {
      socket.destroy();
      return;
    }
    const last = this.#lastOpen(socket);
    if (last !== undefined) {
      // Earlier requests are answered first. The error is in one of them or after them, so an error
      // answer now would be taken for one of their answers. The last of these closes the
      // connection.
      last.shouldKeepAlive = false;
      last.once('close', () => socket.destroySoon());
      return;
    }
    const { clock, onRefusal } = this.#options;
    const answer = parserRefusal(code);
    onRefusal(answer);
    writeRawAnswer(socket, answer, randomUUID(), clock);
  }

  /** The latest request of a connection that has no answer yet. */
  #lastOpen(socket: Socket): ServerResponse | undefined {
    return [...(this.#connections.get(socket)?.open ?? [])].at(-1);
  }

  /** Ends the connections of these callers at once; returns how many there were. */
  reset(isMeant: (caller: CallerConnection) => boolean): number {
    return this.#connections.reset(isMeant);
  }

  /** Stops accepting, lets requests under way finish for at most `maxMs`, then cuts the rest. */
  async drain(maxMs: number): Promise<void> {
    this.#isDraining = true;
    const server = this.#server;
    if (!server.listening) return;
    // Not the `close` of `node:http`, which closes idle connections at once.
    const closed = new Promise<void>((resolve) => {
      NetServer.prototype.close.call(server, () => resolve());
    });
    this.#connections.endAfterAnswers();
    const { clock } = this.#options;
    using _idle = startPeriodicJob(clock, Math.min(idleGraceMs, maxMs), () => {
      this.#connections.destroyIdle();
      return drainTickMs;
    });
    const disarm = clock.schedule(maxMs, () => this.#connections.destroyAll());
    await closed;
    // Stops the one thing that is left, a timer.
    server.close();
    disarm();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain(0);
  }
}

/** An accepted connection; only those addresses that are used and unknown are read from the kernel. */
class SocketEnds implements Peer, CallerEnd {
  readonly #socket: Socket;
  readonly #localIp: string | undefined;

  constructor(socket: Socket, localIp: string | undefined) {
    this.#socket = socket;
    this.#localIp = localIp;
  }

  get socket(): number {
    return descriptorOf(this.#socket) ?? -1;
  }

  get remoteIp(): string {
    return this.#socket.remoteAddress ?? '';
  }

  get localIp(): string {
    return this.#localIp ?? this.#socket.localAddress ?? '';
  }
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
      return methodNotAllowed;
    default:
      return refuse('request_malformed', 'The request is not well-formed HTTP/1.1.');
  }
}

const methodNotAllowed = refuse('method_not_allowed', 'Only GET is allowed.', { allow: 'GET' });
