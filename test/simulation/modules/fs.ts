/** In place of node:fs. */
import { currentProcess } from '../machine.ts';

export function closeSync(descriptor: number): void {
  currentProcess().close(descriptor);
}
