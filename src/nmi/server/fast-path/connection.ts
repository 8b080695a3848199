/**
 * A connection while it sends nothing but usual token requests that memory can answer: read, looked
 * up and written in one turn, without an HTTP parser. The first request that is anything else goes
 * to `node:http` with the connection, which then stays there.
 */
import type { Socket } from 'node:net';
import type { AnswerBatch } from './write-batch.ts';
import { readRequest, type KnownRequest } from './known-request.ts';
import type { QuickAnswer } from './response-cache.ts';

export interface QuickConnectionOptions {
  readonly socket: Socket;
  /** When answers are written. */
  readonly batch: Pick<AnswerBatch, 'add'>;
  /** The last request that was answered: a new connection mostly begins with the same. */
  readonly shared: { last: KnownRequest | undefined };
  /** The whole answer to a target, or undefined when this is not the place for it. */
  readonly answer: (target: string, isLast: boolean) => QuickAnswer | undefined;
  /** Gives the connection, with what was read of it, to the HTTP server. */
  readonly handOver: () => void;
  /** Nothing came within the time for a first request. */
  readonly onSilent: () => void;
  /** How long a connection may stay without a first byte, and between two requests. */
  readonly firstByteMs: number;
  readonly idleMs: number;
}

export function serveQuickly(options: QuickConnectionOptions): void {
  const { socket, batch, shared, answer } = options;
  let hasAnswered = false;
  let last = shared.last;
  /** Not written yet. */
  let due: QuickAnswer | undefined;
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
  const onData = (chunk: Buffer): void => {
    // A request that did not wait for its answer must not overtake it.
    writeDue();
    if (isLast) return;
    const request = readRequest(chunk, last);
    // A peer that does not read its answers is a matter for the server behind.
    const isFree = request !== undefined && socket.writableLength === 0;
    const reply = isFree ? answer(request.target, request.isLast) : undefined;
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
    // What was written is the kernel's by now, which sends it before it ends the connection.
    if (socket.writableLength === 0) socket.destroy();
    else socket.destroySoon();
  }

  function leave(): void {
    socket.off('data', onData).off('end', onEnd).off('timeout', onTimeout).setTimeout(0);
  }

  socket.on('data', onData).on('end', onEnd).on('timeout', onTimeout);
  socket.setTimeout(options.firstByteMs);
}
