import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandClock } from '../../../support/hand-clock.ts';
import { usedHeap } from '../../../support/heap.ts';
import { RenderedToken } from '../../../../src/cache/token/token.ts';
import { ResponseCache } from '../../../../src/nmi/server/fast-path/response-cache.ts';

const ids = ['a', 'b', 'c', 'd'].map((letter) => letter.repeat(36));
const [a = '', b = '', c = ''] = ids;

/** A socket with a kernel that accepts everything, or nothing. */
class Sink {
  readonly written: Buffer[] = [];
  readonly writableLength: number;

  constructor(writableLength = 0) {
    this.writableLength = writableLength;
  }

  readonly write = (bytes: Buffer | string): boolean => {
    assert.ok(Buffer.isBuffer(bytes));
    this.written.push(bytes);
    return true;
  };
}

const idsIn = (sink: Sink): readonly (string | undefined)[] =>
  sink.written.map((bytes) => /x-ms-request-id: (\S+)\r\n/.exec(bytes.toString())?.[1]);

function open(clientId = 'client') {
  const clock = new HandClock();
  const answers = new ResponseCache(clock);
  const rendered = new RenderedToken({
    accessToken: 'token',
    clientId,
    resource: 'https://vault.example',
    expiresAtWallS: Math.floor(clock.wallMs() / 1000) + 3_600,
    notBeforeWallS: 0,
    extExpiresAtWallS: undefined,
  });
  return { clock, answers, rendered };
}

describe('an answer from the cache', () => {
  it('has its own request id, and the length in its header', () => {
    const { answers, rendered } = open('clíent ');
    const sink = new Sink();
    answers.render(rendered, undefined, a, false).writeTo(sink);
    const [head = '', body = ''] = sink.written[0]?.toString().split('\r\n\r\n') ?? [];
    assert.match(head, /\r\nConnection: keep-alive\r\nKeep-Alive: timeout=120$/);
    assert.equal(Number(/Content-Length: (\d+)/.exec(head)?.[1]), Buffer.byteLength(body));
    assert.match(body, /"client_id":"clíent "/);
    assert.deepEqual(idsIn(sink), [a]);
  });

  it('does not change bytes that another connection has not sent yet, also in the same turn', () => {
    const { answers, rendered } = open();
    const slow = new Sink(1);
    const quick = new Sink();
    const due = ids.slice(0, 3).map((id) => answers.render(rendered, undefined, id, false));
    for (const [index, sink] of [slow, quick, slow].entries()) due[index]?.writeTo(sink);
    answers.render(rendered, undefined, 'd'.repeat(36), false).writeTo(quick);
    assert.deepEqual(idsIn(slow), [a, c]);
    assert.equal(idsIn(quick).at(-1), 'd'.repeat(36));
  });

  it('counts down the remaining life of the token by the second', () => {
    const { clock, answers, rendered } = open();
    const left = () => {
      const sink = new Sink();
      answers.render(rendered, undefined, a, true).writeTo(sink);
      return /"expires_in":"(\d+)"/.exec(sink.written[0]?.toString() ?? '')?.[1];
    };
    assert.equal(left(), '3600');
    clock.advance(999);
    clock.advance(1);
    assert.equal(left(), '3599');
    clock.advance(600);
    assert.equal(left(), '3599');
    clock.advance(500);
    assert.equal(left(), '3598', 'of another second, half a second later');
  });

  it('has the date of its second', () => {
    const { clock, answers, rendered } = open();
    const date = () => {
      const sink = new Sink();
      answers.render(rendered, undefined, a, false).writeTo(sink);
      return /^Date: (.*)\r$/m.exec(sink.written[0]?.toString() ?? '')?.[1];
    };
    clock.advance(600);
    assert.equal(date(), 'Thu, 01 Jan 2026 00:00:00 GMT');
    clock.advance(500);
    assert.equal(date(), 'Thu, 01 Jan 2026 00:00:01 GMT');
  });

  it('is released within a second, with or without further requests', async () => {
    const { clock, answers, rendered } = open();
    // In a separate function, so that its variables are released with it.
    const ask = (): WeakRef<RenderedToken> => {
      const other = new RenderedToken({ ...rendered.token, accessToken: 'of nobody' });
      for (const isLast of [true, false]) {
        answers.render(other, undefined, a, isLast).writeTo(new Sink());
      }
      return new WeakRef(other);
    };
    const kept = ask();
    await usedHeap();
    assert.ok(kept.deref() !== undefined, 'the test must be able to detect a kept one');
    clock.advance(1_000);
    await usedHeap();
    assert.equal(kept.deref(), undefined);
    assert.deepEqual(clock.armed, []);
    answers.render(rendered, undefined, b, false);
    assert.deepEqual(clock.armed, [1_000], 'the next one is released, too');
  });

  it('is kept for the second, however long requests continue', () => {
    const { clock, answers, rendered } = open();
    let armed = 0;
    clock.advance(300);
    for (let turn = 0; turn < 100; turn++) {
      for (const isLast of [true, false]) answers.render(rendered, undefined, a, isLast);
      armed = Math.max(armed, clock.armed.length);
      clock.advance(90);
    }
    assert.equal(armed, 1);
  });

  it('is rendered once a second for a token, of the latest thousand tokens', () => {
    const { answers, rendered } = open();
    const sink = new Sink();
    const ask = (token = rendered) => answers.render(token, undefined, a, false).writeTo(sink);
    ask();
    ask(new RenderedToken(rendered.token));
    ask();
    assert.ok(sink.written[0] === sink.written[2], 'the same bytes');
    for (let other = 0; other < 1_024; other++) ask(new RenderedToken(rendered.token));
    ask();
    assert.ok(sink.written[0] !== sink.written.at(-1), 'memory is limited');
  });

  it('closes the connection for the last request on it, and for no other', () => {
    const { answers, rendered } = open();
    const sink = new Sink();
    for (const isLast of [true, false, true, false]) {
      answers.render(rendered, undefined, a, isLast).writeTo(sink);
    }
    const closing = sink.written.map((bytes) => bytes.includes('\r\nConnection: close\r\n'));
    assert.deepEqual(closing, [true, false, true, false]);
    assert.ok(sink.written[0] === sink.written[2], 'each is rendered once');
  });

  it('repeats the id of its request, and of no other request', () => {
    const { answers, rendered } = open();
    const sink = new Sink();
    const asked = { kind: 'object_id', value: 'object' } as const;
    for (const each of [undefined, asked, undefined]) {
      answers.render(rendered, each, b, false).writeTo(sink);
    }
    const told = sink.written.map((bytes) => bytes.includes('"object_id":"object"'));
    assert.deepEqual(told, [false, true, false]);
  });
});
