/**
 * A connection while it sends nothing but usual token requests that memory can answer: read, looked
 * up and written in one turn, without an HTTP parser. The first request that is anything else goes
 * to `node:http` with the connection, which then stays there.
 */
import type { Socket } from 'node:net';
import { readRequest, type KnownRequest } from './known-request.ts';
import type { CachedResponse } from './response-cache.ts';
import type { WriteBatch } from './write-batch.ts';

export interface ServeOptions {
  readonly socket: Socket;
  /**
   * Calls back at once, or when it is its caller's turn again.
   * @returns whether it was at once.
   */
  readonly inTurn: (work: () => void) => boolean;
  /** When answers are written. */
  readonly batch: Pick<WriteBatch, 'add'>;
  /** The last request that was answered: a new connection mostly begins with the same. */
  readonly shared: { last: KnownRequest | undefined };
  /** The whole answer to a request, or undefined when this is not the place for it. */
  readonly answer: (request: KnownRequest) => CachedResponse | undefined;
  /**
   * Gives the connection, with what was read of it, to the HTTP server.
   * @param target that `answer` had no answer to; undefined for a request that it was not asked.
   */
  readonly handOver: (target: string | undefined) => void;
  /** Nothing came within the time for a first request. */
  readonly onSilent: () => void;
  /** How long a connection may stay without a first byte, and between two requests. */
  readonly firstByteMs: number;
  readonly idleMs: number;
}

export function serveConnection(options: ServeOptions): void {
  const { socket, batch, shared, answer } = options;
  let hasAnswered = false;
  let last = shared.last;
  /** Not written yet. */
  let due: CachedResponse | undefined;
  let isLast = false;

  const writeDue = (): void => {
    if (due === undefined) return;
    const answered = due;
    due = undefined;
    // Somebody may have cut the connection in between, since it is nobody's any more.
    if (socket.destroyed) return;
    answered.writeTo(socket);
    if (isLast) end();
  };
  /** Read in this call, and not looked at. */
  let received: Buffer | undefined;
  let isTurn = false;
  let hasLeft = false;
  const serveReceived = (): void => {
    if (socket.destroyed || hasLeft) return;
    const chunk = received;
    received = undefined;
    if (chunk !== undefined) {
      serve(chunk);
      return;
    }
    isTurn = true;
    socket.read();
    isTurn = false;
    if (!hasLeft) socket.resume();
  };
  const onData = (chunk: Buffer): void => {
    if (isTurn) {
      serve(chunk);
      return;
    }
    received = chunk;
    if (options.inTurn(serveReceived)) return;
    // In the socket it waits before the client's end, which must not come first.
    received = undefined;
    socket.pause();
    socket.unshift(chunk);
  };
  const serve = (chunk: Buffer): void => {
    // A request that did not wait for its answer must not overtake it.
    writeDue();
    if (isLast) return;
    // Slow readers are left to node:http, which handles back-pressure.
    const request = socket.writableLength === 0 ? readRequest(chunk, last) : undefined;
    const reply = request === undefined ? undefined : answer(request);
    if (request === undefined || reply === undefined) {
      leave();
      socket.pause();
      socket.unshift(chunk);
      options.handOver(request?.target);
      socket.resume();
      return;
    }
    due = reply;
    isLast = request.isLast;
    batch.add(writeDue);
    last = request;
    shared.last = request;
    if (hasAnswered || isLast) return;
    hasAnswered = true;
    socket.setTimeout(options.idleMs);
  };
  const onEnd = (): void => {
    writeDue();
    end();
  };
  const onTimeout = (): void => {
    leave();
    if (hasAnswered) socket.destroy();
    else options.onSilent();
  };

  function end(): void {
    leave();
    // What was written is the kernel's by now, which sends it before it ends the connection.
    if (socket.writableLength === 0) socket.destroy();
    else socket.destroySoon();
  }

  function leave(): void {
    hasLeft = true;
    socket.off('data', onData).off('end', onEnd).off('timeout', onTimeout).setTimeout(0);
  }

  socket.on('data', onData).on('end', onEnd).on('timeout', onTimeout);
  socket.setTimeout(options.firstByteMs);
}
