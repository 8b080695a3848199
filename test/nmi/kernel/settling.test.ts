import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { whileSettling } from '../../../src/nmi/kernel/settling.ts';

describe('a connection without a record', () => {
  it('gets the advice to retry while it may be older than the redirect', () => {
    const settled = whileSettling({ kind: 'unattested' }, true);
    assert.match((settled.kind === 'unattested' && settled.retryWhy) || '', /less than a minute/);
    assert.deepEqual(whileSettling({ kind: 'unattested' }, false), { kind: 'unattested' });
  });

  it('is the only case that this changes', () => {
    for (const attestation of [
      { kind: 'by-address' },
      { kind: 'attested', cgroupId: 1n },
      { kind: 'unavailable', why: 'x' },
    ] as const) {
      assert.equal(whileSettling(attestation, true), attestation);
    }
  });
});
