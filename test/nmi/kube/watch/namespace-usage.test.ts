import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import {
  maxNamespaceBytes,
  NamespaceUsage,
  textBytes,
} from '../../../../src/nmi/kube/watch/namespace-usage.ts';

describe('the memory of texts', () => {
  it('counts keys and strings at every depth, and nothing else', () => {
    assert.equal(textBytes('four'), 4);
    assert.equal(textBytes({ ab: 'c', de: [1, null, { f: 'gh' }], i: true, j: undefined }), 10);
    for (const value of [undefined, null, 7, true, [], {}]) assert.equal(textBytes(value), 0);
  });

  it('is twice the number of characters where one is beyond Latin-1', () => {
    assert.equal(textBytes('naïve'), 5);
    assert.equal(textBytes('\u0100xx'), 6);
    assert.equal(textBytes({ キー: ['値', 'x'] }), 7);
  });
});

describe('the usage of namespaces', () => {
  const object = (namespace: string, at: number, length: number, character = 'x') => ({
    namespace,
    name: `object-${at}`,
    uid: `${namespace}-${at}`,
    text: character.repeat(length),
  });

  it('is the sum of what was added and not removed, in any order', () => {
    const step = fc.record({
      namespace: fc.constantFrom('a', 'b', 'c'),
      at: fc.nat(5),
      length: fc.nat(100),
      isRemoval: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const usage = new NamespaceUsage();
        const left = new Map<string, ReturnType<typeof object>>();
        for (const { namespace, at, length, isRemoval } of steps) {
          const each = object(namespace, at, length);
          if (isRemoval) {
            usage.remove(each);
            left.delete(each.uid);
          } else {
            assert.ok(usage.add(each));
            left.set(each.uid, each);
          }
        }
        const expected = [...left.values()].reduce((sum, each) => sum + 512 + textBytes(each), 0);
        assert.equal(usage.total, expected);
      }),
    );
  });

  it('holds half as many objects in other scripts, which take twice the memory', () => {
    const fill = (character: string): number => {
      const usage = new NamespaceUsage();
      let count = 0;
      while (usage.add(object('a', count, 15_000, character))) count += 1;
      return count;
    };
    const [latin, other] = [fill('x'), fill('値')];
    assert.ok(Math.abs(latin / other - 2) < 0.1, `${latin} and ${other}`);
  });

  it('has a limit for each namespace, and an object without room is not counted', () => {
    const usage = new NamespaceUsage();
    const large = maxNamespaceBytes / 2 - 1_000;
    assert.ok(usage.add(object('a', 1, large)));
    assert.ok(usage.add(object('a', 2, large)));
    assert.ok(!usage.add(object('a', 3, large)));
    assert.ok(usage.add(object('b', 1, large)));
    const before = usage.total;
    assert.ok(!usage.add(object('a', 2, 2 * large)), 'its new version has no room');
    assert.ok(usage.total < before, 'its former version no longer counts');
    assert.ok(usage.add(object('a', 3, large)));
  });
});
