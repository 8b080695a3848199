/**
 * Recognizes a request by the bytes of an earlier one. Clients send the same bytes again and again,
 * except for the id that most SDKs give each request, and sometimes the target. The rest has been
 * parsed already and is not parsed again. Pure.
 */
import {
  isHeaderText,
  parseCanonicalRequest,
  parseTarget,
  type CanonicalRequest,
} from './parser.ts';

export interface KnownRequest extends CanonicalRequest {
  readonly bytes: Buffer;
}

const targetFrom = 'GET '.length;

/**
 * @param bytes one chunk from the socket. It is kept, and must not be changed.
 * @param known any earlier request; it is returned itself if the new one is equal.
 * @returns undefined when the request does not have the usual shape.
 */
export function readRequest(bytes: Buffer, known?: KnownRequest): KnownRequest | undefined {
  if (known === undefined || !endsAlike(bytes, known)) {
    const parsed = parseCanonicalRequest(bytes.toString('latin1'));
    return parsed === undefined ? undefined : { ...parsed, bytes };
  }
  const shift = bytes.length - known.bytes.length;
  const targetEnd = targetEndOf(known) + shift;
  if (shift === 0 && isEqual(bytes, known.bytes, 0, targetEnd, 0)) return known;
  // If the target has no space or line break, it ends where the known rest begins.
  const target = parseTarget(bytes.toString('latin1', 0, targetEnd), bytes.length);
  if (target === undefined) return undefined;
  const ids = known.ids.map(({ name, from, to }) => ({ name, from: from + shift, to: to + shift }));
  return { target, isLast: known.isLast, bytes, ids };
}

function targetEndOf({ target }: KnownRequest): number {
  return targetFrom + target.length;
}

/** The bytes after the target are equal, though their offset may differ. */
function endsAlike(bytes: Buffer, known: KnownRequest): boolean {
  const shift = bytes.length - known.bytes.length;
  let from = targetEndOf(known);
  // No mutation: a request with an empty target is refused either way.
  if (from + shift < targetFrom) return false;
  for (const id of known.ids) {
    if (!isEqual(bytes, known.bytes, from, id.from, shift)) return false;
    if (!isHeaderText(bytes, { from: id.from + shift, to: id.to + shift })) return false;
    from = id.to;
  }
  return isEqual(bytes, known.bytes, from, known.bytes.length, shift);
}

/** @param shift offset of the bytes in the one, minus their offset in the other. */
function isEqual(one: Buffer, other: Buffer, from: number, to: number, shift: number): boolean {
  return one.compare(other, from, to, from + shift, to + shift) === 0;
}
