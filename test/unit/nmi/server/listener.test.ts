/** The listener and its connections: who may have how many, how requests are read, how they end. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort } from '../../../../lab/fabric/free-ports.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { refuse, type Answer } from '../../../../src/nmi/base/answers.ts';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import { resetGonePods } from '../../../../src/nmi/server/close-stale-connections.ts';
import { connectionLimits, readLimits } from '../../../../src/nmi/server/connection-limits.ts';
import { Connections } from '../../../../src/nmi/server/connections.ts';
import { FairTurns } from '../../../../src/nmi/server/fair-turns.ts';
import { TokenFastPath } from '../../../../src/nmi/server/fast-path/fast-path.ts';
import type { ListenerOptions } from '../../../../src/nmi/server/listener.ts';
import { bareListener, openBareListener } from '../../../support/bare-listener.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { createGrant, createGrantedDecision } from '../../../support/request-records.ts';
import { longLived } from '../../../support/token-fixture.ts';

const podIp = '127.0.0.11';
const otherIp = '127.0.0.12';
const usual = (...lines: readonly string[]): string =>
  ['GET /metadata/identity/oauth2/token?a=b HTTP/1.1', 'Metadata: true', ...lines, '', ''].join(
    '\r\n',
  );
/** A request that the fast path does not accept. */
const unusual = 'HEAD /x HTTP/1.1\r\nhost:x\r\nX-Other: 1\r\n\r\n';
const shortest = 'GET / HTTP/1.1\r\n\r\n';
const noGrant = { kind: 'refused', reason: 'parameter_missing', detail: 'test' } as const;
const nothing = refuse('not_found', 'nothing');

