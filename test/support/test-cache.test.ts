import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { isKept, keep, keyOf } from './test-cache.ts';

let cache = '';
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), 'nmi-test-cache-'));
});
afterEach(() => {
  rmSync(cache, { recursive: true, force: true });
});

const pathOf = (name: string, ...inputs: readonly string[]) =>
  join(cache, `${name}-${keyOf(inputs)}`);

function make(work: string): string {
  const made = join(work, 'made');
  mkdirSync(made);
  writeFileSync(join(made, 'file'), 'text');
  return made;
}

function unusedFor(path: string, days: number): void {
  const at = Date.now() / 1000 - days * 24 * 3600;
  utimesSync(`${path}.used`, at, at);
}

const workIn = (): readonly string[] =>
  readdirSync(cache).filter((name) => name.startsWith('.work-'));

describe('the cache of tests', () => {
  it('has what was made, or what another process has made meanwhile, and no work', () => {
    const [path, other] = [pathOf('a', '1'), pathOf('b', '1')];
    assert.equal(isKept(path), false);
    keep(path, make);
    keep(other, (work) => {
      mkdirSync(other);
      writeFileSync(join(other, 'file'), 'of the other');
      return make(work);
    });
    assert.ok(isKept(path));
    const texts = [path, other].map((each) => readFileSync(join(each, 'file'), 'utf8'));
    assert.deepEqual([texts, workIn()], [['text', 'of the other'], []]);
  });

  it('has nothing after a failure, and no work of a process that was killed', () => {
    const { pid } = spawnSync('true');
    for (const owner of [pid, process.pid]) mkdirSync(join(cache, `.work-${owner}-x`));
    const fail = (work: string): string => {
      make(work);
      throw new Error('on purpose');
    };
    assert.throws(() => keep(pathOf('a', '1'), fail), /on purpose/);
    assert.deepEqual(readdirSync(cache), [`.work-${process.pid}-x`]);
  });

  it('keeps other keys, which another clone may use, until nobody has for 14 days', () => {
    const [own, used, unused] = [pathOf('a', '1'), pathOf('a', '2'), pathOf('b', '3')];
    for (const path of [used, unused]) keep(path, make);
    unusedFor(used, 13);
    unusedFor(unused, 15);
    mkdirSync(join(cache, 'storage'));
    keep(own, make);
    assert.deepEqual([own, used, unused].map(existsSync), [true, true, false]);
    assert.equal(existsSync(`${unused}.used`), false);
    assert.ok(existsSync(join(cache, 'storage')));
    isKept(used);
    keep(pathOf('a', '4'), make, 1);
    assert.ok(existsSync(used), 'it is in use again');
    unusedFor(used, 2);
    keep(pathOf('a', '5'), make, 1);
    assert.equal(existsSync(used), false);
  });

  it('is where NMI_TEST_CACHE says', () => {
    const script = `import { testCache } from '${join(import.meta.dirname, 'test-cache.ts')}'; console.log(testCache);`;
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
      encoding: 'utf8',
      env: { ...process.env, NMI_TEST_CACHE: cache },
    });
    assert.equal(stdout.trim(), cache);
  });
});
