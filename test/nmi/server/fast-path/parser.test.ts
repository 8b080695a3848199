import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  isHeaderText,
  parseCanonicalRequest,
  parseTarget,
} from '../../../../src/nmi/server/fast-path/parser.ts';

const target = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://r.example';
const head = (lines: readonly string[]): string =>
  [`GET ${target} HTTP/1.1`, ...lines, '', ''].join('\r\n');

describe('the value of a header', () => {
  it('contains visible ASCII, spaces and tabs only', () => {
    for (const [text, isValid] of [
      ['', true],
      [' !~\t', true],
      ['\u001f', false],
      ['\u007f', false],
      ['é', false],
    ] as const) {
      const bytes = Buffer.from(`\n${text}\n`, 'latin1');
      const span = { from: 1, to: bytes.length - 1 };
      assert.equal(isHeaderText(bytes, span), isValid, JSON.stringify(text));
    }
  });
});

describe('a request of the usual form', () => {
  it('is recognised as the SDKs send it', () => {
    const usual = [
      ['Metadata: true'],
      ['Host: 169.254.169.254', 'metadata:true', 'Accept: */*', 'x-client-SKU: msal.js.node'],
      [
        'Host: 169.254.169.254',
        'Metadata:  true ',
        'connection: keep-alive',
        'Accept-Encoding: gzip',
      ],
      ['Content-Type: application/x-www-form-urlencoded;charset=utf-8', 'METADATA: true'],
    ];
    for (const lines of usual) {
      const expected = { target, isLast: false, ids: [] };
      assert.deepEqual(parseCanonicalRequest(head(lines)), expected);
    }
    const last = parseCanonicalRequest(head(['Metadata: true', 'Connection: close']));
    assert.equal(last?.isLast, true);
  });

  it('has the positions of its ids', () => {
    const text = head(['x-ms-client-request-id: 1', 'Metadata: true', 'Traceparent:', 'X-Id: 2']);
    const ids = parseCanonicalRequest(text)?.ids.map(({ from, to }) => text.slice(from, to));
    assert.deepEqual(ids, [' 1', '']);
  });

  it('has at most 8 KiB and 63 headers', () => {
    const lines = ['Metadata: true', ...Array.from({ length: 62 }, () => 'X: y')];
    assert.ok(parseCanonicalRequest(head(lines)) !== undefined);
    assert.equal(parseCanonicalRequest(head([...lines, 'X: y'])), undefined);
    const rest = 8 * 1024 - head(['Metadata: true', 'X: ']).length;
    const ofLength = (length: number) => head(['Metadata: true', `X: ${'x'.repeat(length)}`]);
    assert.ok(parseCanonicalRequest(ofLength(rest)) !== undefined);
    assert.equal(parseCanonicalRequest(ofLength(rest + 1)), undefined);
  });

  it('has a visible target, also where the rest is known', () => {
    const begin = `GET ${target}`;
    assert.equal(parseTarget(begin, 8 * 1024), target);
    assert.equal(parseTarget(begin, 8 * 1024 + 1), undefined);
    for (const other of [`${begin} `, `${begin}\u0001`, `POST ${target}`, 'GET /other?']) {
      assert.equal(parseTarget(other, 100), undefined, other);
    }
  });

  it('has no other form', () => {
    const ok = 'Metadata: true';
    const others = [
      head([]),
      head(['Metadata: True']),
      head([ok, ok]),
      head([ok, 'X-Forwarded-For: 1.2.3.4']),
      head([ok, 'Content-Length: 0']),
      head([ok, 'Transfer-Encoding: chunked']),
      head([ok, 'Expect: 100-continue']),
      head([ok, 'Connection: upgrade', 'Upgrade: x']),
      head([ok, 'Connection: close, x']),
      head([ok, 'Connection: close', 'Connection: close']),
      head([ok, ' folded: x']),
      head([ok, 'no colon']),
      head([ok, 'no colon', 'X: y']),
      head(['no colon', ok]),
      head([ok, 'Name : x']),
      head([ok, ': x']),
      head([ok, 'X: \u0001']),
      head([ok, 'X: é']),
      head([ok, 'X: a\nMetadata: true']),
      `${head([ok])}${head([ok])}`,
      `${head([ok])}x`,
      head([ok]).slice(0, -2),
      head([ok]).slice(0, -1),
      head([ok]).replace('GET', 'POST'),
      head([ok]).replace('HTTP/1.1', 'HTTP/1.0'),
      head([ok]).replace(' HTTP/1.1', ''),
      head([ok]).replace('?', '/?'),
      head([ok]).replace('?', '%3f?'),
      head([ok]).replace('r.example', 'r example'),
      head([ok]).replace('r.example', 'é'),
      head([ok]).replace('/metadata', '//metadata'),
      `\r\n${head([ok])}`,
      head([ok, `X: ${'x'.repeat(9_000)}`]),
      '',
      '\r\n\r\n',
    ];
    for (const text of others) assert.equal(parseCanonicalRequest(text), undefined, text);
  });

  it('is read in the same way by Node’s own parser, whatever else is recognized', async () => {
    const server = createServer({ requireHostHeader: false }, (request, response) => {
      const values = request.rawHeaders.filter((_, index, all) => {
        return index % 2 === 1 && all[index - 1]?.toLowerCase() === 'metadata';
      });
      response.end(JSON.stringify([request.method, request.url, values]));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const ask = async (text: string): Promise<string> => {
      const socket = connect(port, '127.0.0.1');
      socket.end(text, 'latin1');
      let answer = '';
      for await (const chunk of socket) answer += String(chunk);
      return answer;
    };
    const line = fc.oneof(
      fc.constantFrom('Metadata: true', 'metadata:true', 'Host: x', 'Connection: close', 'A:b:c'),
      fc.string({ maxLength: 12 }).map((text) => `X-${text}`),
      fc
        .tuple(fc.string({ maxLength: 4 }), fc.string({ maxLength: 8 }))
        .map((two) => two.join(':')),
    );
    let recognised = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 4 }), async (lines) => {
        const text = head(['Metadata: true', ...lines]);
        const request = parseCanonicalRequest(text);
        if (request === undefined) return;
        recognised++;
        const answer = await ask(text);
        assert.match(answer, /^HTTP\/1\.1 200 /, text);
        assert.ok(answer.endsWith(JSON.stringify(['GET', target, ['true']])), answer);
        assert.equal(/^connection: close/im.test(answer), request.isLast, answer);
      }),
      { numRuns: 300 },
    );
    server.close();
    assert.ok(recognised > 20, `only ${recognised} were recognised`);
  });
});
