/**
 * Many deadlines on one timer, which is armed for the soonest. Removing that deadline does not
 * rearm the timer: a needless firing costs less than rearming at every removal.
 */
import type { Clock } from './clock.ts';
import { DeadlineHeap, type Deadline } from './deadline-heap.ts';

export interface QueuedTimer extends Deadline {
  /** Called at the deadline, after its removal from the heap. */
  fire(): void;
}

/** A `setTimeout` beyond 2^31 ms fires at once, and a token may live for years. */
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

  /** @param delayMs from now; replaces an earlier deadline of the same timer. */
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
