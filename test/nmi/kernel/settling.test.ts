import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { whileSettling } from '../../../src/nmi/kernel/settling.ts';

describe('a connection without a record', () => {
  it('may be older than the redirect for five seconds, and gets the advice to retry', () => {
    for (const activeForMs of [0, 4_999]) {
      const settled = whileSettling({ kind: 'unattested' }, activeForMs);
      assert.match((settled.kind === 'unattested' && settled.retryWhy) || '', /seconds ago/);
    }
    assert.deepEqual(whileSettling({ kind: 'unattested' }, 5_000), { kind: 'unattested' });
  });

  it('is the only case that this changes', () => {
    for (const attestation of [
      { kind: 'by-address' },
      { kind: 'attested', cgroupId: 1n },
      { kind: 'unavailable', why: 'x' },
    ] as const) {
      assert.equal(whileSettling(attestation, 0), attestation);
    }
  });
});
