import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { openFrameWire } from '../../../lab/frames/frame-wire.ts';
import { freshNative } from '../../../scripts/native.ts';

describe('the frames of an interface', () => {
  before(freshNative);

  it('are refused for an invalid name', () => {
    for (const name of ['', 'x'.repeat(16), 'lo\0']) {
      assert.throws(() => openFrameWire(name), TypeError, JSON.stringify(name));
    }
  });

  it('are refused for a missing one, with the kernel’s error', () => {
    assert.throws(() => openFrameWire('nmi-nowhere'), { code: 'ENODEV' });
  });
});
