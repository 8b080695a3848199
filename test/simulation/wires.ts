/** TCP between simulated machines: bytes arrive late but in order; a cut network delivers them later. */
import type { LocalEnd } from './local-sockets.ts';
import type { Process, TcpListener } from './machine.ts';
import type { Scheduler } from './scheduler.ts';

export interface Address {
  readonly ip: string;
  readonly port: number;
}

export type Arrival = Buffer | 'end' | 'reset';

/** One end of a stream, below a socket of Node's form. */
export interface Wire {
  readonly local: Address | undefined;
  readonly remote: Address | undefined;
  /** Something can be received. */
  onArrival: (() => void) | undefined;
  send(bytes: Buffer): void;
  end(): void;
  close(resets: boolean): void;
  receive(): Arrival | undefined;
}

/** Between two addresses. */
export interface Path {
  /** How long a packet takes; infinite if it is lost, and what follows it, too. */
  delayMs(): number;
  /** In how many packets the same bytes are sent. */
  packets(): number;
}

interface Message {
  readonly atMs: number;
  readonly arrival: Arrival;
}

export class TcpEnd implements Wire {
  readonly local: Address;
  readonly remote: Address;
  onArrival: (() => void) | undefined;
  /** Whose code receives. */
  owner: Process | undefined;
  readonly #scheduler: Scheduler;
  readonly #path: Path;
  #peer: TcpEnd | undefined;
  readonly #inbox: Message[] = [];
  #lastMs = 0;
  #isEnded = false;
  isClosed = false;
  onClosed: (() => void) | undefined;

  private constructor(scheduler: Scheduler, path: Path, local: Address, remote: Address) {
    this.#scheduler = scheduler;
    this.#path = path;
    this.local = local;
    this.remote = remote;
  }

  static pair(
    scheduler: Scheduler,
    path: Path,
    from: Address,
    to: Address,
  ): readonly [TcpEnd, TcpEnd] {
    const near = new TcpEnd(scheduler, path, from, to);
    const far = new TcpEnd(scheduler, path, to, from);
    near.#peer = far;
    far.#peer = near;
    return [near, far];
  }

  send(bytes: Buffer): void {
    if (this.isClosed || this.#isEnded) return;
    const count = this.#path.packets();
    const size = Math.max(1, Math.ceil(bytes.length / count));
    for (let at = 0; at < bytes.length; at += size) this.#toPeer(bytes.subarray(at, at + size));
  }

  end(): void {
    if (this.isClosed || this.#isEnded) return;
    this.#isEnded = true;
    this.#toPeer('end');
  }

  close(resets: boolean): void {
    if (this.isClosed) return;
    const hasUnread = this.#inbox.some(({ arrival }) => arrival !== 'end');
    if (resets || hasUnread) this.#toPeer('reset');
    else this.end();
    this.isClosed = true;
    this.onArrival = undefined;
    this.#inbox.length = 0;
    this.onClosed?.();
  }

  receive(): Arrival | undefined {
    const [first] = this.#inbox;
    if (first === undefined || first.atMs > this.#scheduler.nowMs) return undefined;
    this.#inbox.shift();
    return first.arrival;
  }

  #toPeer(arrival: Arrival): void {
    if (this.#peer !== undefined) this.#peer.#arrive(arrival);
  }

  #arrive(arrival: Arrival): void {
    if (this.isClosed) {
      // The kernel answers bytes to a closed socket with a reset.
      if (typeof arrival === 'object' && this.#peer?.isClosed === false)
        this.#peer.#arrive('reset');
      return;
    }
    const { nowMs } = this.#scheduler;
    this.#lastMs = Math.max(this.#lastMs, nowMs + this.#path.delayMs());
    if (this.#lastMs === Infinity) return;
    this.#inbox.push({ atMs: this.#lastMs, arrival });
    this.#scheduler.schedule(this.#lastMs - nowMs, this.owner, 'packet', () => this.onArrival?.());
  }
}

/** A stream over a Unix socket. */
export class LocalWire implements Wire {
  readonly local = undefined;
  readonly remote = undefined;
  readonly #end: LocalEnd;
  readonly #close: () => void;
  #isOver = false;

  constructor(end: LocalEnd, close: () => void) {
    this.#end = end;
    this.#close = close;
  }

  set onArrival(work: (() => void) | undefined) {
    this.#end.onChange = work;
  }

  send(bytes: Buffer): void {
    this.#end.write(bytes);
  }

  end(): void {
    // Nobody here half-closes a Unix socket.
  }

  close(): void {
    this.#end.onChange = undefined;
    this.#close();
  }

  receive(): Arrival | undefined {
    if (this.#isOver) return undefined;
    const read = this.#end.read();
    if (read === 'open') return undefined;
    if (typeof read === 'object') return read;
    this.#isOver = true;
    return read === 'reset' ? 'reset' : 'end';
  }
}

/** The kernel answers the SYN if somebody listens; the connection waits until a process accepts it. */
export function arriveAt(listener: TcpListener, end: TcpEnd): boolean {
  listener.waiting.push(end);
  for (const accept of listener.acceptors) accept();
  return true;
}
