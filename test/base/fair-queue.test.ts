import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { queryObjects } from 'node:v8';
import { FairQueue } from '../../src/base/fair-queue.ts';

const party = (name: string) => {
  const [namespace = '', pod = ''] = name.split('/');
  return { namespace, pod };
};

/** Entries are named after their owner: `shop/a 1`. */
function fill(...entries: string[]): FairQueue<string> {
  const queue = new FairQueue<string>();
  for (const entry of entries) queue.add(entry, party(entry.split(' ')[0] ?? ''));
  return queue;
}

function drain(queue: FairQueue<string>): string[] {
  const out: string[] = [];
  for (let entry = queue.shift(); entry !== undefined; entry = queue.shift()) out.push(entry);
  return out;
}

describe('the fair queue', () => {
  it('keeps the order of arrival within a pod', () => {
    assert.deepEqual(drain(fill('n/a 1', 'n/a 2', 'n/a 3')), ['n/a 1', 'n/a 2', 'n/a 3']);
  });

  it('serves namespaces in turn, and the pods of a namespace in turn', () => {
    const queue = fill('n/a 1', 'n/a 2', 'n/a 3', 'n/b 1', 'm/c 1', 'm/c 2');
    assert.deepEqual(drain(queue), ['n/a 1', 'm/c 1', 'n/b 1', 'm/c 2', 'n/a 2', 'n/a 3']);
    assert.equal(queue.size, 0);
  });

  it('lets a pod that comes later wait for one entry of each other pod', () => {
    const queue = fill(...Array.from({ length: 100 }, (_, index) => `n/a ${index}`));
    queue.shift();
    queue.add('late', party('n/late'));
    assert.equal(queue.shift(), 'n/a 1');
    assert.equal(queue.shift(), 'late');
  });

  it('returns an entry with several waiters once, at the first of their turns', () => {
    const queue = fill('n/a 1', 'n/a 2', 'n/a 3');
    queue.add('n/a 3', party('m/b'));
    queue.add('n/a 3', party('m/b'));
    assert.equal(queue.size, 3);
    assert.deepEqual(drain(queue), ['n/a 1', 'n/a 3', 'n/a 2']);
  });

  it('passes over a party that may not be served, which keeps its turn', () => {
    const queue = fill('n/a 1', 'n/b 1', 'm/c 1');
    const notA = ({ pod }: { readonly pod: string }) => pod !== 'a';
    assert.deepEqual(queue.take(notA), { entry: 'n/b 1', party: party('n/b') });
    assert.deepEqual(queue.take(notA), { entry: 'm/c 1', party: party('m/c') });
    assert.equal(queue.take(notA), undefined);
    assert.equal(queue.shift(), 'n/a 1');
  });

  it('drops what is removed from it, wherever it was queued', () => {
    const queue = fill('n/a 1', 'n/a 2');
    queue.add('n/a 1', party('m/b'));
    assert.ok(queue.has('n/a 1'));
    assert.ok(queue.delete('n/a 1'));
    assert.ok(!queue.delete('n/a 1'));
    assert.ok(!queue.has('n/a 1'));
    assert.equal(queue.size, 1);
    assert.deepEqual(drain(queue), ['n/a 2']);
    queue.add('x', party('n/a'));
    queue.clear();
    assert.deepEqual([queue.size, queue.shift()], [0, undefined]);
  });

  it('keeps nothing for pods without entries, while others of their namespace have some', () => {
    const queue = fill('n/stays 1');
    const before = queryObjects(Set, { format: 'count' });
    for (let pod = 0; pod < 1_000; pod++) {
      queue.add(`n/${pod} 1`, party(`n/${pod}`));
      queue.delete(`n/${pod} 1`);
    }
    assert.ok(queryObjects(Set, { format: 'count' }) - before < 100);
    assert.equal(queue.size, 1);
  });
});
