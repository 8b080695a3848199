import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BoundedLabel, resourceLabel } from '../../../src/nmi/telemetry/bounded-label.ts';

describe('a label whose values come from outside', () => {
  it('keeps the first so many values, and shares one word for the others', () => {
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
  it('is one that SDKs ask for, with or without a slash at its end, or another', () => {
    assert.equal(resourceLabel('https://vault.azure.net'), 'https://vault.azure.net');
    assert.equal(resourceLabel('https://vault.azure.net/'), 'https://vault.azure.net');
    assert.equal(resourceLabel(''), '');
    for (const other of ['https://vault.azure.net//', 'https://x/https://vault.azure.net', 'x']) {
      assert.equal(resourceLabel(other), 'other');
    }
  });
});
