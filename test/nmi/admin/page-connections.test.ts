import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { describe, it } from 'node:test';
import { PageConnections } from '../../../src/nmi/admin/page-connections.ts';

class FakeSocket extends EventEmitter {
  readonly remoteAddress: string | undefined;
  readonly localAddress = '10.0.0.4';
  destroyed = false;

  constructor(remoteAddress: string | undefined) {
    super();
    this.remoteAddress = remoteAddress;
  }

  destroy(): void {
    this.destroyed = true;
    this.emit('close');
  }
}

function add(connections: PageConnections, remoteAddress: string | undefined): FakeSocket {
  const socket = new FakeSocket(remoteAddress);
  connections.add(socket as unknown as Socket);
  return socket;
}

describe('the connections to the pages', () => {
  it('make room for a new one by closing the oldest', () => {
    const connections = new PageConnections();
    const all = Array.from({ length: 40 }, () => add(connections, '10.1.0.7'));
    assert.deepEqual(
      all.map(({ destroyed }) => destroyed),
      all.map((_, index) => index < 8),
    );
    all[20]?.destroy();
    add(connections, '10.1.0.7');
    assert.equal(all[8]?.destroyed, false, 'a closed one has released its place');
  });

  it('make room once for each new one, however late the closed ones end', () => {
    const connections = new PageConnections();
    const all = Array.from({ length: 40 }, () => {
      const socket = new FakeSocket('10.1.0.7');
      socket.emit = (name) => name !== 'close';
      connections.add(socket as unknown as Socket);
      return socket;
    });
    assert.equal(all.filter(({ destroyed }) => destroyed).length, 8);
  });

  it('of one address take no place from another address', () => {
    const connections = new PageConnections();
    const scrapes = ['10.2.0.9', '10.3.0.9'].map((address) => add(connections, address));
    const held = Array.from({ length: 100 }, () => add(connections, '10.1.0.7'));
    assert.ok(scrapes.every(({ destroyed }) => !destroyed));
    assert.equal(held.filter(({ destroyed }) => !destroyed).length, 30);
    connections.destroyAll();
    assert.ok([...scrapes, ...held].every(({ destroyed }) => destroyed));
  });

  it('of others take no place from the node itself', () => {
    const connections = new PageConnections();
    const probes = Array.from({ length: 32 }, () => add(connections, '10.0.0.4'));
    for (let index = 0; index < 100; index++) {
      add(connections, index % 2 === 0 ? `10.1.0.${index}` : undefined);
    }
    assert.ok(probes.every(({ destroyed }) => !destroyed));
  });
});
