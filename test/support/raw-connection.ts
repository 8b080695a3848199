/** HTTP as bytes on a socket: tests check the raw answer, not the view of an HTTP library. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { OwnTime } from '../../lab/pods/own-time.ts';

/** The address to dial, and the source address on this machine. */
export interface Place {
  readonly host: string;
  readonly port: number;
  readonly sourceIp?: string;
}

export interface RawReply {
  /** Status line, header and body. */
  readonly bytes: Buffer;
  readonly status: number;
  /** Names and values in the order in which they arrived. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer;
  readonly text: string;
  /** From the start of the wait for it. */
  readonly durationMs: number;
  /** Without what a busy machine made this process wait. */
  readonly ownMs: number;
}

const headEnd = Buffer.from('\r\n\r\n');
const statusLine = /^HTTP\/1\.1 (\d{3}) [\x20-\x7e]*$/;
/** RFC 9110 5.1 and 5.5, without the folding and the bare control characters that it forbids. */
const fieldLine = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x20-\x7e\t]*)$/;

export class RawConnection implements Disposable {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #failure: Error | undefined;
  #hasEnded = false;
  #wake = Promise.withResolvers<undefined>();

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#changed();
    });
    socket.on('error', (error) => {
      this.#failure = error;
    });
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        this.#hasEnded = true;
        this.#changed();
      });
    }
  }

  /** @throws when nobody listens there. */
  static async open({ host, port, sourceIp }: Place): Promise<RawConnection> {
    const socket = connect({
      host,
      port,
      noDelay: true,
      ...(sourceIp === undefined ? {} : { localAddress: sourceIp }),
    });
    await once(socket, 'connect');
    return new RawConnection(socket);
  }

  send(bytes: Buffer | string): void {
    this.#socket.write(bytes);
  }

  /** The peer may still answer. */
  endSending(): void {
    this.#socket.end();
  }

  /** The next answer, whole. @throws when the bytes are no answer, or it does not come in time. */
  async readReply(method = 'GET', withinMs = 15_000): Promise<RawReply> {
    const startedAtMs = performance.now();
    using time = new OwnTime();
    const found = await this.#until(withinMs, () =>
      splitReply(this.#received, method, this.#hasEnded),
    );
    this.#received = this.#received.subarray(found.bytes.length);
    return { ...found, durationMs: performance.now() - startedAtMs, ownMs: time.nowMs() };
  }

  /** What comes until the peer ends, or until the time is up. */
  async readFor(withinMs: number): Promise<Buffer> {
    const late = AbortSignal.timeout(withinMs);
    late.addEventListener('abort', () => {
      this.#changed();
    });
    const isOver = (): true | undefined => this.#hasEnded || late.aborted || undefined;
    await this.#until(2 * withinMs, isOver);
    return this.#received;
  }

  /** Everything up to the peer's end. @throws when it does not end in time. */
  async readToEnd(withinMs = 15_000): Promise<Buffer> {
    return this.#until(withinMs, () => (this.#hasEnded ? this.#received : undefined));
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #changed(): void {
    const { resolve } = this.#wake;
    this.#wake = Promise.withResolvers();
    resolve(undefined);
  }

  async #until<T>(withinMs: number, look: () => T | undefined): Promise<T> {
    const late = AbortSignal.timeout(withinMs);
    const isLate = new Promise<undefined>((resolve) => {
      late.addEventListener('abort', () => {
        resolve(undefined);
      });
    });
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      const so = `so far: ${sayBytes(this.#received)}`;
      if (this.#hasEnded) {
        throw new Error(`the connection ended too soon; ${so}`, { cause: this.#failure });
      }
      if (late.aborted) throw new Error(`nothing more within ${withinMs} ms; ${so}`);
      await Promise.race([this.#wake.promise, isLate]);
    }
  }
}

/** For a message: never a token. */
function sayBytes(bytes: Buffer): string {
  if (bytes.includes('access_token')) return `${bytes.length} bytes with a token`;
  return JSON.stringify(bytes.toString('latin1').slice(0, 300));
}

/** One request on a connection of its own. */
export async function exchange(
  place: Place,
  bytes: Buffer | string,
  method = 'GET',
): Promise<RawReply> {
  using connection = await RawConnection.open(place);
  connection.send(bytes);
  return await connection.readReply(method);
}

/** Every value of a field, in order. */
export function valuesOf(reply: RawReply, name: string): readonly string[] {
  const wanted = name.toLowerCase();
  return reply.fields.filter(([each]) => each.toLowerCase() === wanted).map(([, value]) => value);
}

/** @returns undefined while the answer is not whole. */
function splitReply(
  received: Buffer,
  method: string,
  hasEnded: boolean,
): Omit<RawReply, 'durationMs' | 'ownMs'> | undefined {
  const end = received.indexOf(headEnd);
  if (end < 0) return undefined;
  const [first = '', ...lines] = received.toString('latin1', 0, end).split('\r\n');
  const [, status] = statusLine.exec(first) ?? [];
  assert.ok(status !== undefined, `no status line: ${JSON.stringify(first)}`);
  const fields = lines.map((line) => {
    const [, name, value] = fieldLine.exec(line) ?? [];
    assert.ok(name !== undefined && value !== undefined, `no field: ${JSON.stringify(line)}`);
    return [name, value.trimEnd()] as const;
  });
  const bodyAt = end + headEnd.length;
  const bodyEnd = findBodyEnd(received, bodyAt, lengthOf(fields, method, hasEnded));
  if (bodyEnd === undefined) return undefined;
  const bytes = received.subarray(0, bodyEnd);
  const body = bytes.subarray(bodyAt);
  return { bytes, status: Number(status), fields, body, text: body.toString('utf8') };
}

function findBodyEnd(received: Buffer, bodyAt: number, length: number | undefined) {
  if (length === undefined) return undefined;
  const end = length === Infinity ? received.length : bodyAt + length;
  return received.length >= end ? end : undefined;
}

/** Number of body bytes; Infinity for all received bytes, undefined while it is not known. */
function lengthOf(
  fields: RawReply['fields'],
  method: string,
  hasEnded: boolean,
): number | undefined {
  if (method === 'HEAD') return 0;
  const named = fields.find(([name]) => name.toLowerCase() === 'content-length');
  if (named !== undefined) return Number(named[1]);
  return hasEnded ? Infinity : undefined;
}
