/**
 * Splits a chunked byte stream into JSON values, one per line. The result does not depend on the
 * chunk boundaries: a line is decoded only when its newline has arrived, and the newline byte never
 * occurs inside a UTF-8 sequence.
 *
 * A line that is longer than the bound does not end the stream: one such pod could otherwise fail
 * the lists of the agents of all nodes.
 */
import { KubeError } from './kube-error.ts';

export interface JsonLines {
  /**
   * The values that this chunk completes, in order, parsed on demand. `OverlongLine` replaces one
   * that is longer than the bound. Throws `KubeError` MALFORMED for a line that is not JSON; the
   * values before it have been yielded by then.
   */
  push(chunk: Uint8Array): Generator<unknown, void>;
  /** Bytes of an unfinished line. If not 0 at the end of a stream, the stream was cut. */
  readonly pendingBytes: number;
}

const newline = 0x0a;

/** The beginning of a skipped line: an object's names are in its first kilobyte. */
export class OverlongLine {
  readonly beginning: string;

  constructor(beginning: string) {
    this.beginning = beginning;
  }
}

const beginningBytes = 4_096;

export function createJsonLines(maxLineBytes: number): JsonLines {
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  /** Set if the unfinished line is already too long. */
  let overlong: OverlongLine | undefined;

  function keep(part: Uint8Array): void {
    if (part.length === 0) return;
    pendingBytes += part.length;
    if (overlong !== undefined) return;
    pending.push(part);
    if (pendingBytes <= maxLineBytes) return;
    overlong = new OverlongLine(Buffer.concat(pending).toString('utf8', 0, beginningBytes));
    pending = [];
  }

  /** The line that ends before `end`: most lines lie in one chunk, and are decoded in place. */
  function takeLine(chunk: Buffer, start: number, end: number): string | OverlongLine {
    // No mutation: a line of exactly the limit is read alike below, by a copy.
    if (pendingBytes === 0 && end - start <= maxLineBytes)
      return chunk.toString('utf8', start, end);
    keep(chunk.subarray(start, end));
    const line = overlong ?? Buffer.concat(pending).toString('utf8');
    pending = [];
    pendingBytes = 0;
    overlong = undefined;
    return line;
  }

  return {
    *push(chunk) {
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      let start = 0;
      for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
        const line = takeLine(bytes, start, end);
        start = end + 1;
        if (line instanceof OverlongLine) yield line;
        else if (line.startsWith('{') || line.trim() !== '') yield parseLine(line);
      }
      keep(bytes.subarray(start));
    },
    get pendingBytes() {
      return pendingBytes;
    },
  };
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new KubeError('MALFORMED', 'a line of the stream is not JSON', { cause });
  }
}
