import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { LruList, type Linked } from '../../src/base/lru-list.ts';

describe('the order of use', () => {
  it('is that of a list where each used item moves to the end', () => {
    interface Item extends Linked<Item> {
      readonly name: number;
    }
    const anyStep = fc.record({ name: fc.nat(5), isDeleted: fc.boolean() });
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 60 }), (steps) => {
        const list = new LruList<Item>();
        const items = Array.from({ length: 6 }, (_, name): Item => {
          return { name, newer: undefined, older: undefined };
        });
        let model: number[] = [];
        for (const { name, isDeleted } of steps) {
          const item = items[name];
          assert.ok(item !== undefined);
          const isIn = model.includes(name);
          model = model.filter((other) => other !== name);
          if (isDeleted && isIn) list.delete(item);
          else if (!isDeleted) {
            if (isIn) list.touch(item);
            else list.add(item);
            model.push(name);
          }
          const order: number[] = [];
          for (let each = list.oldest; each !== undefined; each = each.newer) order.push(each.name);
          assert.deepEqual(order, model);
        }
      }),
    );
  });
});
