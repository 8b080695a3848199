/** Secret texts that must not leak anywhere, and the encodings in which they could. */
import { createPrivateKey, randomBytes } from 'node:crypto';

/** A secret that no other text contains by chance, and that URL encoding leaves unchanged. */
export function createCanary(): string {
  return randomBytes(24)
    .toString('hex')
    .replaceAll(/\d/g, (digit) => 'ghijklmnop'[Number(digit)]!);
}

/** Shorter pieces could occur by chance. */
const pieceLength = 16;

/** Searches for many pieces of text at once. */
export class Canaries {
  /** By their first three characters. */
  readonly #pieces = new Map<number, { readonly piece: string; readonly name: string }[]>();

  /** Passwords and client secrets: plain, reversed, in bases 16 and 64, and in UTF-16. */
  addText(name: string, text: string): void {
    for (const half of [text.slice(0, text.length / 2), text.slice(text.length / 2)]) {
      this.#add(name, half);
      this.#add(`${name}, reversed`, reverse(half));
      // In either byte order.
      const utf16 = Buffer.from(half, 'utf16le').toString('latin1');
      this.#add(`${name}, in UTF-16`, utf16.slice(0, -1));
    }
    this.addBytes(name, Buffer.from(text));
  }

  /** As characters, and in bases 16 and 64, at any offset in a longer text and with line breaks. */
  addBytes(name: string, bytes: Buffer): void {
    this.#add(`${name}, as bytes`, bytes.subarray(2, 2 + pieceLength).toString('latin1'));
    this.#add(`${name}, in base 16`, bytes.subarray(2, 2 + pieceLength).toString('hex'));
    for (const before of [0, 1, 2]) {
      const padded = Buffer.concat([Buffer.alloc(before), bytes]);
      for (const base of ['base64', 'base64url'] as const) {
        const text = padded.toString(base).slice(4);
        // A line break splits at most one of the two pieces.
        for (const start of [0, pieceLength + 4]) {
          const piece = text.slice(start, start + pieceLength);
          if (piece.length === pieceLength) this.#add(`${name}, in ${base}`, piece);
        }
      }
    }
  }

  /** The private numbers of a key; its modulus is in every certificate too. */
  addPrivateKey(name: string, pem: string): void {
    const {
      d = '',
      p = '',
      q = '',
      dp = '',
      dq = '',
    } = createPrivateKey(pem).export({
      format: 'jwk',
    });
    for (const number of [d, p, q, dp, dq]) this.addBytes(name, Buffer.from(number, 'base64url'));
  }

  /** A JWT: its signature, and its claims without the beginning that all of its kind share. */
  addToken(name: string, token: string): void {
    const [, claims = '', signature = ''] = token.split('.');
    const parts = [signature.slice(0, signature.length / 2), signature.slice(-pieceLength)];
    const middle = Math.floor(claims.length / 2);
    parts.push(claims.slice(middle, middle + 2 * pieceLength), claims.slice(-2 * pieceLength));
    for (const part of parts) this.#add(name, part);
  }

  /** Names of the canaries in the text, each once. */
  in(text: string): readonly string[] {
    const names = new Set<string>();
    for (let at = 0; at + pieceLength <= text.length; at++) {
      const candidates = this.#pieces.get(keyAt(text, at));
      if (candidates === undefined) continue;
      for (const { piece, name } of candidates) if (text.startsWith(piece, at)) names.add(name);
    }
    // Any other JWT: a token that was not registered.
    if (/eyJ[\w-]{16,}\.eyJ[\w-]{16,}/.test(text) && names.size === 0) names.add('some token');
    return [...names];
  }

  #add(name: string, piece: string): void {
    if (piece.length < pieceLength) throw new RangeError(`${name} is too short to be looked for`);
    const key = keyAt(piece, 0);
    const others = this.#pieces.get(key);
    if (others === undefined) this.#pieces.set(key, [{ piece, name }]);
    else others.push({ piece, name });
  }
}

export function reverse(text: string): string {
  return Buffer.from(text, 'latin1').reverse().toString('latin1');
}

function keyAt(text: string, at: number): number {
  return (text.charCodeAt(at) << 16) ^ (text.charCodeAt(at + 1) << 8) ^ text.charCodeAt(at + 2);
}
