/**
 * Bounds the requests to one upstream: at once, and within any second. Callers go before background
 * work, pod by pod in turn (see `fair-queue.ts`); background work runs in order of arrival. Pure;
 * at most one timer.
 *
 * The rate is a sliding window and not a token bucket: a full bucket would let its size through in
 * addition to a second's refill, but the upstream limits the requests within one second. A request reaches
 * the upstream at any time between its start and its end, so its second begins at its end.
 */
import type { Clock } from './time/clock.ts';
import { FairQueue, type Party } from './fair-queue.ts';

export interface Task {
  /**
   * Called at the task's turn, within `enter` or later. The task ends with `leave`. Must not throw.
   */
  start(): void;
}

export interface RateLimiterOptions {
  readonly clock: Clock;
  readonly maxConcurrent: number;
  /** Most requests that reach the upstream within any 1,000 ms. */
  readonly maxPerSec: number;
  /** Most queued tasks of callers; the same number again for background work. */
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
  /** Ring buffer of the latest ends; the cursor is at the oldest. */
  readonly #endsAtMs: Float64Array;
  #cursor = 0;
  #disarm: (() => void) | undefined;
  #isDisposed = false;

  constructor(options: RateLimiterOptions) {
    this.#clock = options.clock;
    this.#maxConcurrent = Math.min(options.maxConcurrent, options.maxPerSec);
    this.#maxQueued = options.maxQueued;
    this.#endsAtMs = new Float64Array(options.maxPerSec).fill(-Infinity);
  }

  get running(): number {
    return this.#running.size;
  }

  get queued(): number {
    return this.#callers.size + this.#background.size;
  }

  /**
   * Starts `task` now or queues it. Returns false if the queue is full.
   *
   * @param party the pod that waits for it; undefined for background work.
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

  /** `party` waits for it too: a queued task starts no later than at the turn of that pod. */
  hurry(task: Task, party: Party): void {
    if (this.#background.delete(task) || this.#callers.has(task)) {
      this.#callers.add(task, party);
    }
  }

  /** Releases the slot of a running task, or removes a queued one. */
  leave(task: Task): void {
    this.#callers.delete(task);
    this.#background.delete(task);
    const wasRunning = this.#running.delete(task);
    if (wasRunning) this.#noteEnd();
    // Removing a queued task frees no slot; the other tasks start by slot or timer.
    if (wasRunning || this.queued === 0) this.#admit();
  }

  /**
   * Lets a running task, whose first request has ended, send another one. Returns false if other tasks wait
   * or no request is left within this second.
   */
  takeTry(): boolean {
    if (this.#isDisposed || this.queued > 0 || this.#waitMs() > 0) return false;
    this.#noteEnd();
    return true;
  }

  /** Queued tasks never start. */
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
      task.start();
    }
  }

  #noteEnd(): void {
    this.#endsAtMs[this.#cursor] = this.#clock.monotonicMs();
    this.#cursor = (this.#cursor + 1) % this.#endsAtMs.length;
  }

  /** Milliseconds until enough ends have left the window for one more request beside the running ones. */
  #waitMs(): number {
    const { length } = this.#endsAtMs;
    const endMs = this.#endsAtMs[(this.#cursor + this.#running.size) % length] ?? -Infinity;
    return endMs + windowMs - this.#clock.monotonicMs();
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
