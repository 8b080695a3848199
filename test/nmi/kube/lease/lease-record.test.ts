import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseLease, renderLease } from '../../../../src/nmi/kube/lease/lease-record.ts';

const content = {
  namespace: 'kube-system',
  name: 'lease',
  holder: 'a',
  durationMs: 60_000,
  nowWallMs: Date.UTC(2026, 0, 1, 10, 0, 0, 25),
};
const stored = { version: '7', holder: 'b', transitions: 3, acquireTime: 'then' };

describe('a Lease', () => {
  it('is decoded as far as an election needs it, for any field types', () => {
    const spec = { holderIdentity: 'b', leaseTransitions: 3, acquireTime: 'then' };
    assert.deepEqual(parseLease({ metadata: { resourceVersion: '7' }, spec }), stored);
    const empty = { version: '7', holder: '', transitions: 0, acquireTime: '' };
    for (const wrong of [undefined, 'x', { holderIdentity: 1, leaseTransitions: '3' }]) {
      assert.deepEqual(parseLease({ metadata: { resourceVersion: '7' }, spec: wrong }), empty);
    }
    assert.equal(parseLease({ kind: 'Status' }), undefined);
    assert.equal(parseLease('text'), undefined);
  });

  it('is created with times in the format of Kubernetes', () => {
    assert.deepEqual(renderLease(content, undefined), {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { namespace: 'kube-system', name: 'lease' },
      spec: {
        holderIdentity: 'a',
        leaseDurationSeconds: 60,
        acquireTime: '2026-01-01T10:00:00.025000Z',
        renewTime: '2026-01-01T10:00:00.025000Z',
        leaseTransitions: 0,
      },
    });
  });

  it('lasts at least a second, the least that Kubernetes accepts', () => {
    for (const [durationMs, seconds] of [
      [0, 1],
      [400, 1],
      [1_600, 2],
    ] as const) {
      const { spec } = renderLease({ ...content, durationMs }, stored) as {
        spec: { leaseDurationSeconds: number };
      };
      assert.equal(spec.leaseDurationSeconds, seconds);
    }
  });

  it('replaces only the version that was read, and counts its holders', () => {
    const rendered = (holder: string, known = stored) => {
      const { metadata, spec } = renderLease({ ...content, holder }, known) as {
        metadata: { resourceVersion: string };
        spec: { leaseTransitions: number; acquireTime: string };
      };
      return [metadata.resourceVersion, spec.leaseTransitions, spec.acquireTime];
    };
    const now = '2026-01-01T10:00:00.025000Z';
    assert.deepEqual(rendered('a'), ['7', 4, now], 'taken');
    assert.deepEqual(rendered('b'), ['7', 3, 'then'], 'renewed');
    assert.deepEqual(rendered('b', { ...stored, acquireTime: '' }), ['7', 3, now]);
    assert.deepEqual(rendered(''), ['7', 3, now], 'given back');
  });
});
