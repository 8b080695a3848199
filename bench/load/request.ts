/**
 * The bytes of a request as sent by MSAL for Node: its headers differ only in the request's ID.
 * Built once; the changing bytes are overwritten.
 */
import { randomInt } from 'node:crypto';

/**
 * `sdk`: a new ID in each request. `same`: identical bytes each time. `unusual`: as `sdk`, with a
 * header that no SDK sends and that does not affect the answer.
 */
export type RequestStyle = 'sdk' | 'same' | 'unusual';

const idName = 'x-ms-client-request-id';

/** In their original order and case; `host` and `connection` come before them. */
export const sdkHeaders: readonly (readonly [name: string, value: string])[] = [
  ['Metadata', 'true'],
  ['x-client-SKU', 'msal.js.node'],
  ['x-client-VER', '7.2.3'],
  [idName, '00000000-0000-4000-8000-000000000000'],
  ['Content-Type', 'application/x-www-form-urlencoded;charset=utf-8'],
  ['accept', '*/*'],
  ['accept-language', '*'],
  ['sec-fetch-mode', 'cors'],
  ['user-agent', 'node'],
  ['accept-encoding', 'gzip, deflate'],
];

const unusualHeaders = [['te', 'trailers']] as const;
const hexDigits = Buffer.from('0123456789abcdef');
/** Positions of the random digits of an ID: all but the dashes, the version and the variant. */
const freeDigits = [
  ...[0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 15, 16, 17, 20, 21, 22],
  ...[24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35],
];

export class RequestBytes {
  readonly #bytes: Buffer;
  readonly #idAt: number;
  readonly #style: RequestStyle;
  /** State of a xorshift generator: never 0. */
  #state = randomInt(1, 2 ** 32);

  constructor(target: string, style: RequestStyle, connection: 'keep-alive' | 'close') {
    const headers = [...sdkHeaders, ...(style === 'unusual' ? unusualHeaders : [])];
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    const head = `GET ${target} HTTP/1.1\r\nhost: 169.254.169.254\r\nconnection: ${connection}\r\n`;
    this.#bytes = Buffer.from(`${head}${lines}\r\n`);
    this.#idAt = this.#bytes.indexOf(`${idName}: `) + idName.length + 2;
    this.#style = style;
    this.#writeId();
  }

  /** Valid until the next call: by then the kernel must have the previous bytes. */
  next(): Buffer {
    if (this.#style !== 'same') this.#writeId();
    return this.#bytes;
  }

  /** All digits change, as in a random ID, so that a server gains nothing from unchanged bytes. */
  #writeId(): void {
    let bits = 0;
    for (let index = 0; index < freeDigits.length; index++) {
      if (index % 8 === 0) bits = this.#random();
      this.#bytes[this.#idAt + (freeDigits[index] ?? 0)] = hexDigits[bits & 15] ?? 0;
      bits >>>= 4;
    }
  }

  #random(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return state;
  }
}
