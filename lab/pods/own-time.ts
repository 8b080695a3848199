/**
 * Time that passes only while this process runs when it is due: what a busy machine makes it wait
 * beyond that is not counted, work that blocks this process is. On a machine without other load it
 * is the time that passes.
 */
export class OwnTime {
  #ms = 0;
  #atMs = performance.now();
  #usedMs = processorMs();
  #mostMs = mostMs;
  readonly #ticks = setInterval(() => this.nowMs(), tickMs).unref();

  /** Milliseconds since its start. */
  nowMs(): number {
    const [atMs, usedMs] = [performance.now(), processorMs()];
    this.#ms += Math.min(atMs - this.#atMs, this.#mostMs + usedMs - this.#usedMs);
    this.#atMs = atMs;
    this.#usedMs = usedMs;
    return this.#ms;
  }

  /** Calls `run` when `ms` more of it have passed. @returns how to cancel that. */
  after(ms: number, run: () => void): () => void {
    const endMs = this.nowMs() + ms;
    const check = (): void => {
      const restMs = endMs - this.nowMs();
      if (restMs > 0) timer = setTimeout(check, restMs);
      else run();
    };
    let timer = setTimeout(check, ms);
    return () => {
      clearTimeout(timer);
    };
  }

  /** From now on it is the time that passes. */
  [Symbol.dispose](): void {
    this.#mostMs = Infinity;
    clearInterval(this.#ticks);
  }
}

const tickMs = 10;
/** A tick may be this late without other load. */
const mostMs = 2 * tickMs;

/** Of this thread. */
function processorMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}
