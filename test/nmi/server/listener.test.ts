import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { systemClock } from '../../../src/base/time/clock.ts';
import { refuse, type Answer } from '../../../src/nmi/base/answers.ts';
import type { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import { FairTurns } from '../../../src/nmi/server/fair-turns.ts';
import { TokenFastPath } from '../../../src/nmi/server/fast-path/fast-path.ts';
import type { GrantedDecision } from '../../../src/nmi/server/decision-cache.ts';
import type { Attestation } from '../../../src/redirect/redirect.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { bareListener, openBareListener } from '../../support/bare-listener.ts';
import { createPod } from '../../support/cache-objects.ts';
import { freePort } from '../../../lab/fabric/free-ports.ts';
import { longLived } from '../../support/token-fixture.ts';

const usual = (...lines: readonly string[]): string =>
  ['GET /metadata/identity/oauth2/token?a=b HTTP/1.1', 'Metadata: true', ...lines, '', ''].join(
    '\r\n',
  );
const noGrant = { kind: 'refused', reason: 'parameter_missing', detail: 'test' } as const;

/** Answers callers with a decision from memory. */
function openFastPath(
  hasGrant: (caller: CallerConnection) => boolean,
  onBug: (error: unknown) => void = assert.ifError,
  onHit: (caller: CallerConnection) => void = () => undefined,
): TokenFastPath {
  const decisionOn = (target: string): GrantedDecision => ({
    target,
    query: {
      resource: 'r',
      selector: { kind: 'none' },
      bypassCache: false,
      badTokenSha256: undefined,
    },
    grant: {
      kind: 'granted',
      pod: createPod(),
      upstream: { kind: 'unnamed' },
      auxiliary: [],
      identity: undefined,
      by: 'test',
    },
    generation: 0,
    madeAtMs: 0,
    cacheKey: '',
  });
  return new TokenFastPath({
    decisions: {
      decide: (caller, target) => (hasGrant(caller) ? decisionOn(target) : noGrant),
      isCurrent: () => true,
    },
    broker: { peek: () => longLived },
    clock: systemClock,
    observer: { onHit: ({ caller }) => onHit(caller) },
    turns: new FairTurns(() => performance.now()),
    onBug,
  });
}

function dial(port: number, localAddress = '127.0.0.11'): Socket {
  const socket = connect({ host: '127.0.0.1', port, localAddress });
  return socket.on('error', () => undefined);
}

/** Everything received until the connection ends. */
async function allOf(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (bytes) => (text += String(bytes)));
  await once(socket, 'close');
  return text;
}

async function statusOf(socket: Socket, text = usual()): Promise<string> {
  socket.write(text);
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  return bytes.toString('latin1').slice(9, 12);
}

describe('the listener, when a component behind it fails', () => {
  it('closes a connection when its caller cannot be determined, and serves the next one', async () => {
    const broken = { attest: true, onConnection: false };
    const bugs: unknown[] = [];
    const fail = (what: string): never => {
      throw new RangeError(what);
    };
    await using listener = await openBareListener({
      attest: () => (broken.attest ? fail('attest') : { kind: 'by-address' }),
      onConnection: () => (broken.onConnection ? fail('onConnection') : undefined),
      onBug: (error) => bugs.push(error),
    });
    assert.equal(await allOf(dial(listener.port)), '');
    broken.attest = false;
    broken.onConnection = true;
    assert.equal(await allOf(dial(listener.port)), '');
    broken.onConnection = false;
    assert.equal(listener.connections, 0);
    const socket = dial(listener.port);
    assert.equal(await statusOf(socket), '404');
    socket.destroy();
    assert.deepEqual(bugs.map(String), ['RangeError: attest', 'RangeError: onConnection']);
  });

  it('answers by node:http when the fast path fails', async () => {
    const bugs: unknown[] = [];
    await using listener = await openBareListener({
      fastPath: openFastPath(
        () => {
          throw new RangeError('decide');
        },
        (error) => bugs.push(error),
      ),
    });
    const socket = dial(listener.port);
    assert.equal(await statusOf(socket), '404');
    socket.destroy();
    assert.deepEqual(bugs.map(String), ['RangeError: decide']);
  });
});

