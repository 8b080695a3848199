import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { buildInfo, userAgent } from '../../../src/nmi/base/build-info.ts';

describe('the running version', () => {
  it('is marked as not built', () => {
    assert.deepEqual(buildInfo, { version: '0.0.0-source', commit: 'unknown', date: 'unknown' });
  });

  it('has the name of the replaced system, with an additional text', () => {
    assert.equal(userAgent(''), 'aad-pod-identity/NMI/0.0.0-source/unknown/unknown');
    assert.equal(userAgent('team'), 'aad-pod-identity/NMI/0.0.0-source/unknown/unknown team');
  });
});
