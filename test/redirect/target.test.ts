import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { defaultTarget, describeTarget, reachableTarget } from '../../src/redirect/target.ts';

describe('the target of a redirect', () => {
  it('is the address of the agent’s own link if it listens on all addresses', () => {
    const target = { ...defaultTarget, listenIp: '0.0.0.0', listenPort: 4000 };
    assert.deepEqual(reachableTarget(target), { ...defaultTarget, listenPort: 4000 });
  });

  it('is otherwise the configured one', () => {
    const target = { ...defaultTarget, listenIp: '10.0.0.4', metadataPort: 1, listenPort: 65534 };
    assert.deepEqual(reachableTarget(target), target);
  });

  it('must be IPv4 and have valid ports', () => {
    for (const wrong of [
      { listenIp: 'fd00::1' },
      { metadataIp: '::' },
      { metadataIp: 'metadata' },
      { listenPort: 0 },
      { listenPort: 1.5 },
      { metadataPort: 65536 },
    ]) {
      assert.throws(() => reachableTarget({ ...defaultTarget, ...wrong }), RangeError);
    }
  });

  it('is described with both addresses', () => {
    assert.equal(describeTarget(defaultTarget), '169.254.169.254:80 to 169.254.25.79:2579');
  });
});
