/**
 * Complete answers in memory, as bytes. Answers with the same token in the same second differ only
 * in the request id: they are rendered once, and the id is overwritten. Building and encoding each
 * anew was 15 % of the CPU time of a cached token (16 connections, Node 26.10, November 2026).
 */
import type { Socket } from 'node:net';
import type { Clock } from '../../../base/time/clock.ts';
import type { RequestedId, RenderedToken } from '../../../cache/token/token.ts';
import { serverHeader } from '../answer-writer.ts';
import { keepAliveTimeoutMs } from '../listener.ts';

export interface CachedResponse {
  writeTo(socket: Pick<Socket, 'write' | 'writableLength'>): void;
}

interface Whole {
  readonly bytes: Buffer;
  /** Where the request id begins. */
  readonly idAt: number;
  /** Some socket has not passed all of them to the kernel yet: they must not be changed. */
  isInUse: boolean;
}

/** Answers of two kilobytes each. */
const maxKept = 1_024;
const keptMs = 1_000;
const keptAlive = `Connection: keep-alive\r\nKeep-Alive: timeout=${keepAliveTimeoutMs / 1000}`;
const noId = '-'.repeat(36);

export class ResponseCache {
  readonly #clock: Clock;
  /** Answers of this second, by token: `#kept` keeps the connection open, `#last` closes it. */
  readonly #kept = new Map<RenderedToken, Whole>();
  readonly #last = new Map<RenderedToken, Whole>();
  #second = Number.NaN;
  #isClearing = false;
  #date = '';

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * @param requestedId the id of the request that the answer repeats.
   * @param requestId 36 characters, as `randomUUID` makes them.
   */
  render(
    rendered: RenderedToken,
    requestedId: RequestedId | undefined,
    requestId: string,
    isLast: boolean,
  ): CachedResponse {
    const wallMs = this.#clock.wallMs();
    this.#turnTo(Math.floor(wallMs / 1000), wallMs);
    // No mutation: it only matters that there are two, one for each.
    const known = isLast ? this.#last : this.#kept;
    const whole =
      (requestedId === undefined ? known.get(rendered) : undefined) ??
      this.#put(rendered.body(wallMs, requestedId), isLast);
    if (requestedId === undefined) this.#keep(known, rendered, whole);
    return {
      writeTo: (socket) => {
        const bytes = whole.isInUse ? Buffer.from(whole.bytes) : whole.bytes;
        bytes.write(requestId, whole.idAt, 'latin1');
        socket.write(bytes);
        if (socket.writableLength > 0) whole.isInUse = true;
      },
    };
  }

  #keep(known: Map<RenderedToken, Whole>, rendered: RenderedToken, whole: Whole): void {
    if (known.get(rendered) === whole) return;
    if (known.size >= maxKept) known.clear();
    known.set(rendered, whole);
    // An unused token must not stay here. One timer for all: a timer per entry would also clear the
    // others, which start new timers, and entries would live for a tenth of a second instead of
    // one.
    if (this.#isClearing) return;
    this.#isClearing = true;
    this.#clock.schedule(keptMs, () => {
      this.#isClearing = false;
      this.#clear();
    });
  }

  #clear(): void {
    this.#kept.clear();
    this.#last.clear();
  }

  /** The date and the remaining lifetime of a token change every second. */
  #turnTo(second: number, wallMs: number): void {
    if (second === this.#second) return;
    this.#second = second;
    this.#date = new Date(wallMs).toUTCString();
    this.#clear();
  }

  /** The same bytes that Node writes for other requests, except for the request id. */
  #put(body: string, isLast: boolean): Whole {
    const beforeId =
      'HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n' +
      `Content-Length: ${Buffer.byteLength(body)}\r\nServer: ${serverHeader}\r\nx-ms-request-id: `;
    const rest = isLast ? 'Connection: close' : keptAlive;
    const bytes = Buffer.from(
      `${beforeId}${noId}\r\nDate: ${this.#date}\r\n${rest}\r\n\r\n${body}`,
    );
    return { bytes, idAt: Buffer.byteLength(beforeId), isInUse: false };
  }
}
