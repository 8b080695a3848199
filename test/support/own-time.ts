/**
 * Time that passes only while this process runs when it is due: what a busy machine makes it wait
 * beyond that is not counted. On a machine without other load it is the time that passes.
 * It measures waits for timers and peers, not work that blocks this process.
 */
export class OwnTime {
  #ms = 0;
  #atMs = performance.now();
  readonly #ticks = setInterval(() => this.nowMs(), tickMs);

  /** Milliseconds since its start. */
  nowMs(): number {
    const atMs = performance.now();
    this.#ms += Math.min(atMs - this.#atMs, mostMs);
    this.#atMs = atMs;
    return this.#ms;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#ticks);
  }
}

const tickMs = 10;
/** A tick may be this late without other load. */
const mostMs = 2 * tickMs;
