import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it, mock } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { programText } from '../../../src/redirect/native/program-text.ts';

const textBytes = 64 << 20;

function anonymousBytes(): number {
  const text = readFileSync('/proc/self/smaps_rollup', 'latin1');
  return Number(/^Anonymous:\s+(\d+) kB/m.exec(text)?.[1]) * 1024;
}

describe('the text of the program', () => {
  freshNative();
  const asset = new ArrayBuffer(textBytes);
  Buffer.from(asset).fill('1 + 1;é\n', 'latin1');

  it('is what the asset has, and no copy of it', () => {
    const before = anonymousBytes();
    const text = programText(asset);
    assert.ok(anonymousBytes() - before < textBytes / 4);
    assert.equal(text.length, textBytes);
    assert.equal(text.slice(-16), '1 + 1;é\n1 + 1;é\n');
  });

  it('is a copy where the addon cannot make it', () => {
    const made = mock.method(nativeModule(), 'externalText', () => {
      throw new Error('refused');
    });
    assert.equal(programText(asset.slice(0, 8)), '1 + 1;é\n');
    assert.equal(made.mock.callCount(), 1);
  });
});
