import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createDoubts, few } from '../../../src/kubectl/findings/grant-doubts.ts';
import { createIdentity, createIdentityGrant } from '../../support/cache-objects.ts';

const id = '22729e47-74ce-4b43-8eea-000000000001';
const nothing = { pods: [], workloads: [], accounts: [], nodes: [] };
const entry = { namespace: 'thief', field: 'clientIDs', id } as const;

describe('doubts about an entry of a grant', () => {
  it('are about a namespace that another one was before, and no other', () => {
    const oddAfter = (own: number, other: number): boolean =>
      createDoubts(
        [
          createIdentity({ namespace: 'thief', name: 'a', clientId: id, createdAtWallMs: own }),
          createIdentity({ namespace: 'thief', name: 'b', clientId: id, createdAtWallMs: own + 9 }),
          createIdentity({ namespace: 'shop', clientId: id, createdAtWallMs: other }),
        ],
        [],
        nothing,
      ).isOdd(entry);
    assert.equal(oddAfter(5, 4), true);
    assert.equal(oddAfter(5, 5), false, 'within the same second');
    assert.equal(oddAfter(5, 6), false);
  });

  it('know no grant that gives nothing to anybody', () => {
    const about = (...namespaces: readonly string[]) =>
      createDoubts([], [createIdentityGrant({ namespaces, clientIds: [id] })], nothing).isOdd(
        entry,
      );
    assert.equal(about(), false);
    assert.equal(about('shop'), true);
  });

  it('name three', () => {
    assert.equal(few(['a', 'b', 'c']), 'a, b, c');
    assert.equal(few(['a', 'b', 'c', 'd', 'e']), 'a, b, c and 2 more');
  });
});
