import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import type { Granted } from '../../../src/nmi/grants/grant.ts';
import { grantedSinceWallMs } from '../../../src/nmi/grants/grant-age.ts';
import { createBinding, createIdentity, createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

/** The start of the grant for a pod and objects with these creation times. */
function grantedAt(
  podMs: number,
  identityMs: number | undefined,
  bindings: Record<string, number>,
) {
  const pods = new PodIndex(new HandClock());
  const pod = createPod({ labels: { aadpodidbinding: 'label' }, createdAtWallMs: podMs });
  pods.upsert(pod);
  const grants = new GrantIndex(pods);
  const identity =
    identityMs === undefined ? undefined : createIdentity({ createdAtWallMs: identityMs });
  if (identity !== undefined) grants.identities.upsert(identity);
  grants.identities.upsert(createIdentity({ name: 'other', createdAtWallMs: 99 }));
  for (const [identityName, createdAtWallMs] of Object.entries(bindings)) {
    const name = `to-${identityName}`;
    grants.bindings.upsert(createBinding({ name, identityName, createdAtWallMs }));
  }
  const authorized: Granted = {
    kind: 'granted',
    pod,
    upstream: { kind: 'unnamed' },
    auxiliary: [],
    identity,
    by: 'test',
  };
  return grantedSinceWallMs(authorized, grants);
}

describe('the age of a grant of an identity', () => {
  it('is that of the newest of pod, identity and the binding between them', () => {
    assert.equal(grantedAt(3, 2, { identity: 1 }), 3);
    assert.equal(grantedAt(1, 3, { identity: 2 }), 3);
    assert.equal(grantedAt(1, 2, { identity: 3 }), 3);
  });

  it('does not depend on bindings to other identities', () => {
    assert.equal(grantedAt(1, 2, { identity: 3, other: 9 }), 3);
  });

  it('is the age of the pod if no identity of the cluster is involved', () => {
    assert.equal(grantedAt(5, undefined, {}), 5);
    assert.equal(grantedAt(5, 7, {}), 7, 'an identity that is not bound any more');
  });
});
