/**
 * A deadline that can be moved, combined with the caller's signal. It adds one listener to that
 * signal and removes it: `AbortSignal.any` on a signal that lives as long as the process keeps
 * every derived signal reachable.
 */
import type { Clock } from './clock.ts';

export interface Deadline extends Disposable {
  /** Aborts when the deadline passes or the caller's signal aborts. */
  readonly signal: AbortSignal;
  /** True if the deadline passed; false if the caller's signal aborted. */
  readonly passed: boolean;
  /** Sets the deadline to `ms` from now. */
  restart(ms: number): void;
}

export function openDeadline(clock: Clock, ms: number, caller?: AbortSignal): Deadline {
  const controller = new AbortController();
  let passed = false;
  let disarm = arm(ms);

  function arm(delayMs: number): () => void {
    return clock.schedule(delayMs, () => {
      passed = true;
      controller.abort();
    });
  }
  function follow(): void {
    controller.abort(caller?.reason);
  }
  if (caller?.aborted === true) follow();
  else caller?.addEventListener('abort', follow);

  return {
    signal: controller.signal,
    get passed() {
      return passed;
    },
    restart(delayMs) {
      disarm();
      disarm = arm(delayMs);
    },
    [Symbol.dispose]() {
      disarm();
      caller?.removeEventListener('abort', follow);
    },
  };
}

/** The result of `work`; rejects with the signal's reason if it aborts before. */
export async function untilAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort);
  try {
    return await Promise.race([promise, work]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** Waits `delayMs`, or until the signal aborts; never rejects. */
export async function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const wake = (): void => resolve(undefined);
  const disarm = clock.schedule(delayMs, wake);
  signal.addEventListener('abort', wake);
  await promise;
  disarm();
  signal.removeEventListener('abort', wake);
}
