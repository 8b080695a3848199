import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { repositoryRoot } from '../conventions/tree.ts';

function run(words: readonly string[], cache = '') {
  return spawnSync(process.execPath, [join(repositoryRoot, 'test/runner/run.ts'), ...words], {
    encoding: 'utf8',
    cwd: repositoryRoot,
    env: { ...process.env, NMI_TEST_CACHE: cache },
  });
}

describe('the command line of the tests', () => {
  for (const [words, problem] of [
    [['--everything'], /^unknown flag: --everything; there are --all, --long and --times\n$/],
    [['nothing'], /^there is no such test: nothing\n$/],
    [['unit', 'test/nothing.test.ts'], /^there is no such test: test\/nothing\.test\.ts\n$/],
  ] as const) {
    it(`refuses ${words.join(' ')}`, () => {
      const { status, stdout, stderr } = run(words);
      assert.deepEqual([status, stdout], [1, '']);
      assert.match(stderr, problem);
    });
  }

  it('prints what the files of the last run took, the longest first', () => {
    const cache = mkdtempSync(join(tmpdir(), 'nmi-times-'));
    const time = { kind: 'unit', processorMs: 500, waitedMs: 0 };
    const last = [
      { ...time, file: 'test/a.test.ts', wallMs: 1_000 },
      { ...time, file: 'test/b.test.ts', wallMs: 2_000, processorMs: undefined },
      { ...time, file: 'test/c.lab.test.ts', kind: 'lab', wallMs: 60_000, waitedMs: 9_000 },
    ];
    writeFileSync(join(cache, 'test-times.json'), JSON.stringify({ last, known: {} }));
    const { status, stdout } = run(['--times'], cache);
    rmSync(cache, { recursive: true });
    assert.equal(status, 0);
    assert.deepEqual(
      stdout
        .trim()
        .split('\n')
        .map((line) => line.trim().split(/ {2,}| (?=lab|unit|test)/)),
      [
        ['wall s', 'processor s', 'waited s kind', 'file'],
        ['60.0', '0.5', '9.0', 'lab', 'test/c.lab.test.ts'],
        ['2.0', '-', '0.0', 'unit', 'test/b.test.ts'],
        ['1.0', '0.5', '0.0', 'unit', 'test/a.test.ts'],
        ['63.0', '1.0', '9.0', 'all 3 files'],
      ],
    );
  });
});
