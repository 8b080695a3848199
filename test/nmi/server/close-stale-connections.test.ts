import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { resetGonePods } from '../../../src/nmi/server/close-stale-connections.ts';
import type { Listener } from '../../../src/nmi/server/listener.ts';
import { openBareListener } from '../../support/bare-listener.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const logged: unknown[] = [];
const log = {
  debug: () => undefined,
  info: (fields: object, message: string) => void logged.push([fields, message]),
  warn: () => undefined,
  error: () => undefined,
};

describe('the connections of a deleted pod', () => {
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  const one = createPod({ name: 'one', ips: ['127.0.0.11'] });
  const two = createPod({ name: 'two', ips: ['127.0.0.12'] });
  let listener: Listener;
  before(async () => {
    listener = await openBareListener({
      clock,
      onConnection: (caller) => caller.resolve(pods),
    });
  });
  after(() => listener[Symbol.asyncDispose]());

  /** One request, so that the connection is accepted and kept. */
  async function dial(localAddress: string): Promise<Socket> {
    const socket = connect({ host: '127.0.0.1', port: listener.port, localAddress });
    socket.on('error', () => undefined);
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'data');
    return socket;
  }

  it('are reset after a moment, and no others', async () => {
    pods.replace([one, two]);
    using _ = resetGonePods({ pods, listeners: [listener], clock, log });
    const ofOne = [await dial('127.0.0.11'), await dial('127.0.0.11')];
    const ofTwo = await dial('127.0.0.12');
    const ofNobody = await dial('127.0.0.13');
    pods.remove(one);
    // A new pod at the address does not affect older connections.
    pods.upsert(createPod({ name: 'next', ips: ['127.0.0.11'] }));
    const ofNext = await dial('127.0.0.11');
    assert.equal(clock.armed[0], 2_000);
    clock.advance(1_999);
    assert.equal(listener.connections, 5);
    const ends = ofOne.map((socket) =>
      assert.rejects(once(socket, 'close'), { code: 'ECONNRESET' }),
    );
    clock.advance(1);
    await Promise.all(ends);
    assert.equal(listener.connections, 3);
    assert.deepEqual(logged, [[{ connections: 2 }, 'connections of deleted pods reset']]);
    for (const socket of [ofTwo, ofNobody, ofNext]) {
      socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
      await once(socket, 'data');
      socket.destroy();
    }
  });

  it('are not searched any more after disposal', () => {
    pods.replace([one]);
    const resetting = resetGonePods({ pods, listeners: [listener], clock, log });
    pods.replace([]);
    resetting[Symbol.dispose]();
    pods.replace([one]);
    assert.deepEqual(clock.armed, []);
  });

  it('are kept while the pod exists, whatever else changes in it', async () => {
    pods.replace([two]);
    using _ = resetGonePods({ pods, listeners: [listener], clock, log });
    const socket = await dial('127.0.0.12');
    pods.upsert({ ...two, phase: 'Failed' });
    pods.upsert({ ...two, labels: { changed: 'yes' } });
    logged.length = 0;
    clock.advance(10_000);
    assert.deepEqual(logged, []);
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'data');
    socket.destroy();
  });
});
