import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ask, tokenTarget } from '../../../support/ask.ts';
import { bindPodToA, openLoopbackAgent } from '../../../support/loopback-agent.ts';

/** Time for the search, in milliseconds; longer on request. */
const budgetMs = process.env['CI'] === 'true' ? 20_000 : 5_000;

const line = fc.constantFrom(
  ...['GET /metadata/identity/oauth2/token HTTP/1.1\r\n', `GET ${tokenTarget} HTTP/1.1\r\n`],
  ...['CONNECT h:80 HTTP/1.1\r\n', 'Expect: foo\r\n'],
  ...['POST / HTTP/1.1\r\n', 'GET /metadata/instance HTTP/1.0\r\n', 'OPTIONS * HTTP/1.1\r\n'],
  ...['Metadata: true\r\n', 'metadata:true\r\n', 'Host: x\r\n', 'X-Forwarded-For: 1\r\n'],
  ...['Content-Length: 5\r\n', 'Content-Length: -1\r\n', 'Transfer-Encoding: chunked\r\n'],
  ...['Expect: 100-continue\r\n', 'Upgrade: h2c\r\nConnection: Upgrade\r\n', 'a\r\n', '\r\n'],
  ...['5\r\nhello\r\n', '0\r\n\r\n', 'hello', '\n', '\0', 'Connection: close\r\n'],
);
/** A request that the fast path answers, once the token is cached. */
const usual = `GET ${tokenTarget} HTTP/1.1\r\nMetadata: true\r\n`;
const bytes = fc.oneof(
  fc
    .array(line, { maxLength: 3 })
    .map((lines) => Buffer.from(`${usual}${lines.join('')}\r\n`, 'latin1')),
  fc.array(line, { maxLength: 12 }).map((lines) => Buffer.from(lines.join(''), 'latin1')),
  fc.uint8Array({ maxLength: 400 }).map((array) => Buffer.from(array)),
);

/** The bytes received until the agent closed the connection. */
function exchange(port: number, data: Buffer, reset: boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect({ host: '127.0.0.1', port, localAddress: '127.0.0.11' });
    socket.setEncoding('latin1');
    socket.on('connect', () => {
      if (!reset) socket.end(data);
      else socket.write(data, () => socket.resetAndDestroy());
    });
    socket.on('data', (chunk: string) => (text += chunk));
    socket.on('close', () => resolve(text));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED') reject(error);
    });
    socket.setTimeout(10_000, () => {
      const sent = JSON.stringify(data.toString('latin1'));
      reject(new Error(`the agent neither answered nor closed: ${sent}`));
      socket.destroy();
    });
  });
}

/** Without the parts that differ between any two answers. */
function plain(answers: string): string {
  const last = Math.max(answers.lastIndexOf('HTTP/1.1 '), 0);
  return (
    answers.slice(0, last) +
    // Only the last answer has Connection: close, if the client's end arrived before the answer.
    answers
      .slice(last)
      .replace('Connection: keep-alive\r\nKeep-Alive: timeout=120', 'Connection: close')
  )
    .replaceAll(/x-ms-request-id: [0-9a-f-]{36}/g, 'x-ms-request-id: ID')
    .replaceAll(/Date: [^\r]+/g, 'Date: DATE')
    .replaceAll(
      /"(access_token|(?:ext_)?expires_in|expires_on|not_before)":"[^"]+"/g,
      '"$1":"VARIES"',
    );
}

describe('the listener, given any bytes', () => {
  it('answers JSON or closes, in the same way with and without the fast path, and continues to serve', async () => {
    await using agent = await openLoopbackAgent({ 'fast-path': 'true' }, bindPodToA);
    await using slow = await openLoopbackAgent({ 'fast-path': 'false' }, bindPodToA);
    // A CONNECT behind a request ends the connection; whether a token was fetched by then is a matter of time.
    for (const each of [agent, slow]) await ask(each.client('127.0.0.11'), tokenTarget);
    await fc.assert(
      fc.asyncProperty(bytes, fc.boolean(), async (data, reset) => {
        const text = await exchange(agent.port, data, reset);
        const other = await exchange(slow.port, data, reset);
        for (const [, length = '0'] of text.matchAll(/content-length: (\d+)/gi)) {
          assert.ok(Number(length) < 20_000);
        }
        if (!reset) assert.equal(plain(text), plain(other));
        if (text === '' || text.startsWith('HTTP/1.1 100')) return;
        const head = text.slice(0, text.indexOf('\r\n\r\n')).toLowerCase();
        assert.match(head, /^http\/1\.1 [2-5]\d\d /);
        assert.ok(head.includes('content-type: application/json'), head);
      }),
      {
        plugins: [fc.interruptAfterTimeLimit(budgetMs)],
        numRuns: 100_000,
        examples: [[Buffer.from(`${usual}\r\nCONNECT h:80 HTTP/1.1\r\n\r\n`, 'latin1'), false]],
      },
    );
    for (const each of [agent, slow]) {
      const reply = await ask(each.client('127.0.0.11'), tokenTarget);
      assert.equal(reply.identity, 'a');
    }
  });
});
