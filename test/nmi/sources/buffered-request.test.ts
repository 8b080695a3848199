import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { buildConnector, Pool } from 'undici';
import { sendBuffered, type BufferedResponse } from '../../../src/nmi/sources/buffered-request.ts';
import { HandClock } from '../../support/hand-clock.ts';

const timeoutMs = 1_000;
const maxBodyBytes = 1_000;

interface Asked {
  readonly clock: HandClock;
  /** Counts connections that closed before the end of their answer. */
  readonly lost: Promise<unknown>;
  readonly ask: () => Promise<BufferedResponse>;
}

async function withServer(
  listener: RequestListener,
  work: (asked: Asked) => Promise<void>,
  connect?: buildConnector.connector,
): Promise<void> {
  const lost = Promise.withResolvers<unknown>();
  const server = createServer((request, response) => {
    response.once('close', () => {
      if (!response.writableEnded) lost.resolve(undefined);
    });
    listener(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const clock = new HandClock();
  const pool = new Pool(`http://127.0.0.1:${port}`, {
    connections: 1,
    ...(connect === undefined ? {} : { connect }),
  });
  const request = { method: 'GET', path: '/a?b=c', headers: { x: 'y' } } as const;
  const ask = () => sendBuffered(pool, request, { clock, timeoutMs, maxBodyBytes });
  try {
    await work({ clock, lost: lost.promise, ask });
  } finally {
    await pool.destroy();
    server.closeAllConnections();
    server.close();
  }
}

describe('a buffered answer', { timeout: 10_000 }, () => {
  it('has status, headers and all pieces of the body, and leaves no timer', async () => {
    await withServer(
      (request, response) => {
        assert.deepEqual([request.url, request.headers['x']], ['/a?b=c', 'y']);
        // The two bytes of one letter arrive separately.
        const bytes = Buffer.from('grün');
        response.writeHead(418, { 'Retry-After': '7' }).write(bytes.subarray(0, 3));
        setImmediate(() => response.end(bytes.subarray(3)));
      },
      async ({ clock, ask }) => {
        const { status, headers, body } = await ask();
        assert.deepEqual([status, headers['retry-after'], body], [418, '7', 'grün']);
        assert.deepEqual(clock.armed, []);
      },
    );
  });

  it('may be as long as the limit', async () => {
    await withServer(
      (_, response) => void response.end('x'.repeat(maxBodyBytes)),
      async ({ ask }) => assert.equal((await ask()).body.length, maxBodyBytes),
    );
  });

  it('without an end is aborted, with its connection', async () => {
    await withServer(
      (_, response) => {
        response.writeHead(200).write('x'.repeat(maxBodyBytes + 1));
      },
      async ({ clock, lost, ask }) => {
        await assert.rejects(ask(), RangeError);
        assert.deepEqual(clock.armed, []);
        await lost;
      },
    );
  });

  it('that is late, in head or body, is aborted, and the next one arrives', async () => {
    for (const isHeadSent of [false, true]) {
      let isFirst = true;
      const asked = Promise.withResolvers<undefined>();
      await withServer(
        (_, response) => {
          if (!isFirst) {
            response.end('later');
            return;
          }
          isFirst = false;
          if (isHeadSent) response.write('x');
          asked.resolve(undefined);
        },
        async ({ clock, lost, ask }) => {
          const answer = ask();
          await asked.promise;
          clock.advance(timeoutMs);
          await assert.rejects(answer, { name: 'TimeoutError' });
          await lost;
          assert.equal((await ask()).body, 'later');
        },
      );
    }
  });

  it('is not awaited longer when there is no connection, and is not requested later', async () => {
    let requests = 0;
    const dial = buildConnector({});
    const held: (() => void)[] = [];
    await withServer(
      (_, response) => {
        requests++;
        response.end('x');
      },
      async ({ clock, ask }) => {
        const late = ask();
        clock.advance(timeoutMs);
        await assert.rejects(late, { name: 'TimeoutError' });
        const next = ask();
        held[0]?.();
        held.length = 0;
        // The new connection is closed with the late request, so another one is dialed.
        while (held.length === 0) await new Promise(setImmediate);
        held[0]?.();
        assert.equal((await next).body, 'x');
        assert.equal(requests, 1);
      },
      (target, callback) =>
        held.push(() => {
          dial(target, callback);
        }),
    );
  });

  it('that fails for another reason rejects with that, and leaves no timer', async () => {
    await withServer(
      (request) => void request.socket.destroy(),
      async ({ clock, ask }) => {
        await assert.rejects(ask(), { code: 'UND_ERR_SOCKET' });
        assert.deepEqual(clock.armed, []);
      },
    );
  });
});
