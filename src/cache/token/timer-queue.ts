/**
 * Many deadlines on one timer. The timer is armed for the soonest only; one that was taken out
 * meanwhile makes it fire for nothing, which costs less than arming it anew every time.
 */
import type { Clock } from '../clock.ts';
import { DeadlineHeap, type Deadline } from './deadline-heap.ts';

export interface Alarm extends Deadline {
  /** Its time has come and it is out of the heap. */
  ring(): void;
}

/** Timers of the platform overflow beyond 2^31 ms and fire at once; a token may live for years. */
const longestArmMs = 24 * 3_600_000;

export class Alarms implements Disposable {
  readonly #clock: Clock;
  readonly #heap = new DeadlineHeap<Alarm>();
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

  /** @param delayMs from now; replaces an earlier setting of the same alarm. */
  set(alarm: Alarm, delayMs: number): void {
    if (this.#isDisposed) return;
    this.#heap.set(alarm, this.#clock.monotonicMs() + Math.max(0, delayMs));
    this.#arm();
  }

  clear(alarm: Alarm): void {
    this.#heap.delete(alarm);
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
    this.#disarm = this.#clock.schedule(delayMs, () => this.#fire());
  }

  #fire(): void {
    this.#disarm = undefined;
    this.#armedForMs = Infinity;
    const nowMs = this.#clock.monotonicMs();
    try {
      for (;;) {
        const { first } = this.#heap;
        if (first === undefined || first.dueAtMs > nowMs) break;
        this.#heap.delete(first);
        first.ring();
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
