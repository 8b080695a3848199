/** In place of node:zlib, which unpacks in another thread, and so at another moment in each run. */
import { Transform } from 'node:stream';
import * as zlib from 'node:zlib';

export * from 'node:zlib';

/** Unpacks all that has come each time: the answers are small. */
export function createGunzip(): Transform {
  let packed = Buffer.alloc(0);
  let given = 0;
  return new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      packed = Buffer.concat([packed, chunk]);
      try {
        const all = zlib.gunzipSync(packed, { finishFlush: zlib.constants.Z_SYNC_FLUSH });
        done(null, all.subarray(given));
        given = all.length;
      } catch (error) {
        done(error as Error);
      }
    },
  });
}
