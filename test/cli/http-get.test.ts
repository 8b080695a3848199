import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { httpGet } from '../../src/cli/http-get.ts';

async function get(
  answer: RequestListener,
  bounds: { timeoutMs?: number; maxBodyBytes?: number } = {},
) {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    const { timeoutMs = 5_000, maxBodyBytes = 10 } = bounds;
    return await httpGet({ host: '127.0.0.1', port, path: '/x' }, { timeoutMs, maxBodyBytes });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

describe('one GET with a short answer', () => {
  it('has status, headers and body', async () => {
    const reply = await get((request, response) => {
      response.writeHead(418, { 'X-Path': request.url, Connection: 'close' });
      response.end('0123456789');
    });
    assert.deepEqual(
      [reply.status, reply.headers['x-path'], reply.body],
      [418, '/x', '0123456789'],
    );
  });

  it('fails for a body that is too long, cut or late', async () => {
    const long = get((_request, response) => response.end('01234567890'));
    await assert.rejects(long, /the answer is too long/);
    const cut = get((_request, response) => {
      response.writeHead(200, { 'Content-Length': '9' });
      response.write('0123');
      setImmediate(() => response.destroy());
    });
    await assert.rejects(cut, { code: 'ECONNRESET' });
    await assert.rejects(
      get(() => undefined, { timeoutMs: 50 }),
      { name: 'AbortError' },
    );
  });
});
