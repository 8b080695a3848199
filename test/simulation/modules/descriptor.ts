/** In place of src/nmi/base/descriptor.ts. */
import type { Socket } from 'node:net';
import { currentKernel } from '../kernel.ts';

export function descriptorOf({ remoteAddress = '', remotePort }: Socket): number | undefined {
  return remotePort && currentKernel().descriptorOf(`${remoteAddress}:${remotePort}`);
}
