import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  alwaysTrue,
  anyText,
  boolean,
  choice,
  durationOrNever,
  integer,
  ipOrAll,
  ipv4,
  list,
  matching,
  path,
  pathOrOff,
  port,
  portOrOff,
  seconds,
  type OptionType,
} from '../../../src/nmi/config/option-types.ts';

/** The parsed value of each text. */
function read<T>(type: OptionType<T>, texts: readonly string[]): readonly (T | undefined)[] {
  return texts.map((text) => type.parse(text));
}

describe('what options show', () => {
  const shows: readonly (readonly [OptionType<unknown>, texts: readonly string[]])[] = [
    [boolean, ['true', 'false']],
    [alwaysTrue('so it is'), ['true']],
    [integer(-5, 70_000), ['-5', '0', '70000']],
    [seconds(1, 3_600), ['1', '3600']],
    [durationOrNever('10s', '24h'), ['0', '10s', '86400s']],
    [ipv4, ['169.254.25.79']],
    [choice(['off', 'warn']), ['off', 'warn']],
  ];

  it('is parsed to the same value', () => {
    for (const [type, texts] of shows) {
      for (const text of texts) {
        const value = type.parse(text);
        assert.ok(value !== undefined, text);
        assert.equal(type.show?.(value), text);
      }
    }
  });

  it('is empty for free text, which may be a path or a secret', () => {
    const free = [anyText, path, matching(/x/, 'x'), pathOrOff(/x/, 'x'), list('x', String, /x/)];
    assert.ok(free.every((type) => !('show' in type)));
  });
});

describe('accepted option values are', () => {
  it('booleans as in Go', () => {
    for (const text of ['1', 't', 'T', 'TRUE', 'true', 'True'])
      assert.equal(boolean.parse(text), true);
    for (const text of ['0', 'f', 'F', 'FALSE', 'false', 'False']) {
      assert.equal(boolean.parse(text), false);
    }
    for (const text of ['', 'yes', 'tRUE', '10', ' 1', 'falsey', 'untrue']) {
      assert.equal(boolean.parse(text), undefined, text);
    }
  });

  it('only true if nothing else is possible, with the reason', () => {
    const type = alwaysTrue('so it is');
    assert.deepEqual(read(type, ['true', '1', 'false', '0', 'x']), [
      true,
      true,
      undefined,
      undefined,
      undefined,
    ]);
    assert.equal(type.allowed, 'true: so it is');
  });

  it('ports, and 0 for none where that is possible', () => {
    const texts = ['-1', '0', '1', '65535', '65536'];
    assert.deepEqual(read(port, texts), [undefined, undefined, 1, 65_535, undefined]);
    assert.deepEqual(read(portOrOff, texts), [undefined, 0, 1, 65_535, undefined]);
  });

  it('whole numbers within their range', () => {
    const type = integer(-1, 10);
    assert.deepEqual(read(type, ['-1', '10', '+7', '007']), [-1, 10, 7, 7]);
    for (const text of ['-2', '11', '', '1.5', '1e1', '0x1', ' 1', '1 ', '9'.repeat(16)]) {
      assert.equal(type.parse(text), undefined, text);
    }
    assert.equal(type.allowed, 'a whole number from -1 to 10');
  });

  it('seconds in milliseconds', () => {
    assert.deepEqual(read(seconds(1, 60), ['1', '60', '0', '61']), [
      1_000,
      60_000,
      undefined,
      undefined,
    ]);
  });

  it('durations within their range, or 0 for none', () => {
    const type = durationOrNever('10s', '1m');
    assert.deepEqual(read(type, ['0', '0s', '10s', '1m', '9.9s', '60001ms', '10', '']), [
      0,
      0,
      10_000,
      60_000,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });

  it('addresses of IPv4 only, or of both families when empty means all', () => {
    assert.deepEqual(read(ipOrAll, ['', '::1', '10.0.0.1', '10.0.0', 'localhost']), [
      '',
      '::1',
      '10.0.0.1',
      undefined,
      undefined,
    ]);
    assert.deepEqual(read(ipv4, ['10.0.0.1', '::1', '10.0.0', '']), [
      '10.0.0.1',
      undefined,
      undefined,
      undefined,
    ]);
  });

  it('one of several words, in any letter case', () => {
    const type = choice(['auto', 'none']);
    assert.deepEqual(read(type, ['auto', 'NONE', 'aut', '']), [
      'auto',
      'none',
      undefined,
      undefined,
    ]);
    assert.equal(type.allowed, 'auto, none');
    assert.equal(choice(['a'], 'in words').allowed, 'in words');
  });

  it('lists without blanks, empty items and repetitions, completely or not at all', () => {
    const type = list('of some words', choice(['a', 'b']).parse, /^(?:a|b)$/);
    assert.deepEqual(read(type, ['a, b,,a', '', ' , ']), [['a', 'b'], [], []]);
    assert.equal(type.parse('a,c'), undefined);
    assert.equal(type.allowed, 'of some words, comma separated');
  });

  it('texts, any or those of a pattern', () => {
    assert.deepEqual(read(anyText, ['', ' x']), ['', ' x']);
    assert.deepEqual(read(matching(/^\d+$/, 'digits'), ['12', 'x']), ['12', undefined]);
  });

  it('paths, or off for none', () => {
    const type = pathOrOff(/^(?:off|\/.+)$/, 'a path');
    assert.deepEqual(read(type, ['off', '/a', 'a']), ['', '/a', undefined]);
  });
});
