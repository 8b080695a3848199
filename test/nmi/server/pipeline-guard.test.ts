import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { refuse } from '../../../src/nmi/base/answers.ts';
import { openBareListener } from '../../support/bare-listener.ts';

const shortest = 'GET / HTTP/1.1\r\n\r\n';

async function openCounting() {
  const seen: string[] = [];
  const listener = await openBareListener({
    handle: ({ target }) => {
      seen.push(target);
      return refuse('not_found', 'nothing');
    },
  });
  return { listener, seen };
}

function dial(port: number): Socket {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true });
  return socket.on('error', () => undefined);
}

async function readUntil(socket: Socket, answers: number): Promise<void> {
  let text = '';
  while (text.split('HTTP/1.1 404').length <= answers) {
    const [piece] = (await once(socket, 'data')) as [Buffer];
    text += piece.toString('latin1');
  }
}

describe('requests in one chunk', () => {
  it('are not read when they are more than a client sends', async () => {
    const { listener, seen } = await openCounting();
    await using _ = listener;
    const flood = dial(listener.port);
    flood.write(shortest.repeat(3_000));
    await once(flood.resume(), 'close');
    assert.deepEqual(seen, []);
    assert.equal(listener.connections, 0);
  });

  it('are not read on a connection that was served before either', async () => {
    const { listener, seen } = await openCounting();
    await using _ = listener;
    const flood = dial(listener.port);
    flood.write(shortest);
    await readUntil(flood, 1);
    flood.write(shortest.repeat(17));
    await once(flood.resume(), 'close');
    assert.equal(seen.length, 1);
  });

  it('are answered up to sixteen, however they are split', async () => {
    const { listener, seen } = await openCounting();
    await using _ = listener;
    const polite = dial(listener.port);
    polite.write(shortest.repeat(16));
    await readUntil(polite, 16);
    for (const part of [shortest.slice(0, 15), shortest.slice(15) + shortest]) polite.write(part);
    await readUntil(polite, 2);
    assert.equal(seen.length, 18);
    polite.destroy();
  });

  it('end with CONNECT, whatever follows it', async () => {
    const { listener, seen } = await openCounting();
    await using _ = listener;
    const tunnel = dial(listener.port);
    tunnel.write('CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n');
    const [answer] = (await once(tunnel, 'data')) as [Buffer];
    assert.match(answer.toString(), /^HTTP\/1\.1 405 /);
    tunnel.write(shortest.repeat(3));
    await once(tunnel.resume(), 'close');
    assert.deepEqual(seen, []);
  });
});
