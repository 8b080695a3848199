/**
 * Time as a parameter. Wall time is compared with time stamps from outside (token expiry, object
 * creation); monotonic time measures durations. Tests set both.
 */
export interface Clock {
  /** Milliseconds since the epoch; may jump either way. */
  wallMs(): number;
  /** Milliseconds since an arbitrary origin; never goes back. */
  monotonicMs(): number;
  /**
   * Runs `work` once after `delayMs`; the returned function disarms it. Never keeps the process
   * alive.
   */
  schedule(delayMs: number, work: () => void): () => void;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  schedule: (delayMs, work) => {
    const timer = setTimeout(work, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** Like the clock's timers, it does not keep the process alive. */
export function sleep(clock: Pick<Clock, 'schedule'>, ms: number): Promise<void> {
  return new Promise((resolve) => {
    clock.schedule(ms, resolve);
  });
}
