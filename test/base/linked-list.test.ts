import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LinkedList, type Linked } from '../../src/base/linked-list.ts';

class Item implements Linked<Item> {
  before: Item | undefined;
  after: Item | undefined;
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

function open(count: number) {
  const list = new LinkedList<Item>();
  const items = Array.from({ length: count }, (_, at) => new Item(String(at)));
  for (const item of items) list.add(item);
  const names = () => Array.from(list, ({ name }) => name).join('');
  return { list, items, names };
}

describe('a linked list', () => {
  it('has its items in the order of addition, whichever is removed', () => {
    for (let gone = 0; gone < 4; gone += 1) {
      const { list, items, names } = open(4);
      const item = items[gone];
      assert.ok(item !== undefined);
      list.remove(item);
      assert.equal(names(), '0123'.replace(item.name, ''));
      assert.equal(list.size, 3);
      assert.equal(list.first?.name, gone === 0 ? '1' : '0');
      list.add(item);
      assert.equal(names(), '0123'.replace(item.name, '') + item.name);
      list.add(new Item('x'));
      assert.ok(names().endsWith(`${item.name}x`));
    }
  });

  it('is empty again when all are removed, and a removed item refers to no other', () => {
    const { list, items, names } = open(3);
    for (const item of items.toReversed()) {
      list.remove(item);
      assert.deepEqual([item.before, item.after], [undefined, undefined]);
    }
    assert.deepEqual([list.size, list.first, names()], [0, undefined, '']);
  });

  it('goes on after an item that is removed during the iteration', () => {
    const { list, names } = open(3);
    const seen: string[] = [];
    for (const item of list) {
      seen.push(item.name);
      list.remove(item);
    }
    assert.deepEqual(seen, ['0', '1', '2']);
    assert.equal(names(), '');
  });
});
