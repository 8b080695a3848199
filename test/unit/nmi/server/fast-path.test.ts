/**
 * The fast path: its parser, its connections, its answers. It never returns an answer that `node:http`
 * and the checks behind it would not return.
 */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { RenderedToken } from '../../../../src/cache/token/token.ts';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import { createServiceAccounts } from '../../../../src/nmi/kube/accounts/service-accounts.ts';
import { serveConnection } from '../../../../src/nmi/server/fast-path/connection.ts';
import {
  readRequest,
  type KnownRequest,
} from '../../../../src/nmi/server/fast-path/known-request.ts';
import { parseCanonicalRequest, parseTarget } from '../../../../src/nmi/server/fast-path/parser.ts';
import {
  ResponseCache,
  type CachedResponse,
} from '../../../../src/nmi/server/fast-path/response-cache.ts';
import { WriteBatch } from '../../../../src/nmi/server/fast-path/write-batch.ts';
import type { Attestation } from '../../../../src/redirect/redirect.ts';
import { createBinding, createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { usedHeap } from '../../../support/heap.ts';
import { bindPodToA, openLoopbackAgent } from '../../../support/loopback-agent.ts';
import { FastConnection } from '../../../support/fast-connection.ts';
import { pass } from '../../../support/token-fixture.ts';
import { ask as askAgent, tokenTarget } from '../../../support/ask.ts';
import { RawConnection, valuesOf, type RawReply } from '../../../support/raw-connection.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { untilMetric } from '../../../support/until-metric.ts';
import { world, type WorldGiven } from '../../../world.ts';

const target = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://r.example';
const headOf = (lines: readonly string[], asked = target): string =>
  [`GET ${asked} HTTP/1.1`, ...lines, '', ''].join('\r\n');

describe('a request of the usual form', () => {
  it('is recognised as the SDKs send it', () => {
    const host = 'Host: 169.254.169.254';
    for (const lines of [
      ['Metadata: true'],
      [host, 'metadata:true', 'Accept: */*', 'x-client-SKU: msal.js.node'],
      [host, 'Metadata:  true ', 'connection: keep-alive', 'Accept-Encoding: gzip'],
      ['Content-Type: application/x-www-form-urlencoded;charset=utf-8', 'METADATA: true'],
    ]) {
      const expected = { target, isLast: false, ids: [] };
      assert.deepEqual(parseCanonicalRequest(headOf(lines)), expected);
    }
    assert.ok(parseCanonicalRequest(headOf(['Metadata: true', 'Connection: close']))?.isLast);
  });

  it('has the positions of its ids', () => {
    const text = headOf(['x-ms-client-request-id: 1', 'Metadata: true', 'Traceparent:', 'X-Id: 2']);
    const ids = parseCanonicalRequest(text)?.ids.map(({ from, to }) => text.slice(from, to));
    assert.deepEqual(ids, [' 1', '']);
  });

  it('has at most 8 KiB and 63 headers', () => {
    const lines = ['Metadata: true', ...Array.from({ length: 62 }, () => 'X: y')];
    assert.ok(parseCanonicalRequest(headOf(lines)) !== undefined);
    assert.equal(parseCanonicalRequest(headOf([...lines, 'X: y'])), undefined);
    const rest = 8 * 1024 - headOf(['Metadata: true', 'X: ']).length;
    const ofLength = (length: number) => headOf(['Metadata: true', `X: ${'x'.repeat(length)}`]);
    assert.ok(parseCanonicalRequest(ofLength(rest)) !== undefined);
    assert.equal(parseCanonicalRequest(ofLength(rest + 1)), undefined);
  });

  it('has a visible target, also where the rest is known', () => {
    const begin = `GET ${target}`;
    assert.equal(parseTarget(begin, 8 * 1024), target);
    assert.equal(parseTarget(begin, 8 * 1024 + 1), undefined);
    for (const other of [`${begin} `, `${begin}\u0001`, `POST ${target}`, 'GET /other?']) {
      assert.equal(parseTarget(other, 100), undefined, other);
    }
  });

  it('has no other form', () => {
    const ok = 'Metadata: true';
    const whole = headOf([ok]);
    const lists: readonly (readonly string[])[] = [
      [],
      ['Metadata: True'],
      ...[ok, 'X-Forwarded-For: 1.2.3.4', 'Content-Length: 0', 'Transfer-Encoding: chunked'].map(
        (line) => [ok, line],
      ),
      ...['Expect: 100-continue', 'Connection: close, x', ' folded: x', 'no colon'].map((line) => [
        ok,
        line,
      ]),
      ...['Name : x', ': x', 'X: \u0001', 'X: é', 'X: a\nMetadata: true'].map((line) => [ok, line]),
      [ok, 'Connection: upgrade', 'Upgrade: x'],
      [ok, 'Connection: close', 'Connection: close'],
      [ok, 'no colon', 'X: y'],
      ['no colon', ok],
      [ok, `X: ${'x'.repeat(9_000)}`],
    ];
    const replaced = [
      ['GET', 'POST'],
      ['HTTP/1.1', 'HTTP/1.0'],
      [' HTTP/1.1', ''],
      ['?', '/?'],
      ['?', '%3f?'],
      ['r.example', 'r example'],
      ['r.example', 'é'],
      ['/metadata', '//metadata'],
    ] as const;
    for (const text of [
      ...lists.map((lines) => headOf(lines)),
      ...replaced.map(([from, to]) => whole.replace(from, to)),
      ...[`${whole}${whole}`, `${whole}x`, whole.slice(0, -2), whole.slice(0, -1)],
      ...[`\r\n${whole}`, '', '\r\n\r\n'],
    ]) {
      assert.equal(parseCanonicalRequest(text), undefined, text);
    }
  });
});

const read = (text: string, known?: KnownRequest): KnownRequest | undefined =>
  readRequest(Buffer.from(text, 'latin1'), known);
const sdk = (id: string, asked = target): string =>
  headOf(['Metadata: true', `x-ms-client-request-id: ${id}`, 'U: x', `traceparent: ${id}`], asked);

describe('a request that is recognised by an earlier one', () => {
  it('is that one when its bytes are equal, except for its ids', () => {
    const first = read(sdk('0'.repeat(36)));
    assert.ok(first !== undefined);
    assert.equal(first.target, target);
    assert.equal(read(sdk('0'.repeat(36)), first), first);
    assert.equal(read(sdk('1'.repeat(36)), first), first);
  });

  it('may have another target, and its ids then have other positions', () => {
    const first = read(sdk('a'));
    const other = read(sdk('b', `${target}&client_id=1`), first);
    assert.equal(other?.target, `${target}&client_id=1`);
    assert.equal(read(sdk('c', `${target}&client_id=1`), other), other);
    assert.equal(read(sdk('d'), other)?.target, target);
  });

  it('is not one with an id that contains more than an id', () => {
    const first = read(sdk('x'.repeat(30)));
    const names = [
      'x\r\nX-Forwarded-For: 1.2.3.4567',
      'x\r\nContent-Length: 10000000000',
      'x\r\nMetadata: true           ',
      `${'x'.repeat(29)}\u0001`,
      `${'x'.repeat(29)}\n`,
      `${'x'.repeat(29)}é`,
      `${'x'.repeat(29)}\u007f`,
    ];
    for (const name of names) {
      assert.equal(name.length <= 30, true, name);
      assert.equal(read(sdk(name.padEnd(30)), first), undefined, JSON.stringify(name));
    }
  });

  it('is not recognised when it is too long', () => {
    const long = headOf(['Metadata: true'], `${target}${'r'.repeat(9_000)}`);
    assert.equal(read(long, read(headOf(['Metadata: true']))), undefined);
  });
});

const request = (...lines: readonly string[]): string =>
  headOf(['Host: 169.254.169.254', 'Metadata: true', ...lines], tokenTarget);
/** A request that is usual for any HTTP server, but not for the fast path. */
const unusual = request('Keep-Alive: 1', 'TE: trailers');

describe('a connection with usual requests', () => {
  it('gets the same bytes and the same log line as from Node’s HTTP server', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    await askAgent(agent.client('127.0.0.11'), tokenTarget);
    const place = { host: '127.0.0.1', port: agent.port, sourceIp: '127.0.0.11' };
    using fast = await RawConnection.open(place);
    using slow = await RawConnection.open(place);
    /** Without the parts that differ between any two answers. */
    const plain = ({ bytes }: RawReply): string =>
      bytes
        .toString('latin1')
        .replace(/x-ms-request-id: [0-9a-f-]{36}/, 'x-ms-request-id: ID')
        .replace(/Date: [^\r]+/, 'Date: DATE')
        .replaceAll(/"(?:ext_)?expires_in":"\d+"/g, '"expires_in":"N"');
    const loggedOf = (reply: RawReply): object => {
      const [id = 'none'] = valuesOf(reply, 'x-ms-request-id');
      const isIt = (line: string) => line.includes(id) && line.includes('token request');
      const fields = JSON.parse(agent.log.find(isIt) ?? '{}') as Record<string, unknown>;
      assert.equal(typeof fields['durationMs'], 'number');
      return { ...fields, time: '', durationMs: 0, requestId: '' };
    };
    for (const last of [[], ['Connection: close']]) {
      fast.send(request(...last));
      slow.send(request(...last, 'TE: trailers'));
      const [one, other] = [await fast.readReply(), await slow.readReply()];
      assert.equal(plain(one), plain(other));
      await eventually(() => assert.deepEqual(loggedOf(one), loggedOf(other)));
    }
    for (const each of [fast, slow]) assert.equal((await each.readToEnd()).length, 0);
    await untilMetric(agent, 'nmi_requests_total{route="token",reason="ok"}', 5);
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
    for (let turn = 0; turn < 2; turn++) socket.emit('timeout');
    assert.deepEqual(seen, ['silent'], 'once');
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

  it('is not read after the end of its connection', () => {
    for (const end of ['destroy', 'timeout']) {
      const { socket, seen, receive, takeTurn } = serveFake(false);
      receive();
      if (end === 'destroy') socket.destroy();
      else socket.emit('timeout');
      takeTurn();
      assert.deepEqual(socket.flow, ['pause']);
      assert.ok(!seen.includes('answer 1'));
    }
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

  it('comes after the answer that is due when the client sends no more, and the kernel took it', () => {
    for (const [unsent, destroyed, flow] of [
      [0, true, []],
      [1, false, ['destroySoon']],
    ] as const) {
      const { socket, seen, receive } = serveFake();
      receive();
      socket.writableLength = unsent;
      socket.emit('end');
      assert.deepEqual([seen, socket.destroyed, socket.flow], [['answer 1'], destroyed, flow]);
    }
  });
});

describe('a client that does not wait for its answers', () => {
  it('gets each of them in order, and is handed over while it does not read them', () => {
    const { socket, seen, receive, writeBatch } = serveFake();
    receive();
    receive();
    writeBatch();
    assert.deepEqual(seen, ['answer 1', 'answer 2']);
    socket.writableLength = 1;
    receive();
    assert.deepEqual(seen.at(-1), 'handed over');
  });
});

describe('answers of one turn', () => {
  const loopTurn = () => new Promise(setImmediate);
  /** Runs turns with this many answers each. @returns how many were written before each end. */
  async function run(batch: WriteBatch, answersOfTurn: readonly number[]) {
    const atOnce: number[] = [];
    for (const answers of answersOfTurn) {
      let written = 0;
      for (let index = 0; index < answers; index++) batch.add(() => (written += 1));
      atOnce.push(written);
      await loopTurn();
      assert.equal(written, answers, 'all are written at the end of the turn');
    }
    return atOnce;
  }

  const times = (count: number, answers: number) => Array.from({ length: count }, () => answers);
  const singles = (written: readonly number[]) => written.filter((count) => count === 1).length;

  it('are written at once while turns have one answer, except for samples that find three', async () => {
    assert.equal(singles(await run(new WriteBatch(), times(340, 1))), 320);
    const atOnce = await run(new WriteBatch(), [...times(16, 1), 3, 3]);
    assert.deepEqual(atOnce.slice(-3), [1, 0, 0]);
  });

  it('are written at the end of the turn while turns have several, in their order', async () => {
    const batch = new WriteBatch();
    assert.deepEqual((await run(batch, times(40, 8))).slice(4), times(36, 0));
    const written: string[] = [];
    batch.add(() => written.push('first'));
    batch.add(() => {
      written.push('second');
      batch.add(() => written.push('third'));
    });
    for (const count of [0, 2, 3]) {
      assert.deepEqual(written, ['first', 'second', 'third'].slice(0, count));
      await loopTurn();
    }
    await run(batch, times(40, 8));
    const ofOneClient = await run(batch, times(400, 1));
    assert.equal(singles(ofOneClient.slice(-170)), 160);
  });
});

describe('a connection with pending answers', () => {
  it('sends nothing when it was reset before they were written', () => {
    const { socket, seen, receive, writeBatch } = serveFake();
    receive();
    socket.destroy();
    writeBatch();
    assert.deepEqual(seen, []);
  });

  it('sends them at its end, in their order, and once', () => {
    const { socket, seen, receive, writeBatch } = serveFake();
    for (let count = 0; count < 3; count++) receive();
    socket.emit('end');
    writeBatch();
    assert.deepEqual(seen, ['answer 1', 'answer 2', 'answer 3']);
  });
});

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

const idsIn = ({ written }: Sink) =>
  written.map((bytes) => /x-ms-request-id: (\S+)\r\n/.exec(bytes.toString())?.[1]);

function openCache(clientId = 'client') {
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
  it('does not change bytes that another connection has not sent yet, also in the same turn', () => {
    const { answers, rendered } = openCache();
    const slow = new Sink(1);
    const quick = new Sink();
    const due = ids.slice(0, 3).map((id) => answers.render(rendered, undefined, id, false));
    for (const [index, sink] of [slow, quick, slow].entries()) due[index]?.writeTo(sink);
    answers.render(rendered, undefined, 'd'.repeat(36), false).writeTo(quick);
    assert.deepEqual(idsIn(slow), [a, c]);
    assert.equal(idsIn(quick).at(-1), 'd'.repeat(36));
  });

  it('has the date of its second, and counts down the life of the token by the second', () => {
    const { clock, answers, rendered } = openCache();
    const next = () => {
      const sink = new Sink();
      answers.render(rendered, undefined, a, true).writeTo(sink);
      const text = sink.written[0]?.toString() ?? '';
      return [/"expires_in":"(\d+)"/, /^Date: .* (\S+) GMT\r$/m].map(
        (part) => part.exec(text)?.[1],
      );
    };
    assert.deepEqual(next(), ['3600', '00:00:00']);
    for (const [passed, expected] of [
      [1_000, ['3599', '00:00:01']],
      [600, ['3599', '00:00:01']],
      // Of another second, half a second later.
      [500, ['3598', '00:00:02']],
    ] as const) {
      clock.advance(passed);
      assert.deepEqual(next(), expected);
    }
  });

  it('is released within a second, with or without further requests', async () => {
    const { clock, answers, rendered } = openCache();
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
    for (const isLast of [true, false]) answers.render(rendered, undefined, b, isLast);
    assert.deepEqual(clock.armed, [1_000], 'the next ones are released, too, at once');
  });

  it('is rendered once a second for a token, of the latest thousand tokens', () => {
    const { answers, rendered } = openCache();
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

  it('closes the connection for the last request, and repeats the id of its request, and no other', () => {
    const { answers, rendered } = openCache();
    const sink = new Sink();
    const asked = { kind: 'object_id', value: 'object' } as const;
    for (const each of [undefined, asked, undefined, asked]) {
      answers.render(rendered, each, b, each === undefined).writeTo(sink);
    }
    const has = (text: string) => sink.written.map((bytes) => bytes.includes(text));
    assert.deepEqual(has('\r\nConnection: close\r\n'), [true, false, true, false]);
    assert.deepEqual(has('"object_id":"object"'), [false, true, false, true]);
    assert.ok(sink.written[0] === sink.written[2], 'each is rendered once');
    answers.render(rendered, asked, b, true).writeTo(sink);
    assert.deepEqual(has('\r\nConnection: close\r\n').at(-1), true);
  });
});

const clientId = 'aaaaaaaa-1111-4111-8111-111111111111';
const boundPod = createPod({
  uid: 'uid-p',
  cgroupUid: 'uid-p',
  ips: ['10.0.0.1'],
  labels: { aadpodidbinding: 'label' },
});

/** The fast path for a bound pod. */
function openPath(tokens: WorldGiven['tokens'] = {}) {
  const clock = new HandClock();
  const annotations: Record<string, string> = {};
  const accounts = createServiceAccounts({
    clock,
    staleLimitMs: 300_000,
    client: { getJson: () => Promise.resolve({ metadata: { annotations: { ...annotations } } }) },
  });
  const fixture = world({
    clock,
    accounts,
    accountsTenant: 'tenant.example',
    policy: { graceMs: 0 },
    tokens,
  });
  fixture.pods.upsert(boundPod);
  fixture.grants.identities.upsert(createIdentity({ clientId }));
  fixture.grants.bindings.upsert(createBinding());
  const dial = (attestation: Attestation = { kind: 'by-address' }, isDraining?: () => boolean) => {
    const caller = new CallerConnection({ remoteIp: '10.0.0.1' }, attestation, () => 'uid-p');
    const connection = new FastConnection(fixture.fastPath, caller, isDraining);
    return (asked = tokenTarget) => connection.ask(asked);
  };
  return { ...fixture, clock, annotations, isServed: dial(), dial };
}

describe('the fast path on a kept connection', () => {
  it('hands over a draining connection, because its answer must announce the end', () => {
    const state = { isDraining: false };
    const isServed = openPath().dial(undefined, () => state.isDraining);
    assert.ok(isServed());
    state.isDraining = true;
    assert.ok(!isServed());
  });

  it('hands over a request whose token is not in memory, as no fault', () => {
    const { hits, bugs, isServed } = openPath({ peek: () => undefined });
    assert.ok(!isServed());
    assert.deepEqual([hits, bugs], [[], []]);
  });

  const losses: Readonly<Record<string, (fixture: ReturnType<typeof openPath>) => void>> = {
    pod: ({ pods }) => pods.remove(boundPod),
    label: ({ pods }) => pods.upsert({ ...boundPod, labels: {} }),
    address: ({ pods }) => pods.upsert({ ...boundPod, ips: ['10.0.0.2'] }),
    'running pod': ({ pods }) => pods.upsert({ ...boundPod, phase: 'Succeeded' }),
    binding: ({ grants }) => grants.bindings.remove(createBinding()),
    identity: ({ grants }) => grants.identities.remove(createIdentity({ clientId })),
  };
  for (const [what, lose] of Object.entries(losses)) {
    it(`ends with the ${what}, on which the decision depends`, () => {
      const fixture = openPath();
      assert.ok(fixture.isServed());
      assert.ok(fixture.isServed());
      lose(fixture);
      assert.equal(fixture.isServed(), false);
    });
  }

  it('ends within a second when addresses are not trusted any more, for callers without other evidence', () => {
    const { clock, state, isServed, dial } = openPath();
    const isAttestedServed = dial({ kind: 'attested', cgroupId: 7n });
    assert.ok(isServed());
    assert.ok(isAttestedServed());
    state.trusts = false;
    assert.equal(dial()(), false, 'a new connection is not served at all');
    clock.advance(1_000);
    assert.equal(isServed(), false);
    assert.ok(isAttestedServed(), 'the kernel reports the pod');
    state.rightsProblem = 'not proven current: pods for 1 d 0 h';
    clock.advance(1_000);
    assert.ok(!isAttestedServed(), 'its rights are too old');
    state.rightsProblem = undefined;
    state.trusts = true;
    assert.ok(isServed());
  });

  it('ends when the service account loses its application, although only this client sends requests', async () => {
    const { pods, clock, annotations, isServed } = openPath();
    annotations['azure.workload.identity/client-id'] = clientId;
    const labels = { 'azure.workload.identity/use': 'true' };
    pods.upsert(createPod({ ips: ['10.0.0.1'], labels, serviceAccount: 'robot' }));
    assert.equal(isServed(), false, 'it is still being read');
    await nextTurn();
    assert.ok(isServed());
    delete annotations['azure.workload.identity/client-id'];
    let servedS = 0;
    while (isServed()) {
      servedS += 10;
      assert.ok(servedS <= 180, 'served three minutes after the annotation was removed');
      await pass(clock, 10_000);
      await nextTurn();
    }
  });
});

describe('the files of the fast path', () => {
  it('are imported by only one other file, which connects them to the server', () => {
    const root = join(import.meta.dirname, '../../../../src');
    const importers = readdirSync(root, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts') && !path.includes('/fast-path/'))
      .filter((path) => /from '[^']*\/fast-path\//.test(readFileSync(join(root, path), 'utf8')));
    assert.deepEqual(importers, ['nmi/server/server.ts']);
  });
});
