import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseCanonicalRequest } from '../../../../src/nmi/server/fast-path/parser.ts';
import {
  readRequest,
  type KnownRequest,
} from '../../../../src/nmi/server/fast-path/known-request.ts';

const target = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://r.example';
const head = (asked: string, lines: readonly string[]): string =>
  [`GET ${asked} HTTP/1.1`, ...lines, '', ''].join('\r\n');
const read = (text: string, known?: KnownRequest): KnownRequest | undefined =>
  readRequest(Buffer.from(text, 'latin1'), known);
const sdk = (id: string, asked = target): string =>
  head(asked, [
    'Metadata: true',
    `x-ms-client-request-id: ${id}`,
    'User-Agent: x',
    `traceparent: ${id}`,
  ]);

describe('a request that is recognised by an earlier one', () => {
  it('is that one when its bytes are equal, except for its ids', () => {
    const first = read(sdk('0'.repeat(36)));
    assert.ok(first !== undefined);
    assert.equal(first.target, target);
    assert.equal(read(sdk('0'.repeat(36)), first), first);
    assert.equal(read(sdk('1'.repeat(36)), first), first);
  });

  it('may have another target, and its ids then have other positions', () => {
    const first = read(sdk('a'));
    const other = read(sdk('b', `${target}&client_id=1`), first);
    assert.equal(other?.target, `${target}&client_id=1`);
    assert.equal(read(sdk('c', `${target}&client_id=1`), other), other);
    assert.equal(read(sdk('d'), other)?.target, target);
  });

  it('is not one with an id that contains more than an id', () => {
    const first = read(sdk('x'.repeat(30)));
    const names = [
      'x\r\nX-Forwarded-For: 1.2.3.4567',
      'x\r\nContent-Length: 10000000000',
      'x\r\nMetadata: true           ',
      `${'x'.repeat(29)}\u0001`,
      `${'x'.repeat(29)}\n`,
      `${'x'.repeat(29)}é`,
      `${'x'.repeat(29)}\u007f`,
    ];
    for (const name of names) {
      assert.equal(name.length <= 30, true, name);
      assert.equal(read(sdk(name.padEnd(30)), first), undefined, JSON.stringify(name));
    }
  });

  it('is read in the same way alone, whichever was read before', () => {
    const id = fc.constantFrom('1234', '5678', '12345', '', '1\r\n2', '12\u00014');
    const line = fc.oneof(
      fc.constantFrom('X: y', 'Connection: close', 'A: b', 'Request-Id'),
      id.map((value) => `x-ms-client-request-id: ${value}`),
      id.map((value) => `traceparent:${value}`),
    );
    const asked = fc.constantFrom(
      target,
      `${target}2`,
      `${target} `,
      `${target}\r\n\r\n`,
      '/other',
      '',
    );
    const usual = fc
      .tuple(asked, fc.array(line, { maxLength: 3 }))
      .map(([path, lines]) => head(path, ['Metadata: true', ...lines]));
    const piece = fc.constantFrom(
      ...[
        'GET ',
        target,
        '/other',
        ' HTTP/1.1',
        ' ',
        '\r\n',
        'Metadata: true',
        'X: y',
        '\r\n\r\n',
        'é',
      ],
    );
    const pieces = fc.array(piece, { maxLength: 9 }).map((all) => all.join(''));
    const renamed = (text: string): string => text.replaceAll('1234', '9abc');
    const pair = fc.oneof(
      fc.tuple(usual, usual),
      fc.tuple(usual, pieces),
      usual.map((text) => [text, renamed(text)] as const),
    );
    let recognised = 0;
    fc.assert(
      fc.property(pair, ([before, after]) => {
        const known = read(before);
        const found = read(after, known);
        const alone = parseCanonicalRequest(after);
        assert.equal(found === undefined, alone === undefined, after);
        if (found === undefined || alone === undefined) return;
        if (found === known) recognised++;
        assert.deepEqual([found.target, found.isLast], [alone.target, alone.isLast]);
        const spans = (request: Pick<KnownRequest, 'ids'>): readonly number[] =>
          request.ids.flatMap(({ from, to }) => [from, to]);
        assert.deepEqual(spans(found), spans(alone));
      }),
      { numRuns: 10_000 },
    );
    assert.ok(recognised > 200, `only ${recognised} were recognised`);
  });

  it('is not recognised when it is too long', () => {
    const long = head(`${target}${'r'.repeat(9_000)}`, ['Metadata: true']);
    assert.equal(read(long, read(head(target, ['Metadata: true']))), undefined);
  });
});
