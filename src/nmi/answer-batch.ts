/**
 * Answers of one turn of the event loop, written one behind the other at its end.
 *
 * A write wakes the client, which is a call to another core; the client reads within microseconds,
 * sleeps, and has to be woken again by the next. Of answers that come together all but the first find it
 * awake. With 16 and 64 connections a cached token cost 16 and 17 % less CPU time so, with one the same
 * (loopback, client on another core, Node 26.10, November 2026). Nothing waits for what is not there
 * yet: the end of the turn is when all that the kernel had ready is read.
 */
export class AnswerBatch {
  #writes: (() => void)[] = [];

  /** @param write is called at the end of this turn; it must not throw. */
  add(write: () => void): void {
    if (this.#writes.push(write) === 1) setImmediate(this.#writeAll);
  }

  readonly #writeAll = (): void => {
    const writes = this.#writes;
    this.#writes = [];
    for (const write of writes) write();
  };
}
