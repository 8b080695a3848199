/**
 * Collects the answers of one turn of the event loop and writes them at its end.
 *
 * A write wakes the client, which is a call to another core; the client reads within microseconds,
 * sleeps, and the next write has to wake it again. Of answers written together, all but the first
 * find it awake. This cut the CPU time of a cached token by 16 and 17 % with 16 and 64 connections
 * (loopback, client on another core, Node 26.10, November 2026). No answer waits for requests that
 * have not arrived: the turn ends when all that the kernel had ready is read.
 *
 * A single answer would only be delayed, by 3 to 5 % of its time. So answers are written at once
 * while turns bring one answer each, which is measured now and then.
 */
const lookEvery = 16;
/** Smoothing factor of the moving average. */
const weight = 1 / 8;
const severalFrom = 1.25;

export class WriteBatch {
  #due: (() => void)[] = [];
  /** Answers per turn, on average. */
  #usual = 1;
  #isLooking = false;
  #notLookedAt = 0;

  /** @param write is called now or at the end of this turn; it must not throw. */
  add(write: () => void): void {
    if (this.#usual >= severalFrom || this.#isLooking) {
      if (this.#due.push(write) === 1) setImmediate(this.#writeDue);
      return;
    }
    write();
    // Measures from the next turn on, so that the whole turn is counted.
    if (++this.#notLookedAt === lookEvery) setImmediate(this.#look);
  }

  readonly #look = (): void => {
    this.#notLookedAt = 0;
    this.#isLooking = true;
  };

  readonly #writeDue = (): void => {
    const due = this.#due;
    this.#due = [];
    this.#isLooking = false;
    this.#usual += (due.length - this.#usual) * weight;
    for (const write of due) write();
  };
}
