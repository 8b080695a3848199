import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { livePodOf } from '../../../../src/nmi/sources/entra/live-pod.ts';
import { createPod } from '../../../support/cache-objects.ts';

const account = { namespace: 'team', name: 'robot' };

function podOf(fields: Partial<Pod>): Pod {
  return createPod({ namespace: 'team', serviceAccount: 'robot', ...fields });
}

describe('the pod for the token of a service account', () => {
  it('has this account and has not ended', () => {
    const others = [
      podOf({ name: 'a', namespace: 'other' }),
      podOf({ name: 'b', serviceAccount: 'default' }),
      podOf({ name: 'c', phase: 'Succeeded' }),
      podOf({ name: 'd', phase: 'Failed' }),
    ];
    assert.equal(livePodOf(others, account), undefined);
    const own = podOf({ name: 'e', phase: 'Pending' });
    assert.equal(livePodOf([...others, own], account), own);
  });

  it('is the oldest that is not terminating, in any order of arrival', () => {
    const leaving = podOf({ name: 'leaving', terminating: true, createdAtWallMs: 1 });
    const old = podOf({ name: 'old', createdAtWallMs: 2 });
    const twin = podOf({ name: 'zwin', createdAtWallMs: 2 });
    const young = podOf({ name: 'new', createdAtWallMs: 3 });
    fc.assert(
      fc.property(fc.shuffledSubarray([leaving, old, twin, young], { minLength: 4 }), (pods) => {
        assert.equal(livePodOf(pods, account), old);
      }),
    );
    assert.equal(livePodOf([leaving], account), leaving, 'better than none');
  });
});
