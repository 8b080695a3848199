import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  printable,
  printableList,
  renderJson,
  renderTable,
  sentence,
} from '../../src/base/printable.ts';

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
