/** One connection at a time to the server: sends a request, reports the answer, reconnects. */
import { connect, type Socket } from 'node:net';
import { AnswerScan } from './answer-scan.ts';
import { AnswerCheck, type Verdict } from './answer-check.ts';
import type { Caller, LoadPlan } from './plan.ts';
import { RequestBytes } from './request.ts';

const readBytes = 16 * 1024;

export interface LaneEvents {
  /** @param dueAtMs the value passed to `send`. */
  readonly answered: (lane: Lane, dueAtMs: number, verdict: Verdict, status: number) => void;
  /** The request failed: no answer will arrive. */
  readonly failed: (lane: Lane, dueAtMs: number, why: string) => void;
}

export class Lane {
  readonly #plan: LoadPlan;
  readonly #caller: Caller;
  readonly #events: LaneEvents;
  readonly #check: AnswerCheck;
  readonly #scan = new AnswerScan();
  readonly #buffer = Buffer.allocUnsafe(readBytes);
  /** For each number of the target. */
  readonly #requests = new Map<number, RequestBytes>();
  #pending: Buffer | undefined;
  #socket: Socket | undefined;
  /**
   * The connection before this one. Its server closes it first, or the port of a caller with an address of
   * its own stays in use for a minute: with 10,000 such ports, the kernel's search for a free one more than
   * halved the rate, of the agent alone, since the controls' callers have no such address.
   */
  #before: Socket | undefined;
  #isOpen = false;
  #dueAtMs: number | undefined;
  #asked = 0;
  #number = 0;

  constructor(plan: LoadPlan, caller: Caller, events: LaneEvents) {
    this.#plan = plan;
    this.#caller = caller;
    this.#events = events;
    this.#check = new AnswerCheck(caller);
  }

  /** No request is in flight. */
  get isIdle(): boolean {
    return this.#dueAtMs === undefined;
  }

  /** Connects without sending a request. */
  open(): Promise<void> {
    const socket = this.#connect();
    return new Promise((resolve, reject) => {
      socket.once('connect', resolve).once('error', reject);
    });
  }

  /** Only while idle. */
  send(dueAtMs: number): void {
    this.#dueAtMs = dueAtMs;
    // A socket that is still connecting buffers writes.
    (this.#socket ?? this.#connect()).write(this.#nextRequest());
  }

  close(): void {
    this.#drop();
    this.#before?.destroy();
  }

  #nextRequest(): Buffer {
    const { target, from = 0, count = 1 } = this.#caller;
    this.#number = from + (this.#asked++ % count);
    let request = this.#requests.get(this.#number);
    if (request === undefined) {
      const { kind, style = 'sdk' } = this.#plan;
      const asked = target.replaceAll('{n}', String(this.#number));
      request = new RequestBytes(asked, style, kind === 'new' ? 'close' : 'keep-alive');
      this.#requests.set(this.#number, request);
    }
    return request.next();
  }

  #connect(): Socket {
    const { host, port } = this.#plan;
    const { sourceIp } = this.#caller;
    const socket = connect({
      host,
      port,
      noDelay: true,
      ...(sourceIp === undefined ? {} : { localAddress: sourceIp }),
      // One buffer for all reads, without an allocation per read.
      onread: {
        buffer: this.#buffer,
        callback: (length: number) => {
          if (this.#socket === socket) this.#take(length);
          return true;
        },
      },
    });
    this.#socket = socket;
    this.#pending = undefined;
    this.#isOpen = false;
    socket.on('connect', () => (this.#isOpen = true));
    socket.on('error', (error) => {
      this.#lost(socket, 'code' in error ? String(error.code) : error.message);
    });
    socket.on('close', () => {
      this.#lost(socket, this.#isOpen ? 'closed' : 'not connected');
    });
    return socket;
  }

  #take(length: number): void {
    const dueAtMs = this.#dueAtMs;
    if (dueAtMs === undefined) {
      this.#drop();
      return;
    }
    let bytes = this.#buffer;
    let size = length;
    if (this.#pending !== undefined) {
      bytes = Buffer.concat([this.#pending, this.#buffer.subarray(0, length)]);
      size = bytes.length;
    }
    if (!this.#isWhole(bytes, size)) {
      this.#pending = Buffer.from(bytes.subarray(0, size));
      return;
    }
    this.#pending = undefined;
    const verdict = this.#check.check(bytes, this.#scan, this.#number);
    if (this.#plan.kind === 'new') this.#leave();
    this.#dueAtMs = undefined;
    this.#events.answered(this, dueAtMs, verdict, this.#scan.status);
  }

  /** Unparsable bytes count as a complete, wrong answer. */
  #isWhole(bytes: Buffer, size: number): boolean {
    try {
      return this.#scan.scan(bytes, size);
    } catch {
      this.#scan.status = 0;
      return true;
    }
  }

  #lost(socket: Socket, why: string): void {
    if (this.#socket !== socket) return;
    this.#drop();
    const dueAtMs = this.#dueAtMs;
    this.#dueAtMs = undefined;
    if (dueAtMs !== undefined) this.#events.failed(this, dueAtMs, why);
  }

  /** The next connection is for the next request. */
  #leave(): void {
    this.#before?.destroy();
    this.#before = this.#socket;
    this.#socket = undefined;
  }

  #drop(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.destroy();
  }
}
