import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseRetryAfter } from '../../src/base/retry-after.ts';

const now = Date.UTC(2026, 0, 1);

describe('Retry-After', () => {
  it('is read as seconds or as a date', () => {
    assert.equal(parseRetryAfter('3', now), 3);
    assert.equal(parseRetryAfter(' 0 ', now), 0);
    assert.equal(parseRetryAfter(['4'], now), 4);
    assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:00:05 GMT', now), 5);
    assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:00:05 GMT', now + 100), 5);
    assert.equal(parseRetryAfter('Wed, 31 Dec 2025 00:00:00 GMT', now), 0);
    for (const text of ['', 'soon', [], undefined]) {
      assert.equal(parseRetryAfter(text, now), undefined);
    }
  });

  it('is never longer than the given bound', () => {
    assert.equal(parseRetryAfter('900000', now, 120), 120);
    assert.equal(parseRetryAfter('Thu, 01 Jan 2027 00:00:00 GMT', now, 120), 120);
  });
});
