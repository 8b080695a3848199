import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { serveConnection } from '../../../../src/nmi/server/fast-path/connection.ts';
import type { CachedResponse } from '../../../../src/nmi/server/fast-path/response-cache.ts';
import {
  bindPodToA,
  openLoopbackAgent,
  type LoopbackAgent,
} from '../../../support/loopback-agent.ts';
import { untilMetric } from '../../../support/until-metric.ts';

const target =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net';
const request = (...lines: readonly string[]): string =>
  [`GET ${target} HTTP/1.1`, 'Host: 169.254.169.254', 'Metadata: true', ...lines, '', ''].join(
    '\r\n',
  );
/** A request that is usual for any HTTP server, but not for the fast path. */
const unusual = request('Keep-Alive: 1', 'TE: trailers');

/** A raw connection from the pod's address that reads whole answers. */
class Raw implements Disposable {
  readonly #socket;
  #received = '';
  ended = false;

  constructor(agent: LoopbackAgent) {
    this.#socket = connect({ host: '127.0.0.1', port: agent.port, localAddress: '127.0.0.11' });
    this.#socket.on('data', (chunk) => (this.#received += chunk.toString('latin1')));
    this.#socket.on('end', () => (this.ended = true)).on('error', () => (this.ended = true));
  }

  write(text: string): void {
    this.#socket.write(text, 'latin1');
  }

  end(): void {
    this.#socket.end();
  }

