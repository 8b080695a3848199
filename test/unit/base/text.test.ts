import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { CodedError } from '../../../src/base/coded-error.ts';
import { isDnsLabel, isDnsSubdomain } from '../../../src/base/dns-name.ts';
import { asRecord, parseRecord, stringAt, textOf } from '../../../src/base/json-value.ts';
import { nearest } from '../../../src/base/nearest.ts';
import { networkCode } from '../../../src/base/network-code.ts';
import {
  printable,
  printableList,
  renderJson,
  renderTable,
  sentence,
} from '../../../src/base/printable.ts';
import { readBody } from '../../../src/base/read-body.ts';
import { parseRetryAfter } from '../../../src/base/retry-after.ts';
import { StartError } from '../../../src/base/start-error.ts';

describe('unknown JSON', () => {
  it('is a record only if it is an object', () => {
    const record = { a: 1 };
    assert.equal(asRecord(record), record);
    for (const value of [null, undefined, [], 'a', 1, true]) {
      assert.equal(asRecord(value), undefined);
    }
  });

  it('has the string of a field, or none', () => {
    assert.equal(stringAt({ a: 'x' }, 'a'), 'x');
    for (const record of [{ a: 1 }, { a: null }, {}, undefined]) {
      assert.equal(stringAt(record, 'a'), '');
    }
  });

  it('is a text only if it is a string', () => {
    assert.equal(textOf('a'), 'a');
    for (const value of [null, [], {}, 1, undefined]) assert.equal(textOf(value), undefined);
  });

  it('is parsed without throwing', () => {
    assert.deepEqual(parseRecord('{"a":1}'), { a: 1 });
    for (const text of ['', '{', '[]', 'null', '1']) assert.equal(parseRecord(text), undefined);
  });
});

describe('text from outside in an error', () => {
  it('is one line of harmless ASCII', () => {
    assert.equal(printable('a b~c'), 'a b~c');
    assert.equal(printable(`\n'"\\<>\x7fé\u2028`), '?????????');
  });

  it('is short', () => {
    assert.equal(printable('x'.repeat(300)), 'x'.repeat(300));
    assert.equal(printable('x'.repeat(301)), `${'x'.repeat(297)}...`);
  });
});

describe('many texts from outside in an error', () => {
  it('are the first of them, and how many more there are', () => {
    const names = (count: number) => Array.from({ length: count }, (_, index) => `k${index}`);
    assert.equal(printableList(names(2)), 'k0, k1');
    assert.ok(printableList(names(10)).endsWith('k9'));
    assert.ok(printableList(names(12)).endsWith('k9 and 2 more'));
    assert.equal(printableList(names(3), 3), 'k0, k1, k2');
    assert.equal(printableList(names(5), 3), 'k0, k1, k2 and 2 more');
    assert.equal(printableList(['a"\n']), 'a??');
  });
});

describe('JSON for a terminal', () => {
  it('is indented, and escapes all but ASCII', () => {
    assert.equal(renderJson({ a: ['é\u009b'] }), '{\n  "a": [\n    "\\u00e9\\u009b"\n  ]\n}\n');
  });
});

describe('a sentence', () => {
  it('begins in upper case, and ends', () => {
    assert.equal(sentence('it has an end'), 'It has an end.');
  });
});

describe('a table', () => {
  it('has columns, and a dash for nothing', () => {
    assert.deepEqual(
      renderTable(
        ['A', 'B'],
        [
          ['long', ''],
          ['x', 'y'],
        ],
      ),
      ['A     B', 'long  -', 'x     y'],
    );
  });
});

const long = 'a'.repeat(63);

describe('names of Kubernetes', () => {
  const both = ['a', 'a-b', '0', 'kube-system', long];
  const subdomains = ['a.b', `${long}a`, 'a'.repeat(253), '0.0-0.z'];
  const none = ['-a', 'a-', 'A', 'a_b', 'a/b', 'a..b', '.a', 'a.', '..', 'a%2fb', 'é', 'a\n'];
  for (const [what, names, expected] of [
    ['a label and a subdomain', both, [true, true]],
    ['a subdomain only', subdomains, [false, true]],
    ['neither', [...none, '', 'a'.repeat(254)], [false, false]],
  ] as const) {
    it(`are ${what}`, () => {
      for (const name of names) {
        assert.deepEqual([isDnsLabel(name), isDnsSubdomain(name)], expected, JSON.stringify(name));
      }
    });
  }
});

