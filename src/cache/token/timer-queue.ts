/**
 * Many deadlines on one timer. The timer is armed for the soonest only; one that was taken out
 * meanwhile makes it fire for nothing, which costs less than arming it anew every time.
 */
import type { Clock } from '../clock.ts';
import { DeadlineHeap, type Deadline } from './deadline-heap.ts';

export interface QueuedTimer extends Deadline {
  /** Its time has come and it is out of the heap. */
  fire(): void;
}

/** Timers of the platform overflow beyond 2^31 ms and fire at once; a token may live for years. */
const longestArmMs = 24 * 3_600_000;

export class TimerQueue implements Disposable {
  readonly #clock: Clock;
  readonly #heap = new DeadlineHeap<QueuedTimer>();
  #disarm: (() => void) | undefined;
  /** Monotonic milliseconds; Infinity while nothing is armed. */
  #armedForMs = Infinity;
  #isDisposed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#heap.size;
  }

  /** @param delayMs from now; replaces an earlier setting of the same timer. */
  set(timer: QueuedTimer, delayMs: number): void {
    if (this.#isDisposed) return;
    this.#heap.set(timer, this.#clock.monotonicMs() + Math.max(0, delayMs));
    this.#arm();
  }

  clear(timer: QueuedTimer): void {
    this.#heap.delete(timer);
    if (this.#heap.size === 0) this.#stop();
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#heap.clear();
    this.#stop();
  }

  #arm(): void {
    const { first } = this.#heap;
    if (first === undefined || first.dueAtMs >= this.#armedForMs) return;
    this.#stop();
    const nowMs = this.#clock.monotonicMs();
    const delayMs = Math.min(longestArmMs, Math.max(0, first.dueAtMs - nowMs));
    this.#armedForMs = nowMs + delayMs;
    this.#disarm = this.#clock.schedule(delayMs, () => this.#fireDue());
  }

  #fireDue(): void {
    this.#disarm = undefined;
    this.#armedForMs = Infinity;
    const nowMs = this.#clock.monotonicMs();
    try {
      for (;;) {
        const { first } = this.#heap;
        if (first === undefined || first.dueAtMs > nowMs) break;
        this.#heap.delete(first);
        first.fire();
      }
    } finally {
      this.#arm();
    }
  }

  #stop(): void {
    this.#disarm?.();
    this.#disarm = undefined;
    this.#armedForMs = Infinity;
  }
}