describe('the listener, while a caller keeps many connections busy', () => {
  const busy = '127.0.0.12';
  const connections = 60;

  for (const way of ['the fast path', 'node:http']) {
    it(`answers others by ${way} after a few of its requests`, async () => {
      let served = 0;
      const serve = (ip: string): true => {
        if (ip === busy) served++;
        const untilMs = performance.now() + (ip === busy ? 0.5 : 0);
        while (performance.now() < untilMs);
        return true;
      };
      const fastPathOf = (onHit: (ip: string) => void) =>
        openFastPath(
          () => true,
          assert.ifError,
          ({ ip }) => onHit(ip),
        );
      await using listener = await openBareListener({
        handle: ({ caller }) => serve(caller.ip) && refuse('not_found', 'nothing'),
        ...(way === 'node:http' ? {} : { fastPath: fastPathOf(serve) }),
      });
      using cleanUp = new DisposableStack();
      const sockets = Array.from({ length: connections }, () => dial(listener.port, busy));
      cleanUp.defer(() => sockets.forEach((socket) => socket.destroy()));
      for (const socket of sockets) {
        socket.write(usual());
        socket.on('data', () => socket.write(usual()));
      }
      await eventually(() => assert.ok(served >= connections * 2));
      const between: number[] = [];
      for (let turn = 0; turn < 9; turn++) {
        const before = served;
        const other = dial(listener.port);
        await statusOf(other);
        other.destroy();
        between.push(served - before);
      }
      // As many as it has connections, for each of the turns that accept, read and answer.
      const median = between.toSorted((one, two) => one - two)[4] ?? Infinity;
      assert.ok(median < connections / 2, `after ${between.join(' ')}`);
    });
  }
});

describe('the listener, when there are too many', () => {
  it('closes the oldest unused connection of the caller, and answers the newest one', async () => {
    const refused: string[] = [];
    await using listener = await openBareListener({
      limits: { total: 100, each: 2, eachWhenShort: 2 },
      onTooMany: (whose) => refused.push(whose),
    });
    const halfSent = dial(listener.port);
    const ended = once(halfSent, 'close');
    halfSent.write('GET /metadata HTTP/1.1\r\nHost');
    const idle = dial(listener.port);
    const other = dial(listener.port, '127.0.0.12');
    for (const socket of [idle, other]) assert.equal(await statusOf(socket), '404');
    assert.deepEqual(refused, []);
    const newest = dial(listener.port);
    assert.equal(await statusOf(newest), '404');
    await ended;
    assert.deepEqual(refused, ['per_caller']);
    for (const socket of [idle, other, newest]) {
      assert.equal(await statusOf(socket), '404');
      socket.destroy();
    }
  });

  it('closes the newest connection of a caller that waits for answers on all others', async () => {
    const refused: string[] = [];
    const held = Promise.withResolvers<Answer>();
    await using listener = await openBareListener({
      limits: { total: 100, each: 2, eachWhenShort: 2 },
      onTooMany: (whose) => refused.push(whose),
      handle: () => held.promise,
    });
    const waiting = [dial(listener.port), dial(listener.port)];
    const statuses = waiting.map((socket) => statusOf(socket));
    while (listener.connections < 2) await new Promise(setImmediate);
    await delay(50);
    assert.equal(await allOf(dial(listener.port)), '');
    assert.deepEqual(refused, ['per_caller']);
    held.resolve(refuse('not_found', 'No.'));
    assert.deepEqual(await Promise.all(statuses), ['404', '404']);
    for (const socket of waiting) socket.destroy();
  });

  it('distinguishes callers on the host network, which share an address', async () => {
    let cgroupId = 1n;
    await using listener = await openBareListener({
      limits: { total: 100, each: 1, eachWhenShort: 1 },
      attest: (): Attestation => ({ kind: 'attested', cgroupId }),
    });
    const one = dial(listener.port, '127.0.0.1');
    assert.equal(await statusOf(one), '404');
    cgroupId = 2n;
    const other = dial(listener.port, '127.0.0.1');
    assert.equal(await statusOf(other), '404');
    assert.equal(await statusOf(one), '404');
    const ended = once(other, 'close');
    const newer = dial(listener.port, '127.0.0.1');
    assert.equal(await statusOf(newer), '404');
    await ended;
    assert.equal(await statusOf(one), '404');
    for (const socket of [one, newer]) socket.destroy();
  });

  it('counts the connections of a known pod together, from any of its addresses', async () => {
    const pods = new PodIndex(systemClock);
    pods.upsert(createPod({ ips: ['127.0.0.11', '127.0.0.12'] }));
    await using listener = await openBareListener({
      limits: { total: 100, each: 1, eachWhenShort: 1 },
      onConnection: (caller) => caller.resolve(pods),
    });
    const one = dial(listener.port);
    assert.equal(await statusOf(one), '404');
    const ended = once(one, 'close');
    const other = dial(listener.port, '127.0.0.12');
    assert.equal(await statusOf(other), '404');
    await ended;
    other.destroy();
  });

  it('counts no connection that its peer had reset before it was accepted', async () => {
    const counted = Promise.withResolvers<number>();
    const ips: string[] = [];
    await using listener = await openBareListener({
      onConnection: ({ ip }) => {
        ips.push(ip);
        queueMicrotask(() => counted.resolve(listener.connections));
      },
    });
    const reset = `require('node:net').connect(${listener.port}, '127.0.0.1', function () {
      this.resetAndDestroy();
    });`;
    // Nothing is accepted meanwhile.
    assert.equal(spawnSync(process.execPath, ['-e', reset]).status, 0);
    assert.equal(await counted.promise, 0);
    assert.deepEqual(ips, ['']);
  });

  it('accepts no more than its total limit', async () => {
    const refused: string[] = [];
    await using listener = await openBareListener({
      limits: { total: 1, each: 1, eachWhenShort: 1 },
      onTooMany: (whose) => refused.push(whose),
    });
    const one = dial(listener.port);
    assert.equal(await statusOf(one), '404');
    assert.equal(await allOf(dial(listener.port, '127.0.0.12')), '');
    assert.deepEqual(refused, ['total']);
    one.destroy();
  });
});

