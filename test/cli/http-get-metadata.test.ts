import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getJson, type MetadataReply } from '../../src/cli/http-get.ts';

async function ask(answer: RequestListener): Promise<MetadataReply> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    return await getJson(`http://127.0.0.1:${port}/metadata/x?a=b`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

describe('a GET on the metadata service', () => {
  it('goes to the path with the header that the service requires', async () => {
    const reply = await ask((request, response) => {
      const { metadata } = request.headers;
      response.setHeader('Retry-After', '7');
      response.statusCode = 503;
      response.end(JSON.stringify({ url: request.url, metadata }));
    });
    assert.deepEqual(reply, {
      kind: 'answered',
      status: 503,
      body: { url: '/metadata/x?a=b', metadata: 'true' },
      retryAfterS: 7,
    });
  });

  it('has an empty body if the answer is not a JSON object', async () => {
    const reply = await ask((_request, response) => response.end('<html>'));
    assert.ok(reply.kind === 'answered');
    assert.deepEqual([reply.body, reply.retryAfterS], [{}, undefined]);
  });

  it('fails with a code, and never rejects', async () => {
    assert.deepEqual(await getJson('http://127.0.0.1:1/'), {
      kind: 'failed',
      code: 'ECONNREFUSED',
    });
    assert.deepEqual(await getJson('no URL'), { kind: 'failed', code: 'ERR_INVALID_URL' });
  });
});
