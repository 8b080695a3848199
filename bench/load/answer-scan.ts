/**
 * Just enough of HTTP/1.1 to find an answer's end and content: a status line, a length or chunks.
 * One object per connection, refilled by each scan, so that a request needs no allocation. Pure.
 */

const headEnd = Buffer.from('\r\n\r\n');
const lengthName = Buffer.from('\r\nContent-Length: ');
const zero = 0x30;
const nine = 0x39;
const statusAt = 9;

export class AnswerScan {
  status = 0;
  bodyStart = 0;
  /** Bytes of head and body as on the wire. */
  total = 0;
  isChunked = false;

  /**
   * Whether the first `length` bytes begin with a whole answer.
   * @throws TypeError for an answer with neither a length nor chunks.
   */
  scan(bytes: Buffer, length: number): boolean {
    const end = bytes.indexOf(headEnd);
    if (end < 0 || end + headEnd.length > length) return false;
    this.status = readNumber(bytes, statusAt);
    this.bodyStart = end + headEnd.length;
    const named = bytes.indexOf(lengthName);
    if (named >= 0 && named < end) {
      this.isChunked = false;
      this.total = this.bodyStart + readNumber(bytes, named + lengthName.length);
      return this.total <= length;
    }
    return this.#scanUnusual(bytes, length, end);
  }

  /** The body without chunk framing. */
  body(bytes: Buffer): Buffer {
    if (!this.isChunked) return bytes.subarray(this.bodyStart, this.total);
    const parts: Buffer[] = [];
    let at = this.bodyStart;
    for (let size = chunkSize(bytes, at); size > 0; size = chunkSize(bytes, at)) {
      const from = bytes.indexOf('\r\n', at) + 2;
      parts.push(bytes.subarray(from, from + size));
      at = from + size + 2;
    }
    return Buffer.concat(parts);
  }

  #scanUnusual(bytes: Buffer, length: number, end: number): boolean {
    const head = bytes.toString('latin1', 0, end).toLowerCase();
    const size = /\r\ncontent-length:\s*(\d+)/.exec(head)?.[1];
    this.isChunked = size === undefined;
    if (size !== undefined) {
      this.total = this.bodyStart + Number(size);
      return this.total <= length;
    }
    if (!/\r\ntransfer-encoding:\s*chunked/.test(head)) {
      throw new TypeError('an answer without a length');
    }
    let at = this.bodyStart;
    for (;;) {
      const lineEnd = bytes.indexOf('\r\n', at);
      if (lineEnd < 0 || lineEnd + 2 > length) return false;
      const chunk = chunkSize(bytes, at);
      at = lineEnd + 2 + chunk + 2;
      if (at > length) return false;
      if (chunk === 0) {
        this.total = at;
        return true;
      }
    }
  }
}

function chunkSize(bytes: Buffer, at: number): number {
  return Number.parseInt(bytes.toString('latin1', at, bytes.indexOf('\r\n', at)), 16);
}

function readNumber(bytes: Buffer, from: number): number {
  let number = 0;
  for (let at = from; ; at++) {
    const digit = bytes[at] ?? 0;
    if (digit < zero || digit > nine) return number;
    number = number * 10 + digit - zero;
  }
}