/** A listener with the clients of a test, and what it reported. */
async function open(over: Partial<ListenerOptions> = {}) {
  const stack = new AsyncDisposableStack();
  const refusals: string[] = [];
  const bugs: unknown[] = [];
  const listener = stack.use(
    await openBareListener({
      onRefusal: ({ reason }) => refusals.push(reason),
      onTooMany: (whose) => refusals.push(whose),
      onBug: (error) => bugs.push(error),
      ...over,
    }),
  );
  const dial = (localAddress = podIp, allowHalfOpen = false): Socket => {
    const { port } = listener;
    const socket = connect({ host: '127.0.0.1', port, localAddress, allowHalfOpen, noDelay: true });
    stack.defer(() => void socket.destroy());
    return socket.on('error', () => undefined);
  };
  /** The status of a request on a new connection. */
  const ask = (text?: string, ip?: string) => statusOf(dial(ip), text);
  return { listener, refusals, bugs, dial, ask, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Everything received until the connection ends. */
async function allOf(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (bytes) => (text += String(bytes)));
  await once(socket, 'close');
  return text;
}

/** Writes, and waits for so many answers. */
async function exchange(socket: Socket, text: string, answers = 1): Promise<string> {
  socket.write(text);
  let received = '';
  while (received.split('HTTP/1.1 ').length <= answers) {
    const signal = AbortSignal.timeout(30_000);
    const [bytes] = (await once(socket, 'data', { signal })) as [Buffer];
    received += bytes.toString('latin1');
  }
  return received;
}

async function statusOf(socket: Socket, text = usual()): Promise<string> {
  return (await exchange(socket, text)).slice(9, 12);
}

/** Requests that wait until the test answers them. */
function openWaiting(over: Partial<ListenerOptions> = {}) {
  const waiting: PromiseWithResolvers<Answer>[] = [];
  const handle = () => {
    const answer = Promise.withResolvers<Answer>();
    waiting.push(answer);
    return answer.promise;
  };
  const untilWaiting = (count: number) => eventually(() => assert.equal(waiting.length, count));
  return open({ handle, ...over }).then((given) => ({ ...given, waiting, untilWaiting }));
}

/** Answers callers with a decision from memory. */
function openFastPath(
  hasGrant: (caller: CallerConnection) => boolean,
  onBug: (error: unknown) => void = assert.ifError,
  onHit: (caller: CallerConnection) => void = () => undefined,
): TokenFastPath {
  const granted = createGrantedDecision(createGrant({ identity: undefined }));
  return new TokenFastPath({
    decisions: {
      decide: (caller, target) => (hasGrant(caller) ? { ...granted, target } : noGrant),
      isCurrent: () => true,
    },
    broker: { peek: () => longLived },
    clock: systemClock,
    observer: { onHit: ({ caller }) => onHit(caller) },
    turns: new FairTurns(() => performance.now()),
    onBug,
  });
}

describe('the listener, when a component behind it fails', () => {
  it('closes a connection when its caller cannot be determined, and serves the next one', async () => {
    let broken = 'attest';
    const failIn = (what: string) => {
      if (broken === what) throw new RangeError(what);
    };
    await using given = await open({
      attest: () => {
        failIn('attest');
        return { kind: 'by-address' };
      },
      onConnection: () => failIn('onConnection'),
    });
    assert.equal(await allOf(given.dial()), '');
    broken = 'onConnection';
    assert.equal(await allOf(given.dial()), '');
    broken = '';
    assert.equal(given.listener.connections, 0);
    assert.equal(await given.ask(), '404');
    assert.deepEqual(given.bugs.map(String), ['RangeError: attest', 'RangeError: onConnection']);
  });
});

describe('the listener, while a caller keeps many connections busy', () => {
  const connections = 60;
  for (const way of ['the fast path', 'node:http']) {
    it(`answers others by ${way} after a few of its requests`, async () => {
      let served = 0;
      const serve = (ip: string): true => {
        if (ip === otherIp) served++;
        const untilMs = performance.now() + (ip === otherIp ? 0.5 : 0);
        while (performance.now() < untilMs);
        return true;
      };
      const fastPath = openFastPath(
        () => true,
        assert.ifError,
        ({ ip }) => serve(ip),
      );
      await using given = await open({
        handle: ({ caller }) => serve(caller.ip) && nothing,
        ...(way === 'node:http' ? {} : { fastPath }),
      });
      for (let count = 0; count < connections; count++) {
        const socket = given.dial(otherIp);
        socket.write(usual());
        socket.on('data', () => socket.write(usual()));
      }
      await eventually(() => assert.ok(served >= connections * 2));
      const between: number[] = [];
      for (let turn = 0; turn < 9; turn++) {
        const before = served;
        await given.ask();
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
    const limits = { total: 100, each: 2, eachWhenShort: 2 };
    await using given = await open({ limits });
    const halfSent = given.dial();
    const ended = once(halfSent, 'close');
    halfSent.write('GET /metadata HTTP/1.1\r\nHost');
    const [idle, other] = [given.dial(), given.dial(otherIp)];
    for (const socket of [idle, other]) assert.equal(await statusOf(socket), '404');
    assert.deepEqual(given.refusals, []);
    const newest = given.dial();
    assert.equal(await statusOf(newest), '404');
    await ended;
    assert.deepEqual(given.refusals, ['per_caller']);
    for (const socket of [idle, other, newest]) assert.equal(await statusOf(socket), '404');
  });

  it('distinguishes callers on the host network, which share an address', async () => {
    let cgroupId = 1n;
    await using given = await open({
      limits: { total: 100, each: 1, eachWhenShort: 1 },
      attest: () => ({ kind: 'attested', cgroupId }),
    });
    const one = given.dial('127.0.0.1');
    assert.equal(await statusOf(one), '404');
    cgroupId = 2n;
    const other = given.dial('127.0.0.1');
    assert.equal(await statusOf(other), '404');
    assert.equal(await statusOf(one), '404');
    const ended = once(other, 'close');
    assert.equal(await given.ask(undefined, '127.0.0.1'), '404');
    await ended;
    assert.equal(await statusOf(one), '404');
  });

  it('counts the connections of a known pod together, from any of its addresses', async () => {
    const pods = new PodIndex(systemClock);
    pods.upsert(createPod({ ips: [podIp, otherIp] }));
    await using given = await open({
      limits: { total: 100, each: 1, eachWhenShort: 1 },
      onConnection: (caller) => caller.resolve(pods),
    });
    const one = given.dial();
    assert.equal(await statusOf(one), '404');
    const ended = once(one, 'close');
    assert.equal(await given.ask(undefined, otherIp), '404');
    await ended;
  });

  it('counts no connection that its peer had reset before it was accepted', async () => {
    const counted = Promise.withResolvers<number>();
    const ips: string[] = [];
    await using given = await open({
      onConnection: ({ ip }) => {
        ips.push(ip);
        queueMicrotask(() => counted.resolve(given.listener.connections));
      },
    });
    const reset = `require('node:net').connect(${given.listener.port}, '127.0.0.1', function () {
      this.resetAndDestroy();
    });`;
    // Nothing is accepted meanwhile.
    assert.equal(spawnSync(process.execPath, ['-e', reset]).status, 0);
    assert.equal(await counted.promise, 0);
    assert.deepEqual(ips, ['']);
  });

  it('accepts no more than its total limit', async () => {
    await using given = await open({ limits: { total: 1, each: 1, eachWhenShort: 1 } });
    assert.equal(await given.ask(), '404');
    assert.equal(await allOf(given.dial(otherIp)), '');
    assert.deepEqual(given.refusals, ['total']);
  });
});

describe('requests on a connection', () => {
  it('are refused before the request handler, and each refusal is reported', async () => {
    await using given = await open();
    for (const [text, status] of [
      ['CONNECT h:80 HTTP/1.1\r\n\r\n', '405'],
      ['GET / HTTP/1.1\r\nExpect: x\r\n\r\n', '400'],
      ['GET / HTTP/9.9\r\n\r\n', '400'],
    ] as const) {
      assert.equal(await given.ask(text), status, text);
    }
    const malformed = 'request_malformed';
    assert.deepEqual(given.refusals, ['method_not_allowed', malformed, malformed]);
    const tunnel = given.dial();
    tunnel.write(`CONNECT h:80 HTTP/1.1\r\n\r\n${shortest.repeat(3)}`);
    assert.equal((await allOf(tunnel)).match(/HTTP\/1\.1 /g)?.length, 1);
  });

  it('end the connection when too many are pipelined, in any number of pieces', async () => {
    await using given = await openWaiting();
    const socket = given.dial();
    const closed = allOf(socket);
    for (let count = 1; count <= 16; count++) {
      socket.write(usual());
      await given.untilWaiting(count);
    }
    socket.write(usual());
    assert.equal(await closed, '');
    assert.equal(given.waiting.length, 16);
  });

  it('are answered up to sixteen in one chunk, however split, and not read if there are more', async () => {
    let seen = 0;
    await using given = await open({ handle: () => (seen++, nothing) });
    const polite = given.dial();
    await exchange(polite, shortest.repeat(16), 16);
    polite.write(shortest.slice(0, 15));
    await exchange(polite, shortest.slice(15) + shortest, 2);
    assert.equal(seen, 18);
    polite.write(shortest.repeat(17));
    await once(polite.resume(), 'close');
    const flood = given.dial();
    flood.write(shortest.repeat(3_000));
    await once(flood.resume(), 'close');
    assert.equal(seen, 18);
    assert.equal(given.listener.connections, 0);
  });

  it('have a head of at most 16 KiB, and a larger one is refused with that number', async () => {
    await using given = await open();
    const headOf = (bytes: number) => usual(`X: ${'x'.repeat(bytes - usual('X: ').length)}`);
    assert.equal(await given.ask(headOf(16 * 1024)), '404');
    assert.deepEqual(given.refusals, []);
    const refused = given.dial();
    // Node does not count the characters between the parts of a head.
    refused.write(headOf(17 * 1024));
    const answer = await allOf(refused);
    assert.match(answer, /^HTTP\/1\.1 431 [^]*The request head is larger than 16384 bytes\./);
    assert.deepEqual(given.refusals, ['headers_too_large']);
  });

  it('are refused once, whatever their client sends after that', async () => {
    await using given = await open();
    // It keeps its own half open, so that the listener reads on.
    const socket = given.dial(podIp, true);
    assert.equal(await statusOf(socket, 'GET / HTTP/9.9\r\n\r\n'), '400');
    const closed = once(socket, 'close');
    socket.end('GET / HTTP/9.9\r\n\r\n');
    await closed;
    assert.deepEqual(given.refusals, ['request_malformed']);
  });

  it('with a body, which is not read, are the last of their connection', async () => {
    await using given = await open();
    for (const text of [
      `${usual('Content-Length: 5')}hello`,
      `${usual('Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\n\r\n`,
    ]) {
      const socket = given.dial();
      socket.write(text);
      assert.match(await allOf(socket), /^HTTP\/1\.1 404 .*\r\nConnection: close\r\n/s);
    }
  });
});

describe('a connection with a half-closed client', () => {
  it('gets an answer that is larger than the kernel accepts at once', async () => {
    await using given = await openWaiting();
    const body = 'x'.repeat(20_000_000);
    const socket = given.dial();
    const reading = allOf(socket.end(shortest));
    await given.untilWaiting(1);
    // The end of the client has arrived, and the request continues.
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    given.waiting[0]?.resolve({ reason: 'ok', status: 200, body });
    const text = await reading;
    assert.equal(text.length - text.indexOf('\r\n\r\n') - 4, body.length);
    await eventually(() => assert.equal(given.listener.connections, 0));
  });

  it('keeps its place until the answer is written if it was closed, and loses it if it was reset', async () => {
    await using given = await openWaiting();
    const [closing, resetting] = [given.dial(), given.dial()];
    for (const socket of [closing, resetting]) socket.write(shortest);
    await given.untilWaiting(2);
    closing.destroy();
    resetting.resetAndDestroy();
    await eventually(() => assert.equal(given.listener.connections, 1));
    await delay(100);
    assert.equal(given.listener.connections, 1, 'it looks like a half-closed one');
    for (const { resolve } of given.waiting) resolve({ reason: 'ok', status: 200, body: 'x' });
    await eventually(() => assert.equal(given.listener.connections, 0));
  });
});

describe('the opener of a connection', () => {
  /** An attested caller, and how often it was looked up. */
  async function openAttested() {
    const clock = new HandClock();
    const pods = new PodIndex(clock);
    const pod = createPod({ name: 'one', uid: 'one', cgroupUid: 'one', ips: [podIp] });
    pods.upsert(pod);
    const peers: string[] = [];
    const seen = { searches: 0, callers: [] as string[] };
    const see = (caller: CallerConnection): void => {
      seen.callers.push(caller.resolve(pods).kind);
    };
    const given = await open({
      clock,
      attest: ({ remoteIp }) => {
        peers.push(remoteIp);
        return { kind: 'attested', cgroupId: 7n };
      },
      findCgroupUid: (_, candidates) => {
        seen.searches += 1;
        return candidates.find((uid) => uid === 'one');
      },
      onConnection: (caller) => caller.resolve(pods),
      handle: ({ caller }) => {
        see(caller);
        return nothing;
      },
      fastPath: openFastPath((caller) => {
        see(caller);
        return false;
      }),
    });
    return { ...given, pods, pod, peers, seen };
  }

  it('is looked up once for all requests on it: in a row, pipelined, usual and unusual', async () => {
    await using given = await openAttested();
    const socket = given.dial();
    for (let count = 0; count < 11; count += 1) await exchange(socket, usual());
    await exchange(socket, usual().repeat(5), 5);
    await exchange(socket, unusual);
    await exchange(socket, usual());
    assert.ok(given.seen.callers.length >= 18, `${given.seen.callers.length} requests`);
    assert.deepEqual(new Set(given.seen.callers), new Set(['pod']));
    assert.deepEqual(given.peers, [podIp]);
    assert.equal(given.seen.searches, 1);
    for (let count = 0; count < 2; count++) await given.ask();
    assert.equal(given.peers.length, 3, 'once for each connection');
  });
});

describe('the connections of a deleted pod', () => {
  async function openFollowed() {
    const clock = new HandClock();
    const pods = new PodIndex(clock);
    const one = createPod({ name: 'one', ips: [podIp] });
    const two = createPod({ name: 'two', ips: [otherIp] });
    pods.replace([one, two]);
    const logged: unknown[] = [];
    const none = () => undefined;
    const info = (...line: readonly unknown[]) => void logged.push(line);
    const log = { debug: none, info, warn: none, error: none };
    const given = await open({ clock, onConnection: (caller) => caller.resolve(pods) });
    const resetting = resetGonePods({ pods, listeners: [given.listener], clock, log });
    return { ...given, clock, pods, one, two, logged, resetting };
  }

  it('are reset after a moment, and no others', async () => {
    await using given = await openFollowed();
    const { clock, pods, listener } = given;
    const accepted = async (ip: string) => {
      const socket = given.dial(ip);
      await statusOf(socket);
      return socket;
    };
    const ofOne = [await accepted(podIp), await accepted(podIp)];
    const kept = [await accepted(otherIp), await accepted('127.0.0.13')];
    pods.remove(given.one);
    // A new pod at the address does not affect older connections.
    pods.upsert(createPod({ name: 'next', ips: [podIp] }));
    kept.push(await accepted(podIp));
    assert.equal(clock.armed[0], 2_000);
    clock.advance(1_999);
    assert.equal(listener.connections, 5);
    const ends = ofOne.map((socket) =>
      assert.rejects(once(socket, 'close'), { code: 'ECONNRESET' }),
    );
    clock.advance(1);
    await Promise.all(ends);
    assert.equal(listener.connections, 3);
    assert.deepEqual(given.logged, [[{ connections: 2 }, 'connections of deleted pods reset']]);
    for (const socket of kept) assert.equal(await statusOf(socket), '404');
    given.resetting[Symbol.dispose]();
  });

  it('are kept while the pod exists, whatever else changes in it', async () => {
    await using given = await openFollowed();
    using _ = given.resetting;
    const socket = given.dial(otherIp);
    assert.equal(await statusOf(socket), '404');
    given.pods.upsert({ ...given.two, phase: 'Failed' });
    given.pods.upsert({ ...given.two, labels: { changed: 'yes' } });
    given.clock.advance(10_000);
    assert.deepEqual(given.logged, []);
    assert.equal(await statusOf(socket), '404');
  });
});

describe('the end of the listener', () => {
  for (const hasFastPath of [true, false]) {
    it(`ends an idle connection half a second after the drain began: fast path ${hasFastPath}`, async () => {
      const clock = new HandClock();
      const fastPath = hasFastPath ? openFastPath(() => true) : undefined;
      await using given = await open({ clock, fastPath });
      const [idle, half] = [given.dial(), given.dial()];
      assert.equal(await statusOf(idle), hasFastPath ? '200' : '404');
      half.write('GET /metadata/inst');
      await eventually(() => assert.equal(given.listener.connections, 2));
      const ended = allOf(idle);
      const draining = given.listener.drain(5_000);
      clock.advance(499);
      assert.equal(given.listener.connections, 2);
      clock.advance(1);
      await draining;
      assert.equal(await ended, '');
      assert.deepEqual([given.listener.connections, clock.armed], [0, []]);
    });
  }

  it('comes at the limit of the drain when a request does not end', async () => {
    const clock = new HandClock();
    await using given = await openWaiting({ clock });
    const socket = given.dial();
    const answer = allOf(socket);
    socket.write(usual());
    await given.untilWaiting(1);
    const draining = given.listener.drain(5_000);
    clock.advance(4_999);
    assert.equal(given.listener.connections, 1);
    clock.advance(1);
    await draining;
    assert.equal(await answer, '');
  });

  it('answers a request on a kept connection just after the drain began, as the last one', async () => {
    // However long a busy machine takes, it is just after.
    const clock = new HandClock();
    await using given = await open({ clock, fastPath: openFastPath(() => true) });
    const kept = given.dial();
    assert.equal(await statusOf(kept), '200');
    const draining = given.listener.drain(5_000);
    kept.write(usual());
    assert.match(await allOf(kept), /^HTTP\/1\.1 404 [^]*\r\nConnection: close\r\n/i);
    await draining;
  });
});

describe('the port of the listener', () => {
  it('may be another than the given one, also after a port was taken', async () => {
    await using other = await openBareListener();
    await using listener = bareListener();
    assert.equal(listener.host, '127.0.0.1');
    await assert.rejects(listener.listen(other.port), { code: 'EADDRINUSE' });
    const port = await freePort();
    await listener.listen(port);
    assert.equal(listener.port, port);
    const socket = connect({ host: '127.0.0.1', port });
    assert.equal(await statusOf(socket), '404');
    socket.destroy();
  });

  it('is not taken once the listener was drained, though it never listened', async () => {
    const port = await freePort();
    const listener = bareListener();
    await listener.drain(0);
    await listener.listen(port);
    const refused = connect({ host: '127.0.0.1', port });
    await assert.rejects(once(refused, 'connect'), { code: 'ECONNREFUSED' });
  });
});

class FakeSocket extends EventEmitter {
  ended: 'reset' | 'destroyed' | undefined;
  resetAndDestroy(): void {
    this.#end('reset');
  }
  destroy(): void {
    this.#end('destroyed');
  }
  #end(how: 'reset' | 'destroyed'): void {
    this.ended = how;
    this.emit('close');
  }
}

function callerAt(remoteIp: string): CallerConnection {
  return new CallerConnection({ remoteIp }, { kind: 'by-address' });
}

function openConnections(each = 2, total = 100, eachWhenShort = each) {
  const connections = new Connections({ total, each, eachWhenShort });
  const add = (ip: string, caller = callerAt(ip)) => {
    const socket = new FakeSocket();
    const asSocket = socket as unknown as Socket;
    return { socket, asSocket, caller, connection: connections.add(asSocket, caller) };
  };
  const addBusy = (ip: string, caller?: CallerConnection) => {
    const added = add(ip, caller);
    added.connection?.open.add({} as ServerResponse);
    return added;
  };
  return { connections, add, addBusy };
}

describe('the open connections', () => {
  it('of one caller are limited while it waits for answers on all, and closing one makes room', () => {
    const { connections, addBusy } = openConnections(2);
    const first = addBusy(podIp);
    assert.ok(addBusy(podIp).connection !== undefined);
    assert.equal(addBusy(podIp).connection, undefined);
    assert.equal(connections.size, 2, 'a refused one is not kept');
    assert.ok(addBusy(otherIp).connection !== undefined, 'of another caller');
    first.socket.destroy();
    assert.ok(addBusy(podIp).connection !== undefined);
    assert.equal(addBusy(podIp).connection, undefined);
  });

  it('that are idle or half sent make room for newer ones of their caller, the oldest first', () => {
    const { connections, add, addBusy } = openConnections(3);
    const added = [add(otherIp), addBusy(podIp), add(podIp), add(podIp)];
    const beyond: string[] = [];
    const latest = new FakeSocket() as unknown as Socket;
    assert.ok(connections.add(latest, callerAt(podIp), () => beyond.push('too many')));
    assert.deepEqual(beyond, ['too many']);
    const ended = () => added.map(({ socket }) => socket.ended);
    assert.deepEqual(ended(), [undefined, undefined, 'destroyed', undefined]);
    assert.equal(connections.size, 4);
    add(podIp);
    assert.equal(ended()[3], 'destroyed', 'the next oldest is next');
  });

  it('do not count any more when they made room, although they are not closed yet', () => {
    const { add, addBusy } = openConnections(3);
    addBusy(podIp);
    const [idle, newer] = [add(podIp), add(podIp)];
    idle.socket.destroy = () => undefined;
    const latest = add(podIp);
    newer.socket.destroy();
    assert.ok(add(podIp).connection !== undefined);
    assert.equal(latest.socket.ended, undefined);
  });

  for (const [ofCaller, ofOther] of [
    [4, 3],
    [3, 2],
  ] as const) {
    it(`of one caller, ${ofCaller} beside ${ofOther}, are fewer once half of the total is open`, () => {
      const { connections, addBusy } = openConnections(4, 10, 2);
      for (let count = 0; count < ofCaller; count++) addBusy(podIp);
      for (let count = 0; count < ofOther; count++) addBusy(otherIp);
      assert.equal(addBusy(podIp).connection, undefined);
      assert.equal(connections.size, Math.min(ofCaller + ofOther, 6));
    });
  }

  it('stay in the count under which they were opened, although their pod is known now', () => {
    const { add, addBusy } = openConnections(1);
    const pods = new PodIndex(new HandClock());
    const { socket, caller } = addBusy(podIp);
    pods.upsert(createPod({ ips: [podIp] }));
    caller.resolve(pods);
    socket.destroy();
    assert.ok(add(podIp).connection !== undefined);
  });

  it('are reset also in the event loop turn in which they end', async () => {
    const nextTick = promisify((done: () => void) => process.nextTick(done));
    const { connections } = openConnections(1, 1);
    const server = createServer().unref();
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as AddressInfo;
    const client = connect({ host: '127.0.0.1', port });
    client.on('error', () => undefined).unref();
    const [socket] = (await once(server, 'connection')) as [Socket];
    socket.on('error', () => undefined).unref();
    connections.add(socket, callerAt('127.0.0.1'));
    socket.end('the last answer');
    // The socket is closed in the next turn of the loop.
    while (socket.writableLength > 0) await nextTick();
    await nextTick();
    connections.reset(() => true);
    await once(socket, 'close');
    client.destroy();
    server.close();
    assert.equal(connections.size, 0);
  });

  it('end after the answers in progress, or at once', () => {
    const { connections, add } = openConnections();
    const [idle, busy] = [add(podIp), add(otherIp)];
    const response = { shouldKeepAlive: true } as ServerResponse;
    busy.connection?.open.add(response);
    connections.endAfterAnswers();
    assert.equal(response.shouldKeepAlive, false);
    connections.destroyIdle();
    assert.deepEqual([idle.socket.ended, busy.socket.ended], ['destroyed', undefined]);
    connections.destroyAll();
    assert.equal(busy.socket.ended, 'destroyed');
    assert.equal(connections.size, 0);
  });
});

describe('the limits of connections', () => {
  const limits = (files: number | string): string =>
    [
      'Limit                     Soft Limit           Hard Limit           Units     ',
      'Max processes             95852                95852                processes ',
      `Max open files            ${files}                 1048576              files     `,
    ].join('\n');

  it('are those of a large node, or fewer with few descriptors or several listeners', () => {
    for (const [listeners, text, total, each] of [
      ...[1_048_576, 65_536, 'unlimited'].map((files) => [1, limits(files), 20_000, 384] as const),
      [1, '', 20_000, 384],
      [1, limits(4_096), 3_584, 384],
      [1, limits(1_024), 512, 128],
      [2, limits(1_024), 256, 64],
    ] as const) {
      assert.deepEqual(connectionLimits(listeners, text), { total, each, eachWhenShort: 64 });
    }
  });

  it('are refused with fewer descriptors than the agent needs, and without /proc', () => {
    for (const files of [24, 64, 1_023]) {
      assert.throws(() => connectionLimits(1, limits(files)), {
        code: 'CONFIG',
        message: `the process may have ${files} open files, and the agent needs 1024; raise the limit in the container runtime (LimitNOFILE) or by ulimit -n`,
      });
    }
    assert.throws(() => readLimits('/no/such/limits'), {
      code: 'CONFIG',
      message: /^\/no\/such\/limits cannot be read: ENOENT.*; mount proc at \/proc$/,
    });
  });
});
