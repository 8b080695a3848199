/** In place of node:zlib, which unpacks in another thread, and so at another moment in each run. */
import { Transform } from 'node:stream';
import * as zlib from 'node:zlib';

export * from 'node:zlib';

/** Not in Node's documentation; its synchronous functions use it. */
interface Engine {
  _processChunk(chunk: Buffer, flush: number): Buffer;
  close(): void;
}

export function createGunzip(options?: zlib.ZlibOptions): Transform {
  const engine = zlib.createGunzip(options) as unknown as Engine;
  return new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      try {
        done(null, engine._processChunk(chunk, zlib.constants.Z_SYNC_FLUSH));
      } catch (error) {
        done(error as Error);
      }
    },
    destroy: (error, done) => {
      engine.close();
      done(error);
    },
  });
}
