/** The control of a miss: the upstream's answer is forwarded, and nothing else is added. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { after, describe, it } from 'node:test';
import { openBareProxy } from '../../bench/fixture/controls.ts';

describe('the bare proxy', { timeout: 30_000 }, () => {
  const stack = new AsyncDisposableStack();
  after(() => stack.disposeAsync());

  it('forwards a request and returns status, content type and body', async () => {
    const asked: string[] = [];
    const upstream = createServer((request, response) => {
      void bodyOf(request).then((body) => {
        const { method, url, headers } = request;
        asked.push([method, url, headers['metadata'], body].join(' '));
        const status = method === 'POST' ? 400 : 200;
        response.writeHead(status, { 'content-type': 'text/x-test', 'x-more': '1' }).end('grün');
      });
    }).listen(0, '127.0.0.1');
    stack.defer(() => void upstream.close());
    await once(upstream, 'listening');
    const address = upstream.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const proxyUrl = await openBareProxy(`http://127.0.0.1:${port}`, '', stack);

    const got = await fetch(`${proxyUrl}/a?b=%20c`, { headers: { metadata: 'true' } });
    assert.deepEqual([got.status, await got.text()], [200, 'grün']);
    assert.equal(got.headers.get('content-type'), 'text/x-test');
    assert.equal(got.headers.get('x-more'), null);
    const posted = await fetch(`${proxyUrl}/d`, { method: 'POST', body: 'e=f' });
    assert.deepEqual([posted.status, await posted.text()], [400, 'grün']);
    assert.deepEqual(asked, ['GET /a?b=%20c true ', 'POST /d  e=f']);
  });
});

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += String(chunk);
  return text;
}
