import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import { parseException, parseIdentity } from '../../../../src/nmi/kube/watch/parse.ts';
import { usedHeap } from '../../../support/heap.ts';
import {
  maxExceptionBytes,
  maxNamespaceBytes,
  NamespaceUsage,
  textBytes,
} from '../../../../src/nmi/kube/watch/namespace-usage.ts';

describe('the memory of texts', () => {
  it('counts keys and strings at every depth, and nothing else', () => {
    assert.equal(textBytes('four'), 4);
    assert.equal(textBytes({ ab: 'c', de: { f: 'gh' }, i: true, j: undefined }), 10);
    for (const value of [undefined, null, 7, true, [], {}]) assert.equal(textBytes(value), 0);
  });

  it('is twice the number of characters where one is beyond Latin-1', () => {
    assert.equal(textBytes('naïve'), 5);
    assert.equal(textBytes('\u0100xx'), 6);
    assert.equal(textBytes({ キー: { x: '値', y: 'x' } }), 9);
  });

  it('has 48 bytes more for each string of a list, and for each key and value of a map', () => {
    assert.equal(textBytes(['a', 'bc', 1]), 3 + 3 * 48);
    const map: unknown = Object.setPrototypeOf({ a: 'b', cd: '' }, null);
    assert.equal(textBytes({ map }), 3 + 4 + 4 * 48);
  });

  const short = (count: number, of: number) =>
    Array.from({ length: count }, (_, at) => (of * count + at).toString(36).padStart(4, 'z'));
  const labelled = (count: number, of: number, value: (key: string) => string) => ({
    podLabels: Object.fromEntries(short(count, of).map((key) => [key, value(key)])),
  });

  for (const [what, parse, specOf] of [
    ['64 short labels', parseException, (at: number) => labelled(64, at, () => '')],
    ['43 short labels', parseException, (at: number) => labelled(43, at, (key) => `v${key}`)],
    ['as many labels as possible', parseException, (at: number) => labelled(163, at, () => '')],
    [
      'a long list',
      parseIdentity,
      (at: number) => ({ type: 1, auxiliaryTenantIDs: short(300, at) }),
    ],
  ] as const) {
    it(`is not much more than is counted for objects with ${what}`, async () => {
      const usage = new NamespaceUsage();
      const kept: unknown[] = [];
      const before = await usedHeap();
      for (let at = 0; at < 500; at++) {
        const metadata = { namespace: 'a', name: `x-${at}`, uid: `uid-${at}` };
        const raw: unknown = JSON.parse(JSON.stringify({ metadata, spec: specOf(at) }));
        const parsed = parse(raw);
        assert.ok(parsed.ok && usage.add(parsed.value, parsed.texts));
        kept.push(parsed.value);
      }
      const used = (await usedHeap()) - before;
      assert.equal(kept.length, 500);
      assert.ok(used < 1.5 * usage.total, `${used} bytes, counted as ${usage.total}`);
    });
  }
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

  it('may be exactly the limit, which may be another', () => {
    for (const limit of [maxNamespaceBytes, maxExceptionBytes]) {
      const addOf = (texts: number) =>
        new NamespaceUsage().add(
          object('a', 1, 0),
          texts,
          limit === maxNamespaceBytes ? undefined : limit,
        );
      assert.deepEqual([limit - 512, limit - 511].map(addOf), [true, false]);
    }
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
