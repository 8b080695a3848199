/**
 * Checks whether an answer is the right one. The first of its kind is parsed, including the token's
 * identity; later answers that begin with the same bytes, token included, are accepted. Pure.
 */
import { findTokenIdentity } from '../../lab/fakes/token.ts';
import type { AnswerScan } from './answer-scan.ts';
import type { Caller } from './plan.ts';

export type Verdict = 'right' | 'wrong' | 'foreign';

export class AnswerCheck {
  readonly #caller: Caller;
  /** The beginning of a right body, for each number of the target. */
  readonly #known = new Map<number, Buffer>();

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** @param number The number in the request's target. */
  check(bytes: Buffer, scan: AnswerScan, number: number): Verdict {
    const { expect } = this.#caller;
    if (expect.kind === 'status') {
      return expect.statuses.includes(scan.status) ? 'right' : 'wrong';
    }
    if (scan.status !== 200) return 'wrong';
    const known = this.#known.get(number);
    if (known !== undefined && isAt(known, bytes, scan)) return 'right';
    const body = scan.body(bytes);
    const identity = findTokenIdentity(body.toString('utf8'));
    if (identity !== expect.name) return identity === undefined ? 'wrong' : 'foreign';
    if (!scan.isChunked) this.#known.set(number, upToTokenEnd(body));
    return 'right';
  }
}

function isAt(known: Buffer, bytes: Buffer, { bodyStart, total }: AnswerScan): boolean {
  const end = bodyStart + known.length;
  return end <= total && known.compare(bytes, bodyStart, end) === 0;
}

/** A copy: the next answer overwrites the buffer. */
function upToTokenEnd(body: Buffer): Buffer {
  const name = '"access_token"';
  const begin = body.indexOf('"', body.indexOf(name) + name.length) + 1;
  return Buffer.from(body.subarray(0, body.indexOf('"', begin) + 1));
}
