import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { networkCode } from '../../src/base/network-code.ts';

describe('the name of a network failure', () => {
  it('is its code, or its name if it has none', () => {
    assert.equal(
      networkCode(Object.assign(new Error('10.0.0.1'), { code: 'ECONNRESET' })),
      'ECONNRESET',
    );
    assert.equal(networkCode(new DOMException('late', 'TimeoutError')), 'TIMEOUT');
    assert.equal(networkCode(Object.assign(new TypeError('x'), { code: 7 })), 'TypeError');
    assert.equal(networkCode({ code: 'ECONNRESET' }), 'unknown');
  });
});
