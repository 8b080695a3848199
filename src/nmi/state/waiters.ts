/**
 * Requests that wait for an object which the watches have not delivered yet. A change wakes all
 * waiters; a timer only ends the wait.
 */
import type { Clock } from '../../base/time/clock.ts';

export interface WaitersOptions {
  readonly clock: Clock;
  /**
   * Beyond this limit a request is answered at once, so that waiting requests cannot exhaust
   * memory.
   */
  readonly maxWaiters: number;
  /** Called when a request begins to wait. */
  readonly onWait?: () => void;
}

export class Waiters {
  readonly #options: WaitersOptions;
  #waiters = new Set<() => void>();

  constructor(options: WaitersOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#waiters.size;
  }

  get isFull(): boolean {
    return this.#waiters.size >= this.#options.maxWaiters;
  }

  wake(): void {
    const waiters = this.#waiters;
    this.#waiters = new Set();
    for (const waiter of waiters) waiter();
  }

  /** Resolves at the next change or after `maxMs`, whichever is first. */
  nextChange(maxMs: number): Promise<void> {
    this.#options.onWait?.();
    return new Promise((resolve) => {
      const finish = () => {
        disarm();
        this.#waiters.delete(finish);
        resolve();
      };
      const disarm = this.#options.clock.schedule(maxMs, finish);
      this.#waiters.add(finish);
    });
  }
}
