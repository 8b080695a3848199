/**
 * Client of the process that maintains the redirect: pipelined requests over one connection, which is
 * reopened when it is lost. An answer that does not arrive in time closes the connection and fails every
 * request on it with "unavailable".
 */
import { connect, type Socket } from 'node:net';
import type { Clock } from '../../base/time/clock.ts';
import type { Attestation } from '../../redirect/redirect.ts';
import {
  FrameReader,
  answerBytes,
  readAnswer,
  requestBytes,
  writeRequest,
  type Answer,
  type RedirectReport,
  type Request,
} from './caller-frames.ts';

export interface CallerClientOptions {
  readonly path: string;
  readonly clock: Clock;
  /** Called with each report of the other process; undefined when the connection is lost. */
  readonly onReport: (report: RedirectReport | undefined) => void;
}

const answerMs = 1_000;
const reconnectMs = 100;
/** More than the connections of a listener's backlog. */
const maxPending = 4_096;

export const noAnswer = {
  kind: 'unavailable',
  why: '`nmi redirect run` does not answer',
} as const satisfies Attestation;
interface Pending {
  readonly kind: Request['kind'];
  readonly deadlineMs: number;
  readonly settle: (answer: Answer | undefined) => void;
}

export class CallerClient {
  readonly #options: CallerClientOptions;
  #socket: Socket | undefined;
  #pending: Pending[] = [];
  /** Requests of this event loop iteration, which are sent in one write. */
  readonly #due = Buffer.alloc(maxPending * requestBytes);
  #dueBytes = 0;
  /** Disarms the timer: the timeout of the oldest request, or the next connect. */
  #disarm: (() => void) | undefined;
  #isClosed = false;

  constructor(options: CallerClientOptions) {
    this.#options = options;
  }

  /** The current report of the other process, or undefined if it does not answer. */
  async report(): Promise<RedirectReport | undefined> {
    if (this.#isClosed) return undefined;
    this.#socket ??= this.#connect();
    const answer = await this.#ask(this.#socket, { kind: 'status' });
    return answer?.kind === 'status' ? answer.report : undefined;
  }

  /** The caller at an address and port. Unavailable before the first report. */
  lookUp(ip: string, port: number): Attestation | Promise<Attestation> {
    if (this.#socket === undefined) return noAnswer;
    return this.#ask(this.#socket, { kind: 'look-up', ip, port }).then((answer) =>
      answer?.kind === 'look-up' ? answer.found : noAnswer,
    );
  }

  /** The whole set, or nothing: without a connection or room for all. */
  letThrough(cgroupIds: readonly bigint[]): void {
    const ids = cgroupIds.length === 0 ? [0n] : cgroupIds;
    if (this.#socket === undefined || this.#pending.length + ids.length > maxPending) return;
    for (const [index, cgroupId] of ids.entries()) {
      const hasMore = index < ids.length - 1;
      void this.#ask(this.#socket, { kind: 'let-through', cgroupId, hasMore });
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#disarm?.();
    this.#socket?.destroy();
  }

  #connect(): Socket {
    this.#disarm?.();
    this.#disarm = undefined;
    const socket = connect({ path: this.#options.path });
    const frames = new FrameReader(answerBytes);
    socket.on('data', (chunk: Buffer) => {
      if (!this.#take(frames.take(chunk))) socket.destroy();
    });
    socket.on('error', () => socket.destroy());
    socket.once('close', () => this.#lose());
    return socket;
  }

  #ask(socket: Socket, request: Request): Promise<Answer | undefined> {
    if (this.#pending.length >= maxPending) return Promise.resolve(undefined);
    const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
    const deadlineMs = this.#options.clock.monotonicMs() + answerMs;
    // A pending request keeps an otherwise idle process alive, such as a verb.
    if (this.#pending.push({ kind: request.kind, deadlineMs, settle: resolve }) === 1) socket.ref();
    if (this.#disarm === undefined) this.#watch(answerMs);
    if (this.#dueBytes === 0) setImmediate(this.#send);
    this.#due.fill(0, this.#dueBytes, this.#dueBytes + requestBytes);
    writeRequest(request, this.#due, this.#dueBytes);
    this.#dueBytes += requestBytes;
    return promise;
  }

  readonly #send = (): void => {
    this.#socket?.write(Buffer.from(this.#due.subarray(0, this.#dueBytes)));
    this.#dueBytes = 0;
  };

  /** Closes the connection when its oldest request has timed out. */
  #watch(delayMs: number): void {
    this.#disarm = this.#options.clock.schedule(delayMs, () => {
      this.#disarm = undefined;
      const [oldest] = this.#pending;
      if (oldest === undefined) return;
      const leftMs = oldest.deadlineMs - this.#options.clock.monotonicMs();
      if (leftMs > 0) this.#watch(leftMs);
      else this.#socket?.destroy();
    });
  }

  /** @returns false for bytes without a request. */
  #take(answers: Buffer): boolean {
    for (let at = 0; at < answers.length; at += answerBytes) {
      const answer = readAnswer(answers, at);
      const first = this.#pending.shift();
      if (answer === undefined || answer.kind !== first?.kind) {
        first?.settle(undefined);
        return false;
      }
      if (answer.kind === 'status') this.#options.onReport(answer.report);
      first.settle(answer);
    }
    if (this.#pending.length === 0) this.#socket?.unref();
    return true;
  }

  #lose(): void {
    this.#socket = undefined;
    this.#dueBytes = 0;
    const pending = this.#pending;
    this.#pending = [];
    for (const { settle } of pending) settle(undefined);
    this.#options.onReport(undefined);
    if (this.#isClosed) return;
    this.#disarm?.();
    this.#disarm = this.#options.clock.schedule(reconnectMs, () => void this.report());
  }
}