describe('the listener', () => {
  it('reports every refusal that happens before the request handler', async () => {
    const reasons: string[] = [];
    await using listener = await openBareListener({
      onRefusal: ({ reason }) => reasons.push(reason),
    });
    const texts = [
      'CONNECT h:80 HTTP/1.1\r\n\r\n',
      'GET / HTTP/1.1\r\nExpect: x\r\n\r\n',
      'GET / HTTP/9.9\r\n\r\n',
    ];
    const statuses: string[] = [];
    for (const text of texts) statuses.push(await statusOf(dial(listener.port), text));
    assert.deepEqual(statuses, ['405', '400', '400']);
    assert.deepEqual(reasons, ['method_not_allowed', 'request_malformed', 'request_malformed']);
  });

  it('closes a connection with too many pipelined requests, in any number of pieces', async () => {
    const held = Promise.withResolvers<Answer>();
    let seen = 0;
    await using listener = await openBareListener({
      handle: () => {
        seen++;
        return held.promise;
      },
    });
    const socket = dial(listener.port).setNoDelay();
    const closed = allOf(socket);
    for (let count = 1; count <= 16; count++) {
      socket.write(usual());
      await eventually(() => assert.equal(seen, count));
    }
    socket.write(usual());
    assert.equal(await closed, '');
    assert.equal(seen, 16);
    held.resolve(refuse('not_found', 'nothing'));
  });

  it('answers a request whose head has 16 KiB, and refuses a larger one with that number', async () => {
    const reasons: string[] = [];
    await using listener = await openBareListener({
      onRefusal: ({ reason }) => reasons.push(reason),
    });
    const headOf = (bytes: number) => usual(`X: ${'x'.repeat(bytes - usual('X: ').length)}`);
    const served = dial(listener.port);
    assert.equal(await statusOf(served, headOf(16 * 1024)), '404');
    served.destroy();
    assert.deepEqual(reasons, []);
    const refused = dial(listener.port);
    // Node does not count the characters between the parts of a head.
    refused.write(headOf(17 * 1024));
    const answer = await allOf(refused);
    assert.match(answer, /^HTTP\/1\.1 431 [^]*The request head is larger than 16384 bytes\./);
    assert.deepEqual(reasons, ['headers_too_large']);
  });

  it('refuses a client once, whatever it sends after that', async () => {
    const reasons: string[] = [];
    await using listener = await openBareListener({
      onRefusal: ({ reason }) => reasons.push(reason),
    });
    // It keeps its own half open, so that the listener reads on.
    const socket = connect({ host: '127.0.0.1', port: listener.port, allowHalfOpen: true });
    socket.on('error', () => undefined);
    assert.equal(await statusOf(socket, 'GET / HTTP/9.9\r\n\r\n'), '400');
    const closed = once(socket, 'close');
    socket.end('GET / HTTP/9.9\r\n\r\n');
    await closed;
    assert.deepEqual(reasons, ['request_malformed']);
  });

  it('answers all requests that came before a malformed one, and then ends the connection', async () => {
    const held: PromiseWithResolvers<Answer>[] = [];
    const refusals: string[] = [];
    await using listener = await openBareListener({
      onRefusal: ({ reason }) => refusals.push(reason),
      handle: () => {
        const answer = Promise.withResolvers<Answer>();
        held.push(answer);
        return answer.promise;
      },
    });
    const socket = dial(listener.port);
    const answers = allOf(socket);
    socket.write(`${usual()}${usual()}malformed\r\n\r\n`);
    await eventually(() => assert.equal(held.length, 2));
    for (const [index, { resolve }] of held.entries()) {
      resolve(refuse('not_found', `answer ${index + 1}`));
    }
    assert.match(await answers, /^HTTP\/1\.1 404 [^]*answer 1 [^]*HTTP\/1\.1 404 [^]*answer 2 /);
    assert.deepEqual(refusals, []);
  });

  for (const [what, lines, body] of [
    ['a length', ['Content-Length: 5'], 'hello'],
    ['chunks', ['Transfer-Encoding: chunked'], '5\r\nhello\r\n0\r\n\r\n'],
  ] as const) {
    it(`ends a connection after a request with a body of ${what}, which is not read`, async () => {
      await using listener = await openBareListener();
      const socket = dial(listener.port);
      const ended = once(socket, 'end');
      socket.write(usual(...lines) + body);
      const [answer] = (await once(socket, 'data')) as [Buffer];
      assert.match(answer.toString(), /^HTTP\/1\.1 404 .*\r\nConnection: close\r\n/s);
      await ended;
    });
  }

  it('answers a client that has meanwhile ended its sending half', async () => {
    const asked = Promise.withResolvers<void>();
    const held = Promise.withResolvers<Answer>();
    await using listener = await openBareListener({
      handle: () => {
        asked.resolve();
        return held.promise;
      },
    });
    const socket = dial(listener.port);
    socket.write(usual());
    await asked.promise;
    const answer = allOf(socket.end());
    // The end of the client has arrived, and the request continues.
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    held.resolve(refuse('not_found', 'nothing'));
    assert.match(await answer, /^HTTP\/1\.1 404 /);
  });

  it('ends an idle connection on the fast path when it drains', async () => {
    await using listener = await openBareListener({ fastPath: openFastPath(() => true) });
    const idle = dial(listener.port);
    assert.equal(await statusOf(idle), '200');
    const ended = allOf(idle);
    await listener.drain(5_000);
    assert.equal(await ended, '');
  });

  it('ends an idle connection half a second after the drain began, and not only at its end', async () => {
    const clock = new HandClock();
    await using listener = await openBareListener({ clock });
    const idle = dial(listener.port);
    assert.equal(await statusOf(idle), '404');
    const ended = allOf(idle);
    const draining = listener.drain(5_000);
    clock.advance(499);
    assert.equal(listener.connections, 1);
    clock.advance(1);
    await draining;
    assert.equal(await ended, '');
    assert.deepEqual(clock.armed, []);
  });

  it('leaves no timer behind when it has drained', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((each) => each === 'Timeout');
    const before = timers().length;
    const listener = await openBareListener({ fastPath: openFastPath(() => true) });
    await listener.drain(5_000);
    assert.equal(timers().length, before);
  });

  it('decides for each caller on the fast path, each on its own connection', async () => {
    await using listener = await openBareListener({
      fastPath: openFastPath(({ ip }) => ip === '127.0.0.11'),
    });
    const one = dial(listener.port);
    const other = dial(listener.port, '127.0.0.12');
    // The same bytes as on the first connection, so the request is already known.
    assert.equal(await statusOf(one), '200');
    assert.equal(await statusOf(other), '404');
    assert.equal(await statusOf(one), '200');
    for (const socket of [one, other]) socket.destroy();
  });

  it('answers a request on a kept connection just after the drain began, as the last one', async () => {
    // However long a busy machine takes, it is just after.
    const clock = new HandClock();
    await using listener = await openBareListener({ clock, fastPath: openFastPath(() => true) });
    const kept = dial(listener.port);
    assert.equal(await statusOf(kept), '200');
    const draining = listener.drain(5_000);
    kept.write(usual());
    assert.match(await allOf(kept), /^HTTP\/1\.1 404 [^]*\r\nConnection: close\r\n/i);
    await draining;
  });

  it('listens at another port than the given one, and again after a port was taken', async () => {
    await using other = await openBareListener();
    await using listener = bareListener();
    assert.equal(listener.host, '127.0.0.1');
    await assert.rejects(listener.listen(other.port), { code: 'EADDRINUSE' });
    const port = await freePort();
    await listener.listen(port);
    assert.equal(listener.port, port);
    const socket = dial(port);
    assert.equal(await statusOf(socket), '404');
    socket.destroy();
  });

  it('listens no more once it was drained, though it never did', async () => {
    const port = await freePort();
    const listener = bareListener();
    await listener.drain(0);
    await listener.listen(port);
    const refused = connect({ host: '127.0.0.1', port });
    await assert.rejects(once(refused, 'connect'), { code: 'ECONNREFUSED' });
  });
});