it('finds the name with the fewest letters added, left out, replaced or swapped', () => {
  assert.equal(nearest('kitten', ['sitting', 'kitchen', 'mitten']), 'mitten');
  assert.equal(nearest('kitten', ['sitting']), undefined, 'three of six');
  assert.equal(nearest('abcdef', ['bcdf']), 'bcdf');
  assert.equal(nearest('ab🦀', ['ab']), 'ab', 'a letter of two code units is one edit');
  assert.equal(nearest('abc', []), undefined);
  assert.equal(nearest('', ['']), '');
});

it('is no name that nobody means', () => {
  const among = ['web', 'api', 'checkout-worker', 'ui'];
  for (const [wrong, meant] of [
    ['wbe', 'web'],
    ['ewb', 'web'],
    ['wxb', 'web'],
    ['wxy', undefined],
    ['bew', undefined],
    ['pxi', undefined],
    ['xyweb', undefined],
    ['paxi', undefined],
    ['db', undefined],
    ['xi', undefined],
    ['cehckout-wroker', 'checkout-worker'],
    ['checkouts', undefined],
    ['older-checkout-worker', undefined],
    ['my-checkout-worker', 'checkout-worker'],
  ] as const) {
    assert.equal(nearest(wrong, among), meant, wrong);
  }
});

const now = Date.UTC(2026, 0, 1);

describe('Retry-After', () => {
  it('is read as seconds or as a date', () => {
    for (const [text, retryAfterS] of [
      ['3', 3],
      [' 0 ', 0],
      [['4'], 4],
      ['Thu, 01 Jan 2026 00:00:05 GMT', 5],
      ['Wed, 31 Dec 2025 00:00:00 GMT', 0],
      // Never longer than the given bound.
      ['900000', 120],
      ['Thu, 01 Jan 2027 00:00:00 GMT', 120],
      ['', undefined],
      ['soon', undefined],
      [[], undefined],
      [undefined, undefined],
    ] as const) {
      assert.equal(parseRetryAfter(text, now, 120), retryAfterS);
    }
    assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:00:05 GMT', now + 100), 5);
    assert.equal(parseRetryAfter('900000', now), 900_000);
  });
});

describe('the name of a network failure', () => {
  it('is its code, or its name if it has none', () => {
    assert.equal(
      networkCode(Object.assign(new Error('10.0.0.1'), { code: 'ECONNRESET' })),
      'ECONNRESET',
    );
    assert.equal(networkCode(new DOMException('late', 'TimeoutError')), 'TIMEOUT');
    assert.equal(networkCode(Object.assign(new TypeError('x'), { code: 7 })), 'TypeError');
    assert.equal(networkCode({ code: 'ECONNRESET' }), 'unknown');
  });
});

class OwnError extends CodedError<'A' | 'B'> {}

describe('an error with a code', () => {
  it('has the name of its class, and a cause where there is one', () => {
    const cause = new RangeError('cause');
    const error = new OwnError('A', 'text', cause);
    assert.deepEqual([error.name, error.code, error.message], ['OwnError', 'A', 'text']);
    assert.equal(error.cause, cause);
    assert.ok(!('cause' in new OwnError('B', 'text')));
  });
});

describe('a start error', () => {
  it('names the problem, its cause and the remedy, in this order', () => {
    const cause = new RangeError('why');
    const error = new StartError('UNAVAILABLE', 'no x', 'set --x', cause);
    assert.equal(error.message, 'no x: why; set --x');
    assert.equal(error.cause, cause);
    assert.equal(new StartError('CONFIG', 'no x', 'set --x', 'no error').message, 'no x; set --x');
    assert.equal(new StartError('CONFIG', 'no x', 'set --x').code, 'CONFIG');
  });
});

const stream = (...texts: string[]) => Readable.from(texts.map((text) => Buffer.from(text)));

it('reads a body up to its bound', async () => {
  const tooLong = () => new RangeError('too long');
  assert.equal(String(await readBody(stream('ab', 'cd'), 4, tooLong)), 'abcd');
  assert.equal(String(await readBody(stream(), 0, tooLong)), '');
});

it('destroys the stream of a longer one', async () => {
  const body = stream('ab', 'cde', 'f');
  await assert.rejects(
    readBody(body, 4, () => new RangeError('too long')),
    /^RangeError: too long$/,
  );
  assert.equal(body.destroyed, true);
});
