import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BoundedLabel, resourceLabel } from '../../../src/nmi/telemetry/bounded-label.ts';

describe('a label with values from outside', () => {
  it('keeps a number of first values, and has one word for all others', () => {
    const label = new BoundedLabel(2);
    assert.deepEqual(
      ['a', 'b', 'c', 'a', 'b'].map((value) => label.of(value)),
      ['a', 'b', 'other', 'a', 'b'],
    );
  });

  it('keeps no long value', () => {
    const label = new BoundedLabel(2);
    assert.equal(label.of('x'.repeat(256)), 'other');
    assert.equal(label.of('x'.repeat(255)), 'x'.repeat(255));
  });
});

describe('the label of a resource', () => {
  it('is one that SDKs request, with or without a trailing slash, or "other"', () => {
    assert.equal(resourceLabel('https://vault.azure.net'), 'https://vault.azure.net');
    assert.equal(resourceLabel('https://vault.azure.net/'), 'https://vault.azure.net');
    assert.equal(resourceLabel(''), '');
    for (const other of ['https://vault.azure.net//', 'https://x/https://vault.azure.net', 'x']) {
      assert.equal(resourceLabel(other), 'other');
    }
  });
});
