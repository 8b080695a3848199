/** In place of node:timers/promises. */
import { currentProcess } from '../machine.ts';

export function setTimeout(ms: number, value?: unknown): Promise<unknown> {
  const owner = currentProcess();
  return new Promise((resolve) => {
    owner.after(ms, 'timer', () => resolve(value));
  });
}

export function setImmediate(value?: unknown): Promise<unknown> {
  return setTimeout(0, value);
}
