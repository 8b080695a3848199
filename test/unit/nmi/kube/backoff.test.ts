import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { backoffMs } from '../../../../src/nmi/kube/api/backoff.ts';

const backoff = { baseMs: 100, capMs: 1000 };

describe('the back-off', () => {
  it('doubles up to its cap, half of it random', () => {
    const longest = [1, 2, 3, 4, 5, 400].map((failures) => backoffMs(backoff, failures, 1));
    assert.deepEqual(longest, [100, 200, 400, 800, 1000, 1000]);
    const shortest = [1, 2, 5].map((failures) => backoffMs(backoff, failures, 0));
    assert.deepEqual(shortest, [50, 100, 500]);
  });

  it('waits as long as the server requires plus up to a quarter, within a limit', () => {
    assert.equal(backoffMs(backoff, 1, 0, 3000), 3000);
    assert.equal(backoffMs(backoff, 1, 1, 3000), 3750);
    assert.equal(backoffMs(backoff, 400, 0, 500), 500);
    assert.equal(backoffMs(backoff, 5, 0, 10), 100);
    assert.equal(backoffMs(backoff, 1, 0, 1), 100);
    assert.equal(backoffMs(backoff, 1, 0, 86_400_000), 300_000);
  });

  it('is a finite, positive time for any count of failures', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (n, random) => {
          const delay = backoffMs(backoff, n, random);
          assert.ok(delay >= 50 && delay <= 1000);
        },
      ),
    );
  });
});
