import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isSlip, NearNames } from '../../../src/nmi/grants/near-names.ts';
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
  it('is one wrong character, two swapped ones, the letter case, or blanks around', () => {
    const slips = [
      ['app-a', 'app-b'],
      ['oders', 'orders'],
      ['orderss', 'orders'],
      ['odrers', 'orders'],
      ['Orders', 'oRDERS'],
      ['ORDER', 'orders'],
      ['AB', 'ab'],
      ['abc', 'abd'],
      ['app', 'app '],
      [' orders', 'order'],
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

describe('the name that a refused pod probably meant', () => {
  it('is a selector of its own namespace, the first by name, and never one of another', () => {
    const index = createIndex([
      ['other', 'app-0'],
      ['default', 'app-c'],
      ['default', 'app-b'],
      ['default', 'web'],
    ]);
    assert.equal(new NearNames(index).meantBy(unbound('app-a'), 'default', 0), 'app-b');
    assert.equal(new NearNames(index).meantBy(unbound('stock'), 'default', 0), undefined);
    assert.equal(new NearNames(index).meantBy(unbound('app-a'), 'third', 0), undefined);
  });

  it('is an identity whose name is close to that in the binding', () => {
    const index = createIndex([['default', 'orders']]);
    const bindings = [createBinding({ identityName: 'order' })];
    const grants = { kind: 'no-identity', label: 'l', bindings, sinceWallMs: 0 } as const;
    assert.equal(new NearNames(index).meantBy(grants, 'default', 0), 'orders');
  });

  it('is none if a binding matches and is for another service account', () => {
    const index = createIndex([['default', 'app-b']]);
    const bindingsForOtherAccounts = [
      createBinding({ selector: 'app-a', serviceAccount: 'robot' }),
    ];
    const grants = { ...unbound('app-a'), bindingsForOtherAccounts };
    assert.equal(new NearNames(index).meantBy(grants, 'default', 0), undefined);
  });

  it('is searched for once in 10 s for a pod, however many requests are refused', () => {
    const index = createIndex([['default', 'app-b']]);
    const grants = unbound('app-a');
    const near = new NearNames(index);
    for (let request = 0; request < 1_000; request++) {
      assert.equal(near.meantBy(grants, 'default', request), 'app-b');
    }
    assert.equal(index.searches(), 1);
    near.meantBy(grants, 'default', 10_000);
    assert.equal(index.searches(), 2);
    // A clock that was set back must not keep a result for years.
    near.meantBy(grants, 'default', -10_000);
    assert.equal(index.searches(), 3);
  });
});
