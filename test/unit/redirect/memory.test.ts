import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it, mock } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { programText } from '../../../src/redirect/native/program-text.ts';
import { usedHeap } from '../../support/heap.ts';

const blockBytes = 16 * 1024;
const blocks = 4_000;

/** Private memory of this process, in bytes. */
function privateBytes(): number {
  const text = readFileSync('/proc/self/smaps_rollup', 'latin1');
  return Number(/^Private_Dirty:\s+(\d+) kB/m.exec(text)?.[1]) * 1024;
}

// First: the other test's call would have unmapped them.
it('pages of the program that only its start needed are unmapped', () => {
  freshNative();
  const mappedKb = () =>
    Number(/^RssFile:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]);
  const before = mappedKb();
  nativeModule().trimMemory();
  const after = mappedKb();
  assert.ok(after < 0.75 * before, `${after} of ${before} kB`);
  // What is used comes back.
  assert.deepEqual(structuredClone([new Date(0).toISOString()]), ['1970-01-01T00:00:00.000Z']);
});

it('memory freed between blocks in use is returned to the kernel', async () => {
  freshNative();
  const native = nativeModule();
  const kept: Buffer[] = [];
  let freed: Buffer[] = [];
  for (let index = 0; index < blocks; index++) {
    // Written to, so that its pages exist; small enough to be allocated from the heap.
    const block = Buffer.allocUnsafeSlow(blockBytes).fill(1);
    // One block in eight is kept, so that the heap cannot shrink without a trim.
    (index % 8 === 0 ? kept : freed).push(block);
  }
  const freedBytes = freed.length * blockBytes;
  freed = [];
  await usedHeap();
  const before = privateBytes();
  assert.equal(native.trimMemory(), true);
  const given = before - privateBytes();
  assert.ok(given > freedBytes / 2, `${given} of ${freedBytes} bytes`);
  assert.equal(kept.length, blocks / 8);
  assert.ok(kept.every((block) => block[0] === 1 && block[blockBytes - 1] === 1));
});

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
