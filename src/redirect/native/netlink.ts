/**
 * Netlink without a library: requests, answers, attributes. A DataView reads numbers in the order of the network;
 * with `ofHost` as the last argument, in that of the machine. A read behind the end of an attribute ends the answer as
 * a protocol error.
 */
import { closeSync, readSync, writeSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { constants, endianness } from 'node:os';
import { getSystemErrorMessage, getSystemErrorName } from 'node:util';

const { EAGAIN, EINTR, EMSGSIZE, EPROTO, ETIMEDOUT } = constants.errno;

export const ofHost = endianness() === 'LE';

/** Opens a socket that only the kernel can send to, and that waits 10 s for it. */
export type OpenNetlink = (protocol: number) => number;

export interface NetlinkRequest {
  readonly type: number;
  /** All objects, or the one of the request. */
  readonly extent: 'all' | 'one';
  /** The part before the attributes. */
  readonly fixed: Uint8Array;
  readonly attributes?: readonly Uint8Array[];
}

export type ReadMessage = (payload: DataView) => void;

const headerBytes = 16;
const attributeHeaderBytes = 4;
const typeMask = 0x3fff;
const nested = 0x8000;

const errorType = 2;
const doneType = 3;
const requestFlags = { all: 0x301, one: 0x005 } as const;
const interruptedFlag = 0x10;

/** As many as a socket buffers at most for a dump. */
const received = new Uint8Array(64 * 1024);
/** A million connections take less. */
const maxAnswerBytes = 1 << 29;

export class Netlink implements Disposable {
  readonly #socket: number;

  /** @throws errors of the native module. */
  constructor(open: OpenNetlink, protocol: number) {
    this.#socket = open(protocol);
  }

  /** Reads the whole answer. Returns 0, or the errno that the kernel or the answer ends with. */
  ask(request: NetlinkRequest, read?: ReadMessage): number {
    try {
      writeSync(this.#socket, encode(request));
      for (let left = maxAnswerBytes; left > 0;) {
        const length = this.#receive();
        const end = readMessages(new DataView(received.buffer, 0, length), read);
        if (end !== undefined) return end;
        left -= length;
      }
      return EMSGSIZE;
    } catch (error) {
      if (error instanceof RangeError) return EPROTO;
      const errno = errnoOf(error);
      return errno === EAGAIN ? ETIMEDOUT : errno;
    }
  }

  /**
   * As `ask`; returns whether the kernel did it.
   * @param ignored an errno that is no failure.
   * @throws an error like those of the native module.
   */
  demand(step: string, request: NetlinkRequest, read?: ReadMessage, ignored = 0): boolean {
    const errno = this.ask(request, read);
    if (errno === 0 || errno === ignored) return errno === 0;
    const code = getSystemErrorName(-errno);
    throw Object.assign(new Error(getSystemErrorMessage(-errno)), { code, step });
  }

  [Symbol.dispose](): void {
    closeSync(this.#socket);
  }

  #receive(): number {
    for (;;) {
      try {
        return readSync(this.#socket, received);
      } catch (error) {
        if (errnoOf(error) !== EINTR) throw error;
      }
    }
  }
}

/** Undefined: more follows. An empty answer is a protocol error, too. */
function readMessages(bytes: DataView, read: ReadMessage | undefined): number | undefined {
  for (let at = 0; at < bytes.byteLength || at === 0;) {
    const length = bytes.getUint32(at, ofHost);
    const type = bytes.getUint16(at + 4, ofHost);
    if (length < headerBytes || at + length > bytes.byteLength) return EPROTO;
    const payload = new DataView(bytes.buffer, at + headerBytes, length - headerBytes);
    // Both kinds of a last message begin with an error; that of a dump may be absent.
    if (type === doneType && payload.byteLength < 4) return 0;
    if (type === errorType || type === doneType) return Math.max(0, -payload.getInt32(0, ofHost));
    // The objects have changed, and some may be missing.
    if ((bytes.getUint16(at + 6, ofHost) & interruptedFlag) !== 0) return EAGAIN;
    read?.(payload);
    at += aligned(length);
  }
  return undefined;
}

function encode({ type, extent, fixed, attributes = [] }: NetlinkRequest): Uint8Array {
  const body = Buffer.concat([fixed, ...attributes]);
  const header = new DataView(new ArrayBuffer(headerBytes));
  header.setUint32(0, headerBytes + body.length, ofHost);
  header.setUint16(4, type, ofHost);
  header.setUint16(6, requestFlags[extent], ofHost);
  return Buffer.concat([new Uint8Array(header.buffer), body]);
}

/** An attribute, and the bytes up to the next one. */
export function attribute(type: number, payload: Uint8Array): Uint8Array {
  const length = attributeHeaderBytes + payload.length;
  const bytes = new Uint8Array(aligned(length));
  bytes.set(hostNumbers(Uint16Array, length, type));
  bytes.set(payload, attributeHeaderBytes);
  return bytes;
}

/** An attribute that contains others. */
export function nest(type: number, ...attributes: readonly Uint8Array[]): Uint8Array {
  return attribute(type | nested, Buffer.concat(attributes));
}

/**
 * The payload of the first attribute of a type; undefined without one.
 * @param from where the attributes begin.
 * @param types of the attribute, and of those in it that lead to the payload.
 */
export function findAttribute(
  part: DataView,
  from: number,
  ...[type, ...inner]: readonly [number, ...number[]]
): DataView | undefined {
  for (let at = from; at + attributeHeaderBytes <= part.byteLength;) {
    const length = part.getUint16(at, ofHost);
    if (length < attributeHeaderBytes || at + length > part.byteLength) return undefined;
    if ((part.getUint16(at + 2, ofHost) & typeMask) === type) {
      const start = part.byteOffset + at + attributeHeaderBytes;
      const payload = new DataView(part.buffer, start, length - attributeHeaderBytes);
      const [next, ...rest] = inner;
      return next === undefined ? payload : findAttribute(payload, 0, next, ...rest);
    }
    at += aligned(length);
  }
  return undefined;
}

/** A copy, which stays as it is when the next answer comes. */
export function copyBytes(part: DataView, from = 0, end = part.byteLength): Uint8Array {
  const start = part.byteOffset + from;
  return new Uint8Array(part.buffer.slice(start, part.byteOffset + end));
}

/** The bytes of numbers in the order of the machine. */
export function hostNumbers(
  kind: typeof Uint16Array | typeof Uint32Array,
  ...numbers: readonly number[]
): Uint8Array {
  return new Uint8Array(kind.from(numbers).buffer);
}

/** @throws TypeError for another text. */
export function bytesOfIp(ip: string): Uint8Array<ArrayBuffer> {
  if (!isIPv4(ip)) throw new TypeError(`"${ip}" is not an IPv4 address`);
  return Uint8Array.from(ip.split('.'), Number);
}

/** As read from an attribute. */
export function numberOfIp(ip: string): number {
  return new DataView(bytesOfIp(ip).buffer).getUint32(0);
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}

/** Of an error of the file system's functions. */
function errnoOf(error: unknown): number {
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') {
    return -error.errno;
  }
  throw error;
}
