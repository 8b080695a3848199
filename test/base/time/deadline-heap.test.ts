import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DeadlineHeap, type Deadline } from '../../../src/base/time/deadline-heap.ts';

describe('the heap of deadlines', () => {
  it('always has the soonest first, whatever is set, moved and removed', () => {
    const anyStep = fc.record({
      item: fc.nat(19),
      dueAtMs: fc.option(fc.nat(1_000), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(anyStep, { minLength: 20, maxLength: 100 }), (steps) => {
        const heap = new DeadlineHeap<Deadline>();
        const items = Array.from({ length: 20 }, () => ({ dueAtMs: 0, heapIndex: -1 }));
        const model = new Map<number, number>();
        for (const { item, dueAtMs } of steps) {
          const deadline = items[item];
          assert.ok(deadline !== undefined);
          if (dueAtMs === undefined) {
            heap.delete(deadline);
            model.delete(item);
          } else {
            heap.set(deadline, dueAtMs);
            model.set(item, dueAtMs);
          }
          assert.equal(heap.size, model.size);
          assert.equal(heap.first?.dueAtMs ?? Infinity, Math.min(...model.values()));
        }
        const drained: number[] = [];
        for (let { first } = heap; first !== undefined; { first } = heap) {
          drained.push(first.dueAtMs);
          heap.delete(first);
        }
        assert.deepEqual(
          drained,
          [...model.values()].sort((a, b) => a - b),
        );
        assert.ok(items.every(({ heapIndex }) => heapIndex === -1));
      }),
    );
  });

  it('can be emptied and filled again', () => {
    const heap = new DeadlineHeap<Deadline>();
    const items = Array.from({ length: 3 }, () => ({ dueAtMs: 0, heapIndex: -1 }));
    for (const [index, item] of items.entries()) heap.set(item, 10 - index);
    heap.clear();
    assert.deepEqual([heap.size, heap.first], [0, undefined]);
    assert.ok(items.every(({ heapIndex }) => heapIndex === -1));
    for (const item of items) heap.set(item, 1);
    assert.equal(heap.size, 3);
  });
});
