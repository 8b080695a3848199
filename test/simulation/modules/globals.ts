/** In place of globals, which the loader imports where a file uses them. */
import { currentProcess } from '../machine.ts';

export const performance = { now: (): number => currentProcess().machine.scheduler.nowMs };

const seeded = Object.create(globalThis.Math, {
  random: { value: () => currentProcess().machine.scheduler.random() },
}) as typeof globalThis.Math;
export { seeded as Math };

interface Timer {
  readonly cancel: () => void;
  unref(): Timer;
  ref(): Timer;
}

function timerOf(start: (set: (cancel: () => void) => void) => void): Timer {
  let cancelNow = (): void => undefined;
  start((cancel) => (cancelNow = cancel));
  const timer: Timer = { cancel: () => cancelNow(), unref: () => timer, ref: () => timer };
  return timer;
}

export function setTimeout(work: () => void, ms = 0): Timer {
  const owner = currentProcess();
  return timerOf((set) => set(owner.after(ms, 'timeout', work)));
}

export function setInterval(work: () => void, ms = 0): Timer {
  const owner = currentProcess();
  return timerOf((set) => {
    const again = (): void => {
      set(
        owner.after(ms, 'interval', () => {
          again();
          work();
        }),
      );
    };
    again();
  });
}

export function setImmediate(work: () => void): Timer {
  const owner = currentProcess();
  return timerOf((set) => set(owner.soon('immediate', work)));
}

const cancel = (timer: Timer | undefined): void => timer?.cancel();
export { cancel as clearTimeout, cancel as clearInterval, cancel as clearImmediate };

/** With a timeout by the clock of the run. */
export const AbortSignal = {
  any: (signals: Iterable<globalThis.AbortSignal>) => globalThis.AbortSignal.any([...signals]),
  timeout: (ms: number): globalThis.AbortSignal => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new DOMException('timed out', 'TimeoutError')), ms);
    return controller.signal;
  },
};
