/**
 * A protobuf message, read in place: a field that is not used costs its tag and its length only, however long it
 * is. A field of another type than expected is as absent.
 */
import { KubeError } from '../api/kube-error.ts';

/** Longest encoding of 64 bits, 7 in each byte. */
const maxVarintBits = 70;

/** A number, or where a text or message is. */
type Value = number | { readonly start: number; readonly end: number };

export class Message {
  readonly #bytes: Buffer;
  readonly #last = new Map<number, Value>();
  // No mutation: it is set to 0 before each reading of the fields.
  #at = 0;

  /** @throws KubeError `MALFORMED`, as do the methods that read a field as a message. */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    for (const [field, value] of this.#fields()) this.#last.set(field, value);
  }

  number(field: number): number {
    const value = this.#last.get(field);
    return typeof value === 'number' ? value : 0;
  }

  text(field: number): string {
    return this.#contentOf(this.#last.get(field)).toString();
  }

  message(field: number): Message {
    return new Message(this.#contentOf(this.#last.get(field)));
  }

  /** Those of a repeated field, read one by one. */
  *messages(field: number): Generator<Message, void> {
    for (const [each, value] of this.#fields()) {
      if (each === field && typeof value === 'object') yield new Message(this.#contentOf(value));
    }
  }

  *#fields(): Generator<readonly [field: number, value: Value], void> {
    this.#at = 0;
    while (this.#at < this.#bytes.length) {
      const tag = this.#varint();
      const [field, type] = [Math.floor(tag / 8), tag % 8];
      if (type === 0) yield [field, this.#varint()];
      else if (type === 2) yield [field, this.#skip(this.#varint())];
      else if (type === 1 || type === 5) this.#skip(type === 1 ? 8 : 4);
      else throw malformed(`field ${field} has an unknown type`);
    }
  }

  #varint(): number {
    let value = 0;
    for (let shift = 0; shift < maxVarintBits; shift += 7) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw malformed('a number has no end');
  }

  #skip(length: number): Value {
    const start = this.#at;
    this.#at += length;
    if (this.#at > this.#bytes.length) throw malformed('a field is longer than its message');
    return { start, end: this.#at };
  }

  #contentOf(value: Value | undefined): Buffer {
    const { start, end } = typeof value === 'object' ? value : { start: 0, end: 0 };
    return this.#bytes.subarray(start, end);
  }
}

function malformed(what: string): KubeError {
  return new KubeError('MALFORMED', `the kubelet sent a message that cannot be read: ${what}`);
}
