/**
 * Keys from passwords, as PKCS#12 files stretch them. A file names its own number of rounds and
 * whoever writes an identity chooses the file, so the work is bounded; and it is done on the thread
 * that answers pods, so it is done in small pieces. (node-forge does it in one: 3.4 s for an old file
 * with 600,000 rounds, Node 26.)
 */
import { hash, pbkdf2 } from 'node:crypto';
import { promisify } from 'node:util';
import { KeyFileError } from './key-file-error.ts';
import type { Turns } from './turns.ts';

export type HashName = 'sha1' | 'sha224' | 'sha256' | 'sha384' | 'sha512';

export interface HashShape {
  readonly outputBytes: number;
  /** What the compression function takes at once. */
  readonly blockBytes: number;
}

export const hashShapes: Readonly<Record<HashName, HashShape>> = {
  sha1: { outputBytes: 20, blockBytes: 64 },
  sha224: { outputBytes: 28, blockBytes: 64 },
  sha256: { outputBytes: 32, blockBytes: 64 },
  sha384: { outputBytes: 48, blockBytes: 128 },
  sha512: { outputBytes: 64, blockBytes: 128 },
};

/** What PKCS#12 derives from one password and salt for different ends. */
export const purposes = { key: 1, iv: 2, mac: 3 } as const;

export interface Stretching {
  /** RFC 7292, appendix B.2. `password` is a BMPString. */
  pkcs12(input: StretchInput & { readonly purpose: number }): Promise<Buffer>;
  /** RFC 8018. `password` is UTF-8. */
  pbkdf2(input: StretchInput): Promise<Buffer>;
}

export interface StretchInput {
  readonly hashName: HashName;
  readonly password: Buffer;
  readonly salt: Buffer;
  readonly rounds: number;
  readonly length: number;
}

/** NSS writes 600,000, OpenSSL 2,048, Windows 2,000, Java 10,000. */
const maxRounds = 1_000_000;
/**
 * All of one file together, on this thread: about 1.5 s in pieces. NSS takes 600,000 for its MAC, and
 * as many again when the password is tried with and without a line end.
 */
const maxOwnRounds = 1_500_000;
/** And by PBKDF2 on another thread: 0.2 to 1 s. NSS takes 600,000 for the key and each part. */
const maxPoolRounds = 3_000_000;
/** What ordinary files ask for, and 5 ms: no need to stand behind files that take a second each. */
const fewPoolRounds = 20_000;
/** About 1 ms. */
const roundsAtOnce = 1_000;

const pbkdf2InPool = promisify(pbkdf2);

/** For one file: it counts the rounds. Both methods reject with `KeyFileError`. */
export function createStretching(turns: Turns): Stretching {
  const left = { own: maxOwnRounds, pool: maxPoolRounds };

  function spend(from: keyof typeof left, rounds: number, times: number): void {
    if (!(rounds >= 1)) throw new KeyFileError('MALFORMED', 'is damaged');
    left[from] -= rounds * times;
    if (rounds <= maxRounds && left[from] >= 0) return;
    throw new KeyFileError(
      'TOO_COSTLY',
      'stretches its password by too many iterations; export it again with 10000 or fewer',
    );
  }

  async function hashAgain(hashName: HashName, first: Buffer, times: number): Promise<Buffer> {
    let digest = first;
    for (let due = times; due > 0; due -= roundsAtOnce) {
      await turns.take(() => {
        const atOnce = Math.min(due, roundsAtOnce);
        for (let round = 0; round < atOnce; round += 1) digest = hash(hashName, digest, 'buffer');
      });
    }
    return digest;
  }

  return {
    async pkcs12({ hashName, password, salt, rounds, length, purpose }) {
      const { outputBytes, blockBytes } = hashShapes[hashName];
      const parts = Math.ceil(length / outputBytes);
      spend('own', rounds, parts);
      const diversifier = Buffer.alloc(blockBytes, purpose);
      const state = Buffer.concat([
        repeatToBlocks(salt, blockBytes),
        repeatToBlocks(password, blockBytes),
      ]);
      const output: Buffer[] = [];
      for (let part = 0; part < parts; part += 1) {
        const first = hash(hashName, Buffer.concat([diversifier, state]), 'buffer');
        const digest = await hashAgain(hashName, first, rounds - 1);
        output.push(digest);
        addToEachBlock(state, repeatToBlocks(digest, blockBytes));
      }
      return Buffer.concat(output).subarray(0, length);
    },
    async pbkdf2({ hashName, password, salt, rounds, length }) {
      spend('pool', rounds, Math.ceil(length / hashShapes[hashName].outputBytes));
      const stretch = (): Promise<Buffer> => pbkdf2InPool(password, salt, rounds, length, hashName);
      if (rounds <= fewPoolRounds) return stretch();
      // One at a time: name look-ups of the whole process share these few threads.
      return turns.takeApart(stretch);
    },
  };
}

/** As many whole blocks as are needed for one copy, full of copies; nothing of nothing. */
function repeatToBlocks(bytes: Buffer, blockBytes: number): Buffer {
  const length = blockBytes * Math.ceil(bytes.length / blockBytes);
  return length === 0 ? Buffer.alloc(0) : Buffer.alloc(length, bytes);
}

/** Each block of `state`, a big-endian number, becomes itself plus `addend` plus one. */
function addToEachBlock(state: Buffer, addend: Buffer): void {
  for (let start = 0; start < state.length; start += addend.length) {
    let carry = 1;
    for (let index = addend.length - 1; index >= 0; index -= 1) {
      const sum = state.readUInt8(start + index) + addend.readUInt8(index) + carry;
      state.writeUInt8(sum & 0xff, start + index);
      carry = sum >> 8;
    }
  }
}
