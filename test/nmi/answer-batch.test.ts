import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { AnswerBatch } from '../../src/nmi/answer-batch.ts';
import { serveQuickly } from '../../src/nmi/quick-connection.ts';

const request = 'GET /metadata/identity/oauth2/token?a=b HTTP/1.1\r\nMetadata: true\r\n\r\n';

describe('answers of one turn', () => {
  it('are written in their order at its end, and those of the next at the next', async () => {
    const batch = new AnswerBatch();
    const written: string[] = [];
    batch.add(() => written.push('first'));
    batch.add(() => {
      written.push('second');
      batch.add(() => written.push('third'));
    });
    assert.deepEqual(written, []);
    await new Promise(setImmediate);
    assert.deepEqual(written, ['first', 'second']);
    await new Promise(setImmediate);
    assert.deepEqual(written, ['first', 'second', 'third']);
  });
});

/** What a client receives on a connection whose answers are written as `add` has it. */
async function receive(
  add: (socket: Socket, write: () => void) => void,
  requests: readonly string[],
): Promise<string> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    let count = 0;
    serveQuickly({
      socket,
      shared: { last: undefined },
      batch: {
        add: (write) => {
          add(socket, write);
        },
      },
      answer: () => {
        const text = `answer ${++count}.`;
        return { writeTo: (to) => to.write(text) };
      },
      handOver: () => socket.destroy(),
      onSilent: () => socket.destroy(),
      firstByteMs: 5_000,
      idleMs: 5_000,
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const client = connect(address.port, '127.0.0.1').setNoDelay(true);
  let received = '';
  client.on('data', (chunk) => (received += chunk.toString())).on('error', () => undefined);
  // Not `once`, which takes a reset for a failure of its own.
  const closed = new Promise((resolve) => client.on('close', resolve));
  await once(client, 'connect');
  for (const text of requests) {
    client.write(text);
    // Each a piece of its own, so that the answers before are still due.
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  client.end();
  await closed;
  server.close();
  return received;
}

describe('a connection whose answers are due', () => {
  it('sends nothing when it was cut before they were written', async () => {
    const cut = (socket: Socket, write: () => void) => {
      socket.resetAndDestroy();
      write();
    };
    assert.equal(await receive(cut, [request]), '');
  });

  it('sends them before those to later requests, and once', async () => {
    const writes: (() => void)[] = [];
    const late = (_: Socket, write: () => void) => writes.push(write);
    assert.equal(await receive(late, [request, request, request]), 'answer 1.answer 2.answer 3.');
    for (const write of writes) write();
  });
});
