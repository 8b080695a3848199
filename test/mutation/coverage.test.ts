import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { measure, testsAt } from './coverage.ts';

const source = `export function sign(of: number): string {
  if (of < 0) return 'minus';
  return of === 0 ? 'none' : 'plus';
}
`;
const other = 'export const two: number = 2;\n';

describe('the tests that run a place', () => {
  it('are found by a run of each, also in processes that it starts', async (t) => {
    const root = realpathSync(mkdtempSync(join(tmpdir(), 'nmi-coverage-')));
    t.after(() => rmSync(root, { recursive: true, force: true }));
    for (const name of ['src', 'test']) mkdirSync(join(root, name));
    const files = {
      'src/sign.ts': source,
      'src/other.ts': other,
      'test/plus.ts':
        "import { sign } from '../src/sign.ts';\nimport '../src/other.ts';\nsign(1);\n",
      'test/minus.ts':
        "import { spawnSync } from 'node:child_process';\nspawnSync(process.execPath, ['-e', \"import('./src/sign.ts').then(({ sign }) => sign(-1))\"]);\n",
      'test/fails.ts': "import '../src/sign.ts';\nprocess.exit(1);\n",
    };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(root, name), text);
    const ran: string[] = [];
    const run = (test: string) =>
      measure(test, join(root, 'results'), root, async (env) => {
        ran.push(test);
        const options = { cwd: root, env: { ...process.env, ...env } };
        const { status } = spawnSync(process.execPath, [test], options);
        return status === 0 ? 'passed' : 'failed';
      });
    const all = [await run('test/plus.ts'), await run('test/minus.ts'), await run('test/fails.ts')];
    const at = (part: string, text = source) =>
      testsAt(all, 'src/sign.ts', text, text.indexOf(part));
    assert.deepEqual(at('of < 0'), ['test/minus.ts', 'test/plus.ts']);
    assert.deepEqual(at("'minus'"), ['test/minus.ts']);
    assert.deepEqual(at("'plus'"), ['test/plus.ts']);
    assert.deepEqual(at("'none'"), []);
    assert.deepEqual(testsAt(all, 'src/other.ts', other, 0), ['test/plus.ts']);
    // Nothing is known of a text that has not run yet.
    assert.deepEqual(at("'minus'", `${source}// changed\n`), ['test/minus.ts', 'test/plus.ts']);

    writeFileSync(join(root, 'test/plus.ts'), `${files['test/plus.ts']}sign(0);\n`);
    all[0] = await run('test/plus.ts');
    all[1] = await run('test/minus.ts');
    // It may pass the next time.
    all[2] = await run('test/fails.ts');
    assert.deepEqual(ran, [
      'test/plus.ts',
      'test/minus.ts',
      'test/fails.ts',
      'test/plus.ts',
      'test/fails.ts',
    ]);
    assert.deepEqual(at("'none'"), ['test/plus.ts']);
  });
});
