import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { checkFormat } from '../../../scripts/format-check.ts';

describe('the check of the format', () => {
  let folder = '';
  let checked: readonly string[] = [];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-format-'));
    put('clone', { 'src/a.ts': 'a', '.ci/b.yml': 'b', 'node_modules/c.js': 'c', 'dist/d.js': 'd' });
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  function put(clone: string, files: Readonly<Record<string, string>>): void {
    const settings = { 'package-lock.json': '{}', '.prettierrc.json': '{}', '.prettierignore': '' };
    for (const [name, text] of Object.entries({ ...settings, ...files })) {
      const path = join(folder, clone, name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }
  }

  /** @param bad what the formatter would change. */
  function run({ clone = 'clone', bad = '' } = {}): boolean {
    checked = [];
    return checkFormat({
      root: join(folder, clone),
      cache: join(folder, 'cache/formatted'),
      check: (paths) => {
        checked = paths;
        return !paths.includes(bad);
      },
    });
  }

  const all = ['.ci/b.yml', '.prettierignore', '.prettierrc.json', 'package-lock.json', 'src/a.ts'];

  it('has every file of the clone, and nothing to do for what has passed, in another clone neither', () => {
    assert.equal(run(), true);
    assert.deepEqual(checked, all);
    put('other', { 'src/a.ts': 'a', '.ci/b.yml': 'b' });
    for (const clone of ['clone', 'other']) {
      assert.equal(run({ clone }), true);
      assert.deepEqual(checked, []);
    }
  });

  it('fails until what it found is formatted', () => {
    for (let time = 0; time < 2; time++) {
      assert.equal(run({ bad: 'src/a.ts' }), false);
      assert.deepEqual(checked, all);
    }
  });

  for (const [changed, again] of [
    [{ 'src/a.ts': 'changed', 'src/b.yml': 'b' }, ['src/a.ts', 'src/b.yml']],
    [{ 'package-lock.json': 'changed' }, all],
    [{ '.prettierrc.json': 'changed' }, all],
    [{ '.prettierignore': 'changed' }, all],
  ] as const) {
    it(`has ${again.length} files after a change of ${Object.keys(changed).join()}`, () => {
      run();
      put('clone', changed);
      assert.equal(run(), true);
      assert.deepEqual(checked, again);
    });
  }
});
