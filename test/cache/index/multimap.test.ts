import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Multimap } from '../../../src/cache/index/multimap.ts';

describe('groups', () => {
  it('hold what was added under each key and not deleted', () => {
    const values = Array.from({ length: 4 }, (_, name) => ({ name }));
    const anyStep = fc.record({
      key: fc.constantFrom('a', 'b'),
      value: fc.constantFrom(...values),
      isDeleted: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 40 }), (steps) => {
        const groups = new Multimap<(typeof values)[number]>();
        const model = { a: new Set<object>(), b: new Set<object>() };
        for (const { key, value, isDeleted } of steps) {
          if (isDeleted) {
            groups.delete(key, value);
            model[key as 'a'].delete(value);
          } else {
            groups.add(key, value);
            model[key as 'a'].add(value);
          }
          for (const each of ['a', 'b'] as const) {
            assert.deepEqual(new Set(groups.of(each)), model[each]);
            assert.equal(groups.count(each), model[each].size);
          }
        }
      }),
    );
  });
});
