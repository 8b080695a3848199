import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isSlip, nearMissOf } from '../../../src/nmi/grants/near-miss.ts';
import { createBinding, createIdentity } from '../../support/cache-objects.ts';

const unbound = (label: string) =>
  ({ kind: 'no-binding', label, bindingsForOtherAccounts: [], sinceWallMs: 0 }) as const;

function createIndex(names: readonly (readonly [namespace: string, name: string])[]) {
  const bindings = names.map(([namespace, selector], index) =>
    createBinding({ namespace, selector, name: `b${index}` }),
  );
  const identities = names.map(([namespace, name]) => createIdentity({ namespace, name }));
  let searches = 0;
  const search = <T>(all: readonly T[]): readonly T[] => {
    searches++;
    return all;
  };
  return {
    allBindings: () => search(bindings),
    allIdentities: () => search(identities),
    searches: () => searches,
  };
}

describe('a typing error', () => {
  it('is one wrong character, two swapped ones, or the letter case', () => {
    const slips = [
      ['app-a', 'app-b'],
      ['oders', 'orders'],
      ['orderss', 'orders'],
      ['odrers', 'orders'],
      ['Orders', 'oRDERS'],
      ['ORDER', 'orders'],
      ['AB', 'ab'],
    ];
    for (const [one = '', other = ''] of slips) {
      assert.equal(isSlip(one, other), true, `${one} ${other}`);
      assert.equal(isSlip(other, one), true, `${other} ${one}`);
    }
  });

  it('is not any other difference, and not equality', () => {
    const others = [
      ['orders', 'orders'],
      ['orders', 'orde'],
      ['orders', 'stocks'],
      ['odresr', 'orders'],
      ['a', 'b'],
      ['ab', 'ac'],
      ['', 'a'],
      ['aaa', 'aa'],
    ];
    for (const [one = '', other = ''] of others) {
      assert.equal(isSlip(one, other), false, `${one} ${other}`);
      assert.equal(isSlip(other, one), false, `${other} ${one}`);
    }
  });
});

describe('the near miss of a refused pod', () => {
  it('is a selector of its own namespace, the first by name, and never one of another', () => {
    const index = createIndex([
      ['other', 'app-0'],
      ['default', 'app-c'],
      ['default', 'app-b'],
      ['default', 'web'],
    ]);
    assert.deepEqual(nearMissOf(unbound('app-a'), 'default', index, 0), {
      wanted: 'app-a',
      meant: 'app-b',
    });
    assert.equal(nearMissOf(unbound('stock'), 'default', index, 0), undefined);
    assert.equal(nearMissOf(unbound('app-a'), 'third', index, 0), undefined);
  });

  it('is an identity whose name is close to that in the binding', () => {
    const index = createIndex([['default', 'orders']]);
    const bindings = [createBinding({ identityName: 'order' })];
    const grants = { kind: 'no-identity', label: 'l', bindings, sinceWallMs: 0 } as const;
    assert.equal(nearMissOf(grants, 'default', index, 0)?.meant, 'orders');
  });

  it('is none if a binding matches and is for another service account', () => {
    const index = createIndex([['default', 'app-b']]);
    const bindingsForOtherAccounts = [
      createBinding({ selector: 'app-a', serviceAccount: 'robot' }),
    ];
    const grants = { ...unbound('app-a'), bindingsForOtherAccounts };
    assert.equal(nearMissOf(grants, 'default', index, 0), undefined);
  });

  it('is searched for once in 10 s for a pod, however many requests are refused', () => {
    const index = createIndex([['default', 'app-b']]);
    const grants = unbound('app-a');
    for (let request = 0; request < 1_000; request++) {
      assert.equal(nearMissOf(grants, 'default', index, request)?.meant, 'app-b');
    }
    assert.equal(index.searches(), 1);
    nearMissOf(grants, 'default', index, 10_000);
    assert.equal(index.searches(), 2);
    // A clock that was set back must not keep a result for years.
    nearMissOf(grants, 'default', index, -10_000);
    assert.equal(index.searches(), 3);
  });
});
