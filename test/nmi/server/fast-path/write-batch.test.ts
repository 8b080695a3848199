import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { WriteBatch } from '../../../../src/nmi/server/fast-path/write-batch.ts';
import { serveConnection } from '../../../../src/nmi/server/fast-path/connection.ts';

const request = 'GET /metadata/identity/oauth2/token?a=b HTTP/1.1\r\nMetadata: true\r\n\r\n';

/**
 * Runs turns with this many answers each. @returns how many were written before the end of each
 * turn.
 */
async function run(
  batch: WriteBatch,
  answersOfTurn: readonly number[],
): Promise<readonly number[]> {
  const atOnce: number[] = [];
  for (const answers of answersOfTurn) {
    let written = 0;
    for (let index = 0; index < answers; index++) batch.add(() => (written += 1));
    atOnce.push(written);
    await new Promise(setImmediate);
    assert.equal(written, answers, 'all are written at the end of the turn');
  }
  return atOnce;
}

describe('answers of one turn', () => {
  it('are written at once while turns have one answer, except for some samples', async () => {
    const atOnce = await run(
      new WriteBatch(),
      Array.from({ length: 340 }, () => 1),
    );
    assert.equal(atOnce.filter((written) => written === 1).length, 320);
  });

  it('are written together once the measured turn has three', async () => {
    const single = Array.from({ length: 16 }, () => 1);
    const atOnce = await run(new WriteBatch(), [...single, 3, 3]);
    assert.deepEqual(atOnce.slice(-3), [1, 0, 0]);
  });

  it('are written at the end of the turn when turns have several, in their order', async () => {
    const batch = new WriteBatch();
    const atOnce = await run(
      batch,
      Array.from({ length: 40 }, () => 8),
    );
    assert.deepEqual(
      atOnce.slice(4),
      Array.from({ length: 36 }, () => 0),
    );
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

  it('are written at once again when there is only one client left', async () => {
    const batch = new WriteBatch();
    await run(
      batch,
      Array.from({ length: 40 }, () => 8),
    );
    const atOnce = await run(
      batch,
      Array.from({ length: 400 }, () => 1),
    );
    assert.ok(atOnce.slice(-170).filter((written) => written === 1).length === 160);
  });
});

/** What a client receives on a connection when answers are written by `add`. */
async function receive(
  add: (socket: Socket, write: () => void) => void,
  requests: readonly string[],
): Promise<string> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    let count = 0;
    serveConnection({
      socket,
      shared: { last: undefined },
      inTurn: (work) => {
        work();
        return true;
      },
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
  // Not `once`, which reports a reset as an error.
  const closed = new Promise((resolve) => client.on('close', resolve));
  await once(client, 'connect');
  for (const text of requests) {
    client.write(text);
    // Each in a separate piece, so that the earlier answers are still pending.
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  client.end();
  await closed;
  server.close();
  return received;
}

describe('a connection with pending answers', () => {
  it('sends nothing when it was reset before they were written', async () => {
    const cut = (socket: Socket, write: () => void) => {
      socket.resetAndDestroy();
      write();
    };
    assert.equal(await receive(cut, [request]), '');
  });

  it('sends them before the answers to later requests, and once', async () => {
    const writes: (() => void)[] = [];
    const late = (_: Socket, write: () => void) => writes.push(write);
    assert.equal(await receive(late, [request, request, request]), 'answer 1.answer 2.answer 3.');
    for (const write of writes) write();
  });
});