  /** The next complete answer. */
  async answer(): Promise<string> {
    for (let tries = 0; tries < 3_000; tries++) {
      const headEnd = this.#received.indexOf('\r\n\r\n');
      const length = Number(/content-length: (\d+)/i.exec(this.#received)?.[1] ?? NaN);
      const whole = headEnd + 4 + length;
      if (headEnd > 0 && this.#received.length >= whole) {
        const answer = this.#received.slice(0, whole);
        this.#received = this.#received.slice(whole);
        return answer;
      }
      await delay(10);
    }
    throw new Error(`no whole answer: ${this.#received.slice(0, 200)}`);
  }

  async untilEnded(): Promise<void> {
    for (let tries = 0; tries < 3_000 && !this.ended; tries++) await delay(10);
    assert.ok(this.ended, 'the connection was not ended');
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

/** Without the parts that differ between any two answers. */
function plain(answer: string): string {
  return answer
    .replace(/x-ms-request-id: [0-9a-f-]{36}/, 'x-ms-request-id: ID')
    .replace(/Date: [^\r]+/, 'Date: DATE')
    .replaceAll(/"(?:ext_)?expires_in":"\d+"/g, '"expires_in":"N"');
}

async function openWarm(): Promise<LoopbackAgent> {
  const agent = await openLoopbackAgent({}, bindPodToA);
  using first = new Raw(agent);
  first.write(request());
  assert.match(await first.answer(), /^HTTP\/1\.1 200 OK\r\n/);
  return agent;
}

describe('a connection with usual requests', () => {
  it('gets the same bytes that Node’s HTTP server writes', async () => {
    await using agent = await openWarm();
    using fast = new Raw(agent);
    using slow = new Raw(agent);
    fast.write(request());
    slow.write(unusual);
    assert.equal(plain(await fast.answer()), plain(await slow.answer()));
    fast.write(request('Connection: close'));
    slow.write(request('Connection: close', 'TE: trailers'));
    assert.equal(plain(await fast.answer()), plain(await slow.answer()));
    await fast.untilEnded();
    await slow.untilEnded();
  });

  it('may send an unusual request at any time, and loses nothing', async () => {
    await using agent = await openWarm();
    using raw = new Raw(agent);
    const texts = [
      request(),
      request(),
      unusual,
      request(),
      `${request()}${request()}`,
      request('X-Forwarded-For: 1.2.3.4'),
    ];
    for (const text of texts) raw.write(text);
    const statuses: string[] = [];
    for (let count = 0; count < 7; count++) statuses.push((await raw.answer()).slice(9, 12));
    assert.deepEqual(statuses, ['200', '200', '200', '200', '200', '200', '400']);
  });

  it('is read when split into pieces, even single bytes', async () => {
    await using agent = await openWarm();
    using raw = new Raw(agent);
    for (let turn = 0; turn < 2; turn++) {
      const text = request();
      for (const piece of [text.slice(0, 1), text.slice(1, 40), text.slice(40)]) {
        raw.write(piece);
        await delay(15);
      }
      assert.match(await raw.answer(), /^HTTP\/1\.1 200 OK\r\n/);
    }
  });

  it('is answered although its client sends no more', async () => {
    await using agent = await openWarm();
    using raw = new Raw(agent);
    raw.write(request());
    raw.end();
    assert.match(await raw.answer(), /^HTTP\/1\.1 200 OK\r\n/);
    await raw.untilEnded();
  });

  it('is authorized anew at every request', async () => {
    await using agent = await openWarm();
    using raw = new Raw(agent);
    raw.write(request());
    assert.match(await raw.answer(), /^HTTP\/1\.1 200 OK\r\n/);
    agent.kube.delete({ kind: 'AzureIdentityBinding', namespace: 'default', name: 'a' });
    let status = '200';
    for (let tries = 0; tries < 200 && status === '200'; tries++) {
      raw.write(request());
      status = (await raw.answer()).slice(9, 12);
      await delay(5);
    }
    assert.equal(status, '503', 'the binding is deleted, and the pod is young');
  });

  it('is logged and counted like any other', async () => {
    await using agent = await openWarm();
    const untilCounted = (count: number): Promise<void> =>
      untilMetric(agent, 'nmi_requests_total{route="token",reason="ok"}', count);
    await untilCounted(1);
    using raw = new Raw(agent);
    raw.write(request());
    const id = /x-ms-request-id: (\S+)/.exec(await raw.answer())?.[1] ?? 'none';
    raw.write(unusual);
    const other = /x-ms-request-id: (\S+)/.exec(await raw.answer())?.[1] ?? 'none';
    await untilCounted(3);
    const fieldsOf = (requestId: string): readonly (readonly [string, unknown])[] => {
      const line = agent.log.find(
        (each) => each.includes(requestId) && each.includes('token request'),
      );
      assert.ok(line !== undefined);
      const varying = new Set(['time', 'durationMs', 'requestId']);
      const fields = JSON.parse(line) as Record<string, unknown>;
      const entries = Object.entries(fields).filter(([name]) => !varying.has(name));
      return entries.toSorted(([a], [b]) => a.localeCompare(b));
    };
    assert.deepEqual(fieldsOf(id), fieldsOf(other));
  });
});

/** The part of a socket that the fast path uses. */
class FakeSocket extends EventEmitter {
  readonly timeouts: number[] = [];
  destroyed = false;
  /** Bytes that the kernel has not accepted yet. */
  writableLength = 0;
  readonly setTimeout = (ms: number): this => {
    this.timeouts.push(ms);
    return this;
  };
  /** `pause` and `resume` in their order. */
  readonly flow: string[] = [];
  #unread: Buffer | undefined;
  readonly pause = (): number => this.flow.push('pause');
  readonly resume = (): number => this.flow.push('resume');
  readonly unshift = (chunk: Buffer): void => void (this.#unread = chunk);
  readonly read = (): void => {
    const unread = this.#unread;
    this.#unread = undefined;
    if (unread !== undefined) this.emit('data', unread);
  };
  readonly destroy = (): void => void (this.destroyed = true);
  readonly destroySoon = (): number => this.flow.push('destroySoon');
}

/** A connection; all its requests are answered when the batch is written. */
function serveFake(isTurn = true) {
  const turns: (() => void)[] = [];
  const socket = new FakeSocket();
  const seen: string[] = [];
  const batch: (() => void)[] = [];
  let answers = 0;
  const answer = (): CachedResponse => {
    const number = ++answers;
    return { writeTo: () => void seen.push(`answer ${number}`) };
  };
  serveConnection({
    socket: socket as unknown as Socket,
    inTurn: (work) => {
      if (isTurn) work();
      else turns.push(work);
      return isTurn;
    },
    batch: { add: (write) => batch.push(write) },
    shared: { last: undefined },
    answer,
    handOver: () => seen.push('handed over'),
    onSilent: () => seen.push('silent'),
    firstByteMs: 5_000,
    idleMs: 121_000,
  });
  const receive = (text = request()): boolean => socket.emit('data', Buffer.from(text));
  const takeTurn = (): void => turns.splice(0).forEach((work) => work());
  const writeBatch = (): void => batch.splice(0).forEach((write) => write());
  return { socket, seen, receive, takeTurn, writeBatch };
}

describe('the timeout of a connection', () => {
  it('is short until the first request, and then leads to a refusal', () => {
    const { socket, seen } = serveFake();
    assert.deepEqual(socket.timeouts, [5_000]);
    socket.emit('timeout');
    assert.deepEqual(seen, ['silent']);
    assert.ok(!socket.destroyed, 'the refusal is still to be written');
  });

  it('is that of an idle client after the first answer, and then ends the connection', () => {
    const { socket, seen, receive, writeBatch } = serveFake();
    receive();
    writeBatch();
    assert.deepEqual(socket.timeouts, [5_000, 121_000]);
    socket.emit('timeout');
    assert.deepEqual(seen, ['answer 1']);
    assert.ok(socket.destroyed);
  });
});

describe('a client that has used its share of a turn', () => {
  it('is read on when it is its turn again', () => {
    const { socket, seen, receive, takeTurn, writeBatch } = serveFake(false);
    receive();
    writeBatch();
    assert.deepEqual([seen, socket.flow], [[], ['pause']]);
    takeTurn();
    writeBatch();
    assert.deepEqual([seen, socket.flow], [['answer 1'], ['pause', 'resume']]);
    receive();
    writeBatch();
    assert.deepEqual(seen, ['answer 1'], 'one turn serves one read');
  });

  it('is left to Node’s HTTP server, which may pause it, after an unusual request', () => {
    const { socket, seen, receive, takeTurn } = serveFake(false);
    receive(unusual);
    takeTurn();
    assert.deepEqual(seen, ['handed over']);
    assert.deepEqual(socket.flow, ['pause', 'pause', 'resume']);
  });
});

describe('the end of a connection', () => {
  it('comes after its last answer, and nothing behind that is answered', () => {
    const { socket, seen, receive, writeBatch } = serveFake();
    receive(request('Connection: close'));
    receive();
    writeBatch();
    assert.deepEqual([seen, socket.destroyed], [['answer 1'], true]);
  });

  it('comes after the answer that is due when the client sends no more', () => {
    const { socket, seen, receive } = serveFake();
    receive();
    socket.emit('end');
    assert.deepEqual([seen, socket.destroyed, socket.flow], [['answer 1'], true, []]);
  });

  it('waits for the kernel to take the answer', () => {
    const { socket, seen, receive } = serveFake();
    receive();
    socket.writableLength = 1;
    socket.emit('end');
    const { destroyed, flow } = socket;
    assert.deepEqual([seen, destroyed, flow], [['answer 1'], false, ['destroySoon']]);
  });

  it('is one, and nothing is read after it', () => {
    const silent = serveFake();
    silent.socket.emit('timeout');
    silent.socket.emit('timeout');
    assert.deepEqual(silent.seen, ['silent']);
    for (const end of [
      (socket: FakeSocket) => socket.destroy(),
      (socket: FakeSocket) => socket.emit('timeout'),
    ]) {
      const { socket, seen, receive, takeTurn } = serveFake(false);
      receive();
      end(socket);
      takeTurn();
      assert.deepEqual(socket.flow, ['pause']);
      assert.ok(!seen.includes('answer 1'));
    }
  });
});

describe('a client that does not wait for its answers', () => {
  it('gets each of them, in order', () => {
    const { seen, receive, writeBatch } = serveFake();
    receive();
    receive();
    writeBatch();
    assert.deepEqual(seen, ['answer 1', 'answer 2']);
  });

  it('is handed over to Node’s HTTP server while it does not read them', () => {
    const { socket, seen, receive, writeBatch } = serveFake();
    receive();
    writeBatch();
    socket.writableLength = 1;
    receive();
    assert.deepEqual(seen, ['answer 1', 'handed over']);
  });
});
