/** A pod's connection, byte by byte: pipelined requests, half-closed connections, resets. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export type Outcome =
  | {
      readonly kind: 'answer';
      readonly status: number;
      /** Names in lower case. */
      readonly headers: ReadonlyMap<string, string>;
      readonly text: string;
      readonly atMs: number;
    }
  /** The connection ended before the answer was complete. */
  | { readonly kind: 'end'; readonly error: string | undefined; readonly atMs: number };

type Answer = Extract<Outcome, { kind: 'answer' }>;

const headEnd = Buffer.from('\r\n\r\n');

export class PodConnection implements Disposable {
  readonly openedAtMs: number;
  readonly #socket: Socket;
  readonly #waiting: ((outcome: Outcome) => void)[] = [];
  #received: Buffer = Buffer.alloc(0);
  #error: string | undefined;
  /** The answer announced the end of the connection. */
  #wasLast = false;
  /** Answers without a request. */
  unasked = 0;

  private constructor(socket: Socket, openedAtMs: number) {
    this.#socket = socket;
    this.openedAtMs = openedAtMs;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#deliver();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#error = error.code;
    });
    socket.on('close', () => {
      const end = { kind: 'end', error: this.#error, atMs: performance.now() } as const;
      for (const settle of this.#waiting.splice(0)) settle(end);
    });
  }

  /** @throws the error of the socket if no process listens. */
  static async open(port: number, sourceIp: string): Promise<PodConnection> {
    const openedAtMs = performance.now();
    const socket = connect({ host: '127.0.0.1', port, localAddress: sourceIp, noDelay: true });
    await once(socket, 'connect');
    return new PodConnection(socket, openedAtMs);
  }

  /** Whether another request may be sent. */
  get isOpen(): boolean {
    return this.#socket.readyState === 'open' && !this.#wasLast;
  }

  /** The next answer that belongs to no other request; call it before the request is sent. */
  expect(): Promise<Outcome> {
    if (this.#socket.closed) {
      return Promise.resolve({ kind: 'end', error: this.#error, atMs: performance.now() });
    }
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  send(bytes: string): void {
    this.#socket.write(bytes, 'latin1');
  }

  halfClose(): void {
    this.#socket.end();
  }

  reset(): void {
    this.#socket.resetAndDestroy();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #deliver(): void {
    for (;;) {
      const found = splitAnswer(this.#received);
      if (found === undefined) return;
      this.#received = this.#received.subarray(found.length);
      if (found.answer.status < 200) continue;
      this.#wasLast = found.answer.headers.get('connection') === 'close';
      const settle = this.#waiting.shift();
      if (settle === undefined) this.unasked++;
      else settle(found.answer);
    }
  }
}

/** The first complete answer, by its content length: all of the agent's answers have one. */
function splitAnswer(
  received: Buffer,
): { readonly answer: Answer; readonly length: number } | undefined {
  const end = received.indexOf(headEnd);
  if (end < 0) return undefined;
  const [first = '', ...lines] = received.toString('latin1', 0, end).split('\r\n');
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1]);
  const headers = new Map(
    lines.map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const;
    }),
  );
  const bodyAt = end + headEnd.length;
  const length = bodyAt + Number(headers.get('content-length') ?? 0);
  if (received.length < length) return undefined;
  const text = received.toString('utf8', bodyAt, length);
  return { answer: { kind: 'answer', status, headers, text, atMs: performance.now() }, length };
}
