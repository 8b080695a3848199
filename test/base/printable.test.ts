import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { printable } from '../../src/base/printable.ts';

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
