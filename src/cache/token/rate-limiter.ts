/**
 * How much may be asked of one upstream: so many at once and so many in any second. Callers go
 * before background work, pod by pod in turn (see `fair-queue.ts`); background work goes in the
 * order it came. Pure; at most one timer.
 *
 * The rate is a window and not a bucket of tokens: a full bucket would let its own size through on
 * top of a second's refill, and the limit of the upstream is on what it sees within a second.
 */
import type { Clock } from '../clock.ts';
import { FairQueue, type Party } from './fair-queue.ts';

export interface Task {
  /** Its turn has come: within `enter`, or later. Ends with `leave`; must not throw. */
  start(): void;
}

export interface RateLimiterOptions {
  readonly clock: Clock;
  readonly maxConcurrent: number;
  /** Starts within any 1,000 ms. */
  readonly maxPerSec: number;
  /** For callers and for background work alike: neither takes the place of the other. */
  readonly maxQueued: number;
}

const windowMs = 1_000;

export class RateLimiter implements Disposable {
  readonly #clock: Clock;
  readonly #maxConcurrent: number;
  readonly #maxQueued: number;
  readonly #running = new Set<Task>();
  readonly #callers = new FairQueue<Task>();
  readonly #background = new Set<Task>();
  /** A ring of the latest starts; the cursor is at the oldest. */
  readonly #startsAtMs: Float64Array;
  #cursor = 0;
  #disarm: (() => void) | undefined;
  #isDisposed = false;

  constructor(options: RateLimiterOptions) {
    this.#clock = options.clock;
    this.#maxConcurrent = options.maxConcurrent;
    this.#maxQueued = options.maxQueued;
    this.#startsAtMs = new Float64Array(options.maxPerSec).fill(-Infinity);
  }

  get running(): number {
    return this.#running.size;
  }

  get queued(): number {
    return this.#callers.size + this.#background.size;
  }

  /**
   * Starts `task` now or when its turn comes. False, and nothing else, when too many wait.
   *
   * @param party that waits for it; undefined for background work.
   */
  enter(task: Task, party: Party | undefined): boolean {
    if (this.#isDisposed) return false;
    const queue = party === undefined ? this.#background : this.#callers;
    if (queue.size >= this.#maxQueued) return false;
    if (party === undefined) this.#background.add(task);
    else this.#callers.add(task, party);
    this.#admit();
    return true;
  }

  /** `party` waits for it too: if it has not started, it starts at the turn of that party at the latest. */
  hurry(task: Task, party: Party): void {
    if (this.#background.delete(task) || this.#callers.has(task)) {
      this.#callers.add(task, party);
    }
  }

  /** Gives back the slot, or the place in the queue of one that has not started. */
  leave(task: Task): void {
    this.#callers.delete(task);
    this.#background.delete(task);
    // Leaving the queue is no reason to start another: its own turn comes by slot or timer.
    if (this.#running.delete(task) || this.queued === 0) this.#admit();
  }

  /**
   * Room for one more try of an task that runs: it counts as a start. False when others wait or
   * the second is spent.
   */
  takeTry(): boolean {
    if (this.#isDisposed || this.queued > 0 || this.#waitMs() > 0) return false;
    this.#noteStart();
    return true;
  }

  /** Whoever waits will not start any more. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#callers.clear();
    this.#background.clear();
    this.#stopTimer();
  }

  #admit(): void {
    while (this.#running.size < this.#maxConcurrent) {
      if (this.queued === 0) {
        this.#stopTimer();
        return;
      }
      const waitMs = this.#waitMs();
      if (waitMs > 0) {
        this.#admitIn(waitMs);
        return;
      }
      const task = this.#callers.shift() ?? firstOf(this.#background);
      if (task === undefined) return;
      this.#background.delete(task);
      this.#running.add(task);
      this.#noteStart();
      task.start();
    }
  }

  #noteStart(): void {
    this.#startsAtMs[this.#cursor] = this.#clock.monotonicMs();
    this.#cursor = (this.#cursor + 1) % this.#startsAtMs.length;
  }

  /** Until the oldest of the latest starts is out of the window. */
  #waitMs(): number {
    const oldestAtMs = this.#startsAtMs[this.#cursor] ?? -Infinity;
    return oldestAtMs + windowMs - this.#clock.monotonicMs();
  }

  #admitIn(waitMs: number): void {
    this.#disarm ??= this.#clock.schedule(waitMs, () => {
      this.#disarm = undefined;
      this.#admit();
    });
  }

  #stopTimer(): void {
    this.#disarm?.();
    this.#disarm = undefined;
  }
}

function firstOf(queue: ReadonlySet<Task>): Task | undefined {
  for (const task of queue) return task;
  return undefined;
}
