/** Frames of one interface of this network namespace. */
import { closeSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Wire } from './forged-request.ts';
import { readSegment, renderSegment } from './tcp-frame.ts';

const addonFile = fileURLToPath(new URL('../../dist/lab/frames.node', import.meta.url));

/** Large enough for a frame that offloading merged from several. */
const maxFrameBytes = 65_536;

/** The exports of `frames.c`. */
interface FramesAddon {
  /**
   * A descriptor to read and write whole Ethernet frames that carry IPv4; the caller closes it. A
   * read fails with EAGAIN when no frame has arrived for 3s.
   */
  openFrames(interfaceName: string): number;
}

/** @throws Error with the kernel's code (needs CAP_NET_RAW), or when the addon is not built. */
export function openFrameWire(interfaceName: string): Wire & Disposable {
  const frames = loadAddon().openFrames(interfaceName);
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

function loadAddon(): FramesAddon {
  const loaded: { exports: unknown } = { exports: {} };
  process.dlopen(loaded, addonFile, constants.dlopen.RTLD_NOW);
  if (isFramesAddon(loaded.exports)) return loaded.exports;
  throw new Error(`${addonFile} is of another version; ./dev lab builds it`);
}

function isFramesAddon(value: unknown): value is FramesAddon {
  return (
    typeof value === 'object' &&
    value !== null &&
    'openFrames' in value &&
    typeof value.openFrames === 'function'
  );
}
