import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { readShared, watchShared, writeShared } from '../../../../src/nmi/kernel/shared-file.ts';

describe('a file that several processes share', () => {
  let folder = '';
  let path = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-shared-file-'));
    path = join(folder, 'state.json');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('is replaced as a whole, and readable by another user', () => {
    writeShared(path, { a: 1 });
    const before = openSync(path, 'r');
    writeShared(path, { b: [2] });
    assert.deepEqual(readShared(path), { b: [2] });
    assert.equal(readFileSync(before, 'utf8'), '{"a":1}', 'whoever reads the earlier one');
    closeSync(before);
    assert.equal(statSync(path).mode & 0o777, 0o644);
    assert.deepEqual(readdirSync(folder), ['state.json']);
  });

  it('leaves nothing behind when it cannot be replaced', () => {
    mkdirSync(path);
    assert.throws(() => writeShared(path, {}), { code: 'EISDIR' });
    assert.throws(() => writeShared(join(folder, 'none', 'x'), {}), { code: 'ENOENT' });
    assert.deepEqual(readdirSync(folder), ['state.json']);
  });

  it('is written in place of a link, not through it', () => {
    const victim = join(folder, 'victim');
    writeFileSync(victim, 'as before');
    symlinkSync(victim, path);
    writeShared(path, { a: 1 });
    assert.equal(readFileSync(victim, 'utf8'), 'as before');
    assert.deepEqual(readShared(path), { a: 1 });
  });

  const text = (size: number) => `{"a":"${'x'.repeat(size - 8)}"}`;
  const odd: readonly (readonly [string, (at: string) => void])[] = [
    ['nothing', () => undefined],
    ['a folder', (at) => mkdirSync(at)],
    ['a pipe that nobody writes to', (at) => void spawnSync('mkfifo', [at])],
    [
      'a link to such a file',
      (at) => {
        writeFileSync(`${at}.x`, '{}');
        symlinkSync(`${at}.x`, at);
      },
    ],
    ['a device', (at) => symlinkSync('/dev/zero', at)],
    ['too much', (at) => writeFileSync(at, text(64 * 1024 + 1))],
    ...['', '{', 'null', '1', '[]', '"x"', '{}x', '\u0000'].map(
      (content) =>
        [
          `the text ${JSON.stringify(content)}`,
          (at: string) => writeFileSync(at, content),
        ] as const,
    ),
  ];
  it('has no content where its path is something else', () => {
    for (const [what, make] of odd) {
      make(path);
      assert.equal(readShared(path), undefined, what);
      rmSync(path, { recursive: true, force: true });
    }
    writeFileSync(path, text(64 * 1024));
    assert.equal(Object.keys(readShared(path) ?? {}).join(), 'a', 'as much as is permitted');
  });

  it('is watched, and no other file beside it', async () => {
    let changes = 0;
    const watched = watchShared(path, () => (changes += 1));
    writeShared(join(folder, 'other.json'), {});
    await delay(50);
    assert.equal(changes, 0);
    for (let round = 1; round <= 3; round++) {
      const before = changes;
      writeShared(path, { round });
      await eventually(() => assert.ok(changes > before, `change ${round}`));
    }
    await delay(50);
    const seen = changes;
    watched[Symbol.dispose]();
    writeShared(path, {});
    await delay(50);
    assert.equal(changes, seen);
    watchShared(join(folder, 'none', 'x'), () => assert.fail())[Symbol.dispose]();
  });
});
