import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { WriteBatch } from '../../../../src/nmi/server/fast-path/write-batch.ts';
import { serveConnection } from '../../../../src/nmi/server/fast-path/connection.ts';

const request = 'GET /metadata/identity/oauth2/token?a=b HTTP/1.1\r\nMetadata: true\r\n\r\n';

/** Turns with as many answers each; which of them were written before their turn was over. */
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
    assert.equal(written, answers, 'all are written when the turn is over');
  }
  return atOnce;
}

describe('answers of one turn', () => {
  it('are written at once while turns bring one, but for some that are looked at', async () => {
    const atOnce = await run(
      new WriteBatch(),
      Array.from({ length: 340 }, () => 1),
    );
    assert.equal(atOnce.filter((written) => written === 1).length, 320);
  });

  it('are written at its end when turns bring several, in their order', async () => {
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

/** What a client receives on a connection whose answers are written as `add` has it. */
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
