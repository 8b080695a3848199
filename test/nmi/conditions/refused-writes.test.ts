import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RefusedWrites } from '../../../src/nmi/conditions/refused-writes.ts';

const backoff = { baseMs: 1_000, capMs: 8_000 };

describe('refused writes', () => {
  it('are due after their time, each once', () => {
    const refused = new RefusedWrites();
    refused.add('a', '1', backoff, 0, 0);
    assert.ok(refused.has('a', '1'));
    assert.deepEqual(refused.takeDue(499), []);
    assert.deepEqual(refused.takeDue(500), ['a']);
    assert.ok(!refused.has('a', '1'), 'to be tried');
    assert.deepEqual(refused.takeDue(10_000), []);
  });

  it('wait longer each time, up to a limit', () => {
    const refused = new RefusedWrites();
    let nowMs = 0;
    const waits = Array.from({ length: 6 }, () => {
      refused.add('a', '1', backoff, nowMs, 0);
      const startMs = nowMs;
      while (refused.takeDue(nowMs).length === 0) nowMs += 100;
      return nowMs - startMs;
    });
    assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 4_000, 4_000]);
  });

  it('do not hold back another write of the object, whose wait begins anew', () => {
    const refused = new RefusedWrites();
    for (let times = 0; times < 4; times++) refused.add('a', '1', backoff, 0, 0);
    assert.ok(!refused.has('a', '2') && !refused.has('b', '1'));
    refused.add('a', '2', backoff, 0, 0);
    assert.ok(!refused.has('a', '1'));
    assert.deepEqual(refused.takeDue(500), ['a']);
  });

  it('are forgotten when written, or with their object', () => {
    const refused = new RefusedWrites();
    for (const key of ['a', 'b', 'c']) refused.add(key, '1', backoff, 0, 0);
    refused.delete('a');
    refused.keepOnly((key) => key !== 'b');
    assert.deepEqual(refused.takeDue(1_000), ['c']);
    assert.equal(refused.size, 1);
  });
});
