/** In place of node:crypto. */
import { currentProcess } from '../machine.ts';

export function randomBytes(size: number): Buffer {
  const { random } = currentProcess().machine.scheduler;
  return Buffer.from(Array.from({ length: size }, () => Math.floor(random() * 256)));
}
