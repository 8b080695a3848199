import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { findUnpinned, pinFile, readIndexes, readPin } from '../../scripts/image/debian-pin.ts';

const digest = 'a'.repeat(64);
const pin = { snapshot: '20261129T000000Z', indexes: { trixie: digest, 'trixie-updates': digest } };

describe('the pinned Debian', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-pin-'));
    mkdirSync(dirname(join(folder, pinFile)), { recursive: true });
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  it('is complete, or there is none', () => {
    assert.throws(() => readPin(folder), /debian-pin\.json is missing: run \.\/dev release pin/);
    for (const wrong of [
      {},
      { snapshot: pin.snapshot },
      { ...pin, snapshot: '../trixie' },
      { ...pin, indexes: {} },
      { ...pin, indexes: { trixie: 'a' } },
    ]) {
      writeFileSync(join(folder, pinFile), JSON.stringify(wrong));
      assert.throws(() => readPin(folder), /has no snapshot or no indexes/, JSON.stringify(wrong));
    }
    writeFileSync(join(folder, pinFile), JSON.stringify(pin));
    assert.deepEqual(readPin(folder), pin);
  });

  it('is another one if an index is another one, is missing or is new', () => {
    const { indexes } = pin;
    assert.equal(findUnpinned(pin, indexes), undefined);
    assert.equal(findUnpinned(pin, { ...indexes, trixie: 'b'.repeat(64) }), 'trixie');
    assert.equal(findUnpinned(pin, { trixie: digest }), 'trixie-updates');
    assert.equal(findUnpinned(pin, { ...indexes, backports: digest }), 'backports');
  });

  it('is read from what apt has verified', () => {
    assert.throws(() => readIndexes(folder), /apt has no signed index/);
    const content = 'Origin: Debian\nSuite: stable\nCodename: trixie\n';
    writeFileSync(join(folder, 'mirror.example_debian_dists_stable_InRelease'), content);
    assert.deepEqual(Object.keys(readIndexes(folder)), ['trixie']);
  });
});
