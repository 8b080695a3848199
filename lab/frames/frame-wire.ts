/** Frames of one interface of this network namespace. */
import { closeSync, readSync, writeSync } from 'node:fs';
import { inKernel } from '../../src/redirect/native/addon.ts';
import type { Wire } from './forged-request.ts';
import { readSegment, renderSegment } from './tcp-frame.ts';

/** A frame of the lab's links, and one that offloading made of several. */
const maxFrameBytes = 65_536;

/** @throws RedirectError where frames may not be sent: it takes CAP_NET_RAW. */
export function openFrameWire(interfaceName: string): Wire & Disposable {
  const frames = inKernel((native) => native.openFrames(interfaceName));
  const buffer = Buffer.alloc(maxFrameBytes);
  const readFrame = (): Buffer | undefined => {
    try {
      return buffer.subarray(0, readSync(frames, buffer));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return undefined;
      throw error;
    }
  };
  return {
    send: (segment) => {
      writeSync(frames, renderSegment(segment));
    },
    receive: () => {
      for (;;) {
        const frame = readFrame();
        if (frame === undefined) return undefined;
        const segment = readSegment(frame);
        if (segment !== undefined) return segment;
      }
    },
    [Symbol.dispose]: () => {
      closeSync(frames);
    },
  };
}
