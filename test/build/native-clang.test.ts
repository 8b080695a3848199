/** The compiler that builds for another architecture: no gcc of it is needed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const sources = join(import.meta.dirname, '../../src/redirect/native');
const headers = join(process.execPath, '../../include/node');

test('clang builds the native module without a warning, as gcc does', () => {
  const work = mkdtempSync(join(tmpdir(), 'nmi-test-clang-'));
  try {
    const words = ['-C', sources, `OUT=${work}`, `NODE_INCLUDE=${headers}`, 'CC=clang'];
    const { status, stderr } = spawnSync('make', words, { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  } finally {
    rmSync(work, { recursive: true });
  }
});
