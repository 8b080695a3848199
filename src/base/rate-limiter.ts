/**
 * Bounds the requests to one upstream: at once, and within any second. Callers go before background
 * work, pod by pod in turn (see `fair-queue.ts`); background work runs in order of arrival. Pure;
 * at most one timer.
 *
 * One pod gets only a part of the limits, so that something is left for the first requests of others:
 * a pod that asks for new tokens without end made each token of others wait for the next second (p50
 * 11 ms → 250 ms).
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
/** The part of both limits that one pod may use. */
const shareOfPod = 0.85;
/** Most queued tasks of one pod while half of the queue is full: room for the 250 pods of a node. */
const queuedWhenShort = 10;

interface End {
  readonly atMs: number;
  readonly party: Party | undefined;
}

const never: End = { atMs: -Infinity, party: undefined };

export class RateLimiter implements Disposable {
  readonly #clock: Clock;
  readonly #maxConcurrent: number;
  readonly #maxQueued: number;
  readonly #running = new Map<Task, Party | undefined>();
  readonly #callers = new FairQueue<Task>();
  readonly #background = new Set<Task>();
  /** Ring buffer of the latest ends; the cursor is at the oldest. */
  readonly #ends: End[];
  #cursor = 0;
  #disarm: (() => void) | undefined;
  #isDisposed = false;

  constructor(options: RateLimiterOptions) {
    this.#clock = options.clock;
    this.#maxConcurrent = Math.min(options.maxConcurrent, options.maxPerSec);
    this.#maxQueued = options.maxQueued;
    this.#ends = Array.from({ length: options.maxPerSec }, () => never);
  }

  get running(): number {
    return this.#running.size;
  }

  get queued(): number {
    return this.#callers.size + this.#background.size;
  }

  /**
   * Starts `task` now or queues it. Returns false if the queue is full, or half full and the pod has
   * its share: callers may have left, and pods that abandon tasks must not use up the queue.
   *
   * @param party the pod that waits for it; undefined for background work.
   */
  enter(task: Task, party: Party | undefined): boolean {
    if (this.#isDisposed) return false;
    const queue = party === undefined ? this.#background : this.#callers;
    if (queue.size >= this.#maxQueued) return false;
    const isShort = 2 * queue.size >= this.#maxQueued;
    if (party === undefined) this.#background.add(task);
    else if (isShort && this.#callers.sizeOf(party) >= queuedWhenShort) return false;
    else this.#callers.add(task, party);
    this.#admit();
    return true;
  }

  /** `party` waits for it too: a queued task starts no later than at the turn of that pod. */
  hurry(task: Task, party: Party): void {
    if (!this.#background.delete(task) && !this.#callers.has(task)) return;
    this.#callers.add(task, party);
    // The others that wait for it may have had their share.
    this.#admit();
  }

  /** Releases the slot of a running task, or removes a queued one. */
  leave(task: Task): void {
    this.#callers.delete(task);
    this.#background.delete(task);
    const party = this.#running.get(task);
    const wasRunning = this.#running.delete(task);
    if (wasRunning) this.#noteEnd(party);
    // Removing a queued task frees no slot; the other tasks start by slot or timer.
    if (wasRunning || this.queued === 0) this.#admit();
  }

  /**
   * Lets a running task, whose first request has ended, send another one. Returns false if other tasks wait
   * or no request is left within this second.
   */
  takeTry(): boolean {
    if (this.#isDisposed || this.queued > 0 || this.#waitMs() > 0) return false;
    this.#noteEnd(undefined);
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
      const turn = this.#callers.take(this.#withinShare());
      const task = turn?.entry ?? firstOf(this.#background);
      if (task === undefined) {
        // All that wait have had their share: the next end that leaves the window may be theirs.
        const [oldest] = this.#recentEnds();
        if (oldest !== undefined) this.#admitIn(this.#leavesInMs(oldest));
        return;
      }
      this.#background.delete(task);
      this.#running.set(task, turn?.party);
      task.start();
    }
  }

  #noteEnd(party: Party | undefined): void {
    this.#ends[this.#cursor] = { atMs: this.#clock.monotonicMs(), party };
    this.#cursor = (this.#cursor + 1) % this.#ends.length;
  }

  /** Whether one more request of a party stays within its share of both limits. */
  #withinShare(): (party: Party) => boolean {
    const running = [...this.#running.values()];
    const within = [...running, ...this.#recentEnds().map(({ party }) => party)];
    const limits = [
      [running, this.#maxConcurrent],
      [within, this.#ends.length],
    ] as const;
    return ({ pod }) =>
      limits.every(([used, max]) => {
        const own = used.filter((party) => party?.pod === pod);
        return own.length < Math.round(max * shareOfPod);
      });
  }

  /** The ends within the window, the oldest first. */
  #recentEnds(): readonly End[] {
    const ends = [...this.#ends.slice(this.#cursor), ...this.#ends.slice(0, this.#cursor)];
    return ends.filter((end) => this.#leavesInMs(end) > 0);
  }

  #leavesInMs({ atMs }: End): number {
    return atMs + windowMs - this.#clock.monotonicMs();
  }

  /** Milliseconds until enough ends have left the window for one more request beside the running ones. */
  #waitMs(): number {
    const { length } = this.#ends;
    return this.#leavesInMs(this.#ends[(this.#cursor + this.#running.size) % length] ?? never);
  }

  #admitIn(waitMs: number): void {
    // Whole milliseconds: the rest of a rounded sum may be too small to move the clock.
    this.#disarm ??= this.#clock.schedule(Math.ceil(waitMs), () => {
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
