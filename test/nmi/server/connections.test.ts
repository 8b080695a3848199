import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { getHeapStatistics } from 'node:v8';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import { Connections } from '../../../src/nmi/server/connections.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

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

const answering = {} as ServerResponse;

function open(each = 2, total = 100, eachWhenShort = each) {
  const connections = new Connections({ total, each, eachWhenShort });
  const add = (caller: CallerConnection) => {
    const socket = new FakeSocket();
    const asSocket = socket as unknown as Socket;
    return { socket, asSocket, connection: connections.add(asSocket, caller) };
  };
  const addBusy = (caller: CallerConnection) => {
    const added = add(caller);
    added.connection?.open.add(answering);
    return added;
  };
  return { connections, add, addBusy };
}

const nextTick = promisify((done: () => void) => {
  process.nextTick(done);
});

describe('the open connections', () => {
  it('are found by their socket until it closes', () => {
    const { connections, add } = open();
    const caller = callerAt('127.0.0.11');
    const { socket, asSocket, connection } = add(caller);
    assert.equal(connection?.caller, caller);
    assert.equal(connections.get(asSocket), connection);
    assert.equal(connections.size, 1);
    socket.destroy();
    assert.equal(connections.get(asSocket), undefined);
    assert.equal(connections.size, 0);
  });

  it('of one caller make no garbage that grows with their number when one is too many', () => {
    const { connections, addBusy } = open(400, 1_000);
    const caller = callerAt('127.0.0.11');
    for (let count = 0; count < 400; count++) addBusy(caller);
    const asSocket = new FakeSocket() as unknown as Socket;
    const allocated = () => getHeapStatistics().total_allocated_bytes;
    const before = allocated();
    for (let count = 0; count < 1_000; count++) connections.add(asSocket, caller);
    const each = (allocated() - before) / 1_000;
    assert.ok(each < 6_000, `${each} bytes`);
  });

  it('of one caller are limited while it waits for answers on all, and closing one makes room', () => {
    const { connections, addBusy } = open(2);
    const first = addBusy(callerAt('127.0.0.11'));
    assert.ok(addBusy(callerAt('127.0.0.11')).connection !== undefined);
    const tooMany = addBusy(callerAt('127.0.0.11'));
    assert.equal(tooMany.connection, undefined);
    assert.equal(connections.size, 2, 'a refused one is not kept');
    assert.ok(addBusy(callerAt('127.0.0.12')).connection !== undefined, 'of another caller');
    first.socket.destroy();
    assert.ok(addBusy(callerAt('127.0.0.11')).connection !== undefined);
    assert.equal(addBusy(callerAt('127.0.0.11')).connection, undefined);
  });

  it('that are idle or half sent make room for newer ones of their caller, the oldest first', () => {
    const { connections, add, addBusy } = open(3);
    const caller = callerAt('127.0.0.11');
    const other = add(callerAt('127.0.0.12'));
    const busy = addBusy(caller);
    const [idle, newer] = [add(caller), add(caller)];
    const beyond: string[] = [];
    const latest = new FakeSocket() as unknown as Socket;
    const isAdded = connections.add(latest, caller, () => beyond.push('too many')) !== undefined;
    assert.equal(isAdded, true);
    assert.deepEqual(beyond, ['too many']);
    const ended = [other, busy, idle, newer].map(({ socket }) => socket.ended);
    assert.deepEqual(ended, [undefined, undefined, 'destroyed', undefined]);
    assert.equal(connections.size, 4);
    add(caller);
    assert.equal(newer.socket.ended, 'destroyed', 'the next oldest is next');
  });

  it('do not count any more when they made room, although they are not closed yet', () => {
    const { add, addBusy } = open(3);
    const caller = callerAt('127.0.0.11');
    addBusy(caller);
    const [idle, newer] = [add(caller), add(caller)];
    idle.socket.destroy = () => undefined;
    const latest = add(caller);
    newer.socket.destroy();
    assert.ok(add(caller).connection !== undefined);
    assert.equal(latest.socket.ended, undefined);
  });

  it('of one caller may be fewer while half of the total is open', () => {
    const { connections, addBusy } = open(4, 10, 2);
    for (let count = 0; count < 4; count++) addBusy(callerAt('127.0.0.11'));
    assert.equal(connections.size, 4);
    for (let count = 0; count < 3; count++) addBusy(callerAt('127.0.0.12'));
    assert.equal(connections.size, 6);
    assert.equal(addBusy(callerAt('127.0.0.11')).connection, undefined);
  });

  it('of one caller are fewer as soon as half of the total is open', () => {
    const { addBusy } = open(4, 10, 2);
    for (let count = 0; count < 3; count++) addBusy(callerAt('127.0.0.11'));
    for (let count = 0; count < 2; count++) addBusy(callerAt('127.0.0.12'));
    assert.equal(addBusy(callerAt('127.0.0.11')).connection, undefined);
  });

  it('stay in the count under which they were opened, although their pod is known now', () => {
    const { add, addBusy } = open(1);
    const pods = new PodIndex(new HandClock());
    const caller = callerAt('127.0.0.11');
    const { socket } = addBusy(caller);
    pods.upsert(createPod({ ips: ['127.0.0.11'] }));
    caller.resolve(pods);
    socket.destroy();
    assert.ok(add(callerAt('127.0.0.11')).connection !== undefined);
  });

  it('of matching callers are reset, and no others', () => {
    const { connections, add } = open();
    const sockets = ['127.0.0.11', '127.0.0.12', '127.0.0.11'].map(
      (ip) => add(callerAt(ip)).socket,
    );
    assert.equal(
      connections.reset(({ ip }) => ip === '127.0.0.11'),
      2,
    );
    assert.deepEqual(
      sockets.map(({ ended }) => ended),
      ['reset', undefined, 'reset'],
    );
    assert.equal(connections.size, 1);
  });

  it('are reset also in the event loop turn in which they end', async () => {
    const connections = new Connections({ total: 1, each: 1, eachWhenShort: 1 });
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
    const { connections, add } = open();
    const [idle, busy] = [add(callerAt('127.0.0.11')), add(callerAt('127.0.0.12'))];
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
