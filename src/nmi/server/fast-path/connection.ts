/**
 * Serves a connection while it sends only usual token requests for cached tokens: read, looked up
 * and written in one turn, without an HTTP parser. The first other request goes to `node:http`, and
 * the connection with it, for good.
 */
import type { FastPathConnection } from '../listener.ts';
import { readRequest, type KnownRequest } from './known-request.ts';
import type { CachedResponse } from './response-cache.ts';
import type { WriteBatch } from './write-batch.ts';

export interface ServeOptions extends Pick<FastPathConnection, 'socket' | 'handOver' | 'onSilent'> {
  /**
   * Runs the work at once, or when it is the caller's turn again.
   * @returns whether it ran at once.
   */
  readonly inTurn: (work: () => void) => boolean;
  /** Decides when answers are written. */
  readonly batch: Pick<WriteBatch, 'add'>;
  /** The last request that was answered: most new connections begin with the same one. */
  readonly shared: { last: KnownRequest | undefined };
  /** The complete answer to a request, or undefined when the fast path cannot answer it. */
  readonly answer: (request: KnownRequest) => CachedResponse | undefined;
  /** How long a connection may be idle before the first byte, and between two requests. */
  readonly firstByteMs: number;
  readonly idleMs: number;
}

export function serveConnection(options: ServeOptions): void {
  const { socket, batch, shared, answer } = options;
  let hasAnswered = false;
  let last = shared.last;
  /** An answer that is not written yet. */
  let due: CachedResponse | undefined;
  let isLast = false;

  const writeDue = (): void => {
    if (due === undefined) return;
    const answered = due;
    due = undefined;
    // The connection may have been reset in between, since its pod no longer exists.
    if (socket.destroyed) return;
    answered.writeTo(socket);
    if (isLast) end();
  };
  /** Read in this call, and not parsed yet. */
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
    // Back in the socket, it stays ahead of the client's FIN, which must not be handled first.
    received = undefined;
    socket.pause();
    socket.unshift(chunk);
  };
  const serve = (chunk: Buffer): void => {
    // A pipelined request must not overtake the answer before it.
    writeDue();
    if (isLast) return;
    // Slow readers are left to node:http, which handles back-pressure.
    const request = socket.writableLength === 0 ? readRequest(chunk, last) : undefined;
    const reply = request === undefined ? undefined : answer(request);
    if (request === undefined || reply === undefined) {
      leave();
      socket.pause();
      socket.unshift(chunk);
      options.handOver();
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
    // The kernel has all written bytes by now, and sends them before it closes the connection.
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
