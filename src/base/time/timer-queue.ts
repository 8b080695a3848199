/** Timers that can be moved and cleared, and that end together. */
import type { Clock } from './clock.ts';

/** Only the queue writes the first two fields. */
export interface QueuedTimer {
  /** Monotonic milliseconds. */
  dueAtMs: number;
  /** Set while the timer runs. */
  disarm: (() => void) | undefined;
  /** Called at the deadline, when the timer has left the queue. */
  fire(): void;
}

/** A `setTimeout` beyond 2^31 ms fires at once, and a token may live for years. */
const longestArmMs = 24 * 3_600_000;

export class TimerQueue implements Disposable {
  readonly #clock: Clock;
  readonly #running = new Set<QueuedTimer>();
  #isDisposed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param delayMs from now; replaces an earlier deadline of the same timer. */
  set(timer: QueuedTimer, delayMs: number): void {
    if (this.#isDisposed) return;
    this.clear(timer);
    this.#running.add(timer);
    timer.dueAtMs = this.#clock.monotonicMs() + Math.max(0, delayMs);
    this.#arm(timer);
  }

  clear(timer: QueuedTimer): void {
    timer.disarm?.();
    timer.disarm = undefined;
    this.#running.delete(timer);
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    for (const timer of this.#running) this.clear(timer);
  }

  #arm(timer: QueuedTimer): void {
    // Node warns of a negative delay; a deadline of now may have passed meanwhile.
    const leftMs = Math.max(0, timer.dueAtMs - this.#clock.monotonicMs());
    timer.disarm = this.#clock.schedule(Math.min(longestArmMs, leftMs), () => {
      if (timer.dueAtMs > this.#clock.monotonicMs()) {
        this.#arm(timer);
        return;
      }
      this.clear(timer);
      timer.fire();
    });
  }
}
