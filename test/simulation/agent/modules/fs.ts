/** In place of node:fs: descriptors are those of the simulated process. */
import { currentProcess } from '../../machine.ts';

export * from 'node:fs';

export function closeSync(descriptor: number): void {
  currentProcess().close(descriptor);
}
