/** In place of node:crypto: what is random comes from the seed. */
import { currentProcess } from '../machine.ts';

export * from 'node:crypto';

export function randomBytes(size: number): Buffer {
  const { random } = currentProcess().machine.scheduler;
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += 1) bytes[at] = random() * 256;
  return bytes;
}

export function randomUUID(): string {
  const hex = randomBytes(16).toString('hex');
  const parts = [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`];
  return [...parts, `8${hex.slice(17, 20)}`, hex.slice(20)].join('-');
}
