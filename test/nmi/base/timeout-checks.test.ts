import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { takeParser } from '../../../src/nmi/base/timeout-checks.ts';

const checkMs = 20;
const request = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';

/** A server that answers `x`; a head must be complete within 100 ms. */
async function open(context: TestContext) {
  const server: Server & { connectionsCheckingInterval?: number } = createServer(
    { headersTimeout: 100, requestTimeout: 100 },
    (_, response) => response.end('x'),
  );
  server.on('connection', takeParser(server, checkMs));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => server.close());
  return {
    dial: (first: string): Socket => {
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
      socket.on('error', () => undefined).write(first);
      return socket;
    },
    areChecked: () => server.connectionsCheckingInterval === checkMs,
    untilClosed: async () => {
      for (;;) {
        const { promise, resolve } = Promise.withResolvers<number>();
        server.getConnections((_, count) => {
          resolve(count);
        });
        const count = await promise;
        await nextTurn();
        if (count === 0) return;
      }
    },
  };
}

describe('the parser of a server', () => {
  it('gets no connection that the caller does not pass on', () => {
    const server = createServer();
    takeParser(server, checkMs);
    assert.deepEqual(server.listeners('connection'), []);
  });
});

describe('the timeouts of requests', () => {
  it('are checked from the first connection on, until the last one has closed', async (context) => {
    const { dial, areChecked, untilClosed } = await open(context);
    assert.equal(areChecked(), false);
    const [one, other] = [dial(request), dial(request)];
    await Promise.all([once(one, 'data'), once(other, 'data')]);
    assert.equal(areChecked(), true);
    one.destroy();
    await once(one, 'close');
    assert.equal(areChecked(), true);
    other.destroy();
    await untilClosed();
    assert.equal(areChecked(), false);
  });

  it('end a slow head, before others were served and after', async (context) => {
    const { dial, untilClosed } = await open(context);
    for (let round = 0; round < 2; round += 1) {
      const slow = dial('GET / HTTP/1.1\r\n');
      const [chunk] = (await once(slow, 'data')) as [Buffer];
      assert.match(chunk.toString(), /^HTTP\/1\.1 408 /);
      await untilClosed();
      const quick = dial(request);
      await once(quick, 'data');
      quick.destroy();
      await untilClosed();
    }
  });
});
