/** The runner of all tests, on folders of small files: its report, its order, and its ends. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { isAlive } from '../../lab/fabric/process-alive.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nmi-runner-'));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function put(name: string, ...lines: readonly string[]): void {
  const imports = [
    "import { spawn } from 'node:child_process';",
    "import { appendFileSync } from 'node:fs';",
    "import { test } from 'node:test';",
    `const note = (text) => appendFileSync(${JSON.stringify(join(folder, 'notes'))}, text + '\\n');`,
  ];
  writeFileSync(join(folder, name), [...imports, ...lines].join('\n'));
}

/** A test that notes when it starts and ends. */
function putNoting(name: string, ms: number): void {
  const sleep = `await new Promise((resolve) => setTimeout(resolve, ${ms}));`;
  put(name, `test('notes', async () => { note('start ${name}'); ${sleep} note('end ${name}'); });`);
}

const notes = (): readonly string[] =>
  readFileSync(join(folder, 'notes'), 'utf8').trim().split('\n');

interface Given {
  readonly mustRunAll?: boolean;
  readonly timeoutMs?: number;
  /** When the programs of a node are there, and when nothing waits for them any more. */
  readonly builtMs?: number;
  readonly lateMs?: number;
}

/** Runs all files of the folder in a process of its own: a test may not run others. */
function start({
  mustRunAll = false,
  timeoutMs = 60_000,
  builtMs = 0,
  lateMs = 60_000,
}: Given = {}) {
  const importOf = (names: string, file: string) =>
    `import { ${names} } from ${JSON.stringify(join(import.meta.dirname, file))};`;
  const program = `
    import { globSync } from 'node:fs';
    import { setTimeout as delay } from 'node:timers/promises';
    ${importOf('runSuite', 'suite.ts')}
    ${importOf('endProcesses, markChildren', 'processes.ts')}
    markChildren();
    const stop = new AbortController();
    process.once('SIGTERM', () => {
      stop.abort();
      void endProcesses(1_000).then(() => process.exit(143));
    });
    let isBuilt = false;
    const change = delay(${builtMs}, undefined, { ref: false }).then(() => (isBuilt = true));
    const missing = 'SKIPPED: all tests on a fake: it is missing';
    process.exitCode = (await runSuite({
      root: process.cwd(),
      files: globSync('*.test.ts').sort(),
      size: 'all',
      builds: { skipped: [missing], failed: [], change, isThere: () => isBuilt },
      lateness: delay(${lateMs}, undefined, { ref: false }),
      timeoutMs: ${timeoutMs},
      mustRunAll: ${mustRunAll},
      stop: stop.signal,
      output: process.stdout,
      log: (line) => process.stdout.write(line + '\\n'),
    })) ? 0 : 1;
  `;
  const { NODE_TEST_CONTEXT: _nested, ...env } = process.env;
  writeFileSync(join(folder, 'run.mjs'), program);
  const child = spawn(process.execPath, ['run.mjs'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...env, TEST_TURN: folder },
  });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  return { child, ended: once(child, 'close').then(([code]) => ({ code: Number(code), out })) };
}

/** The numbers of the summary, by their names. */
function summaryOf(out: string): Readonly<Record<string, number>> {
  const lines = out.matchAll(/^ℹ (\w+) (\d+)$/gm);
  return Object.fromEntries([...lines].map(([, name = '', count]) => [name, Number(count)]));
}

describe('a run of test files', () => {
  it('ends with one summary of all files, which are printed as a whole, and with what was skipped', async () => {
    put('a.test.ts', "test('a1', () => console.log('says a2'));", "test.skip('a3', () => {});");
    put(
      'b.kernel.test.ts',
      "test('b1', () => { console.log('says b2'); throw new Error('bad'); });",
    );
    put('c.test.ts', "test('c1', () => {});", "test('c2', { skip: 'no moon' }, () => {});");
    const { code, out } = await start().ended;
    assert.equal(code, 1, out);
    const { tests, pass, fail, skipped } = summaryOf(out);
    assert.deepEqual({ tests, pass, fail, skipped }, { tests: 5, pass: 2, fail: 1, skipped: 2 });
    const order = [...out.matchAll(/^(?:says|[✔✖﹣]) ([abc])\d/gm)]
      .map(([, name]) => name)
      .join('');
    assert.match(order, /^(?=.*a{3})(?=.*bb)(?=.*cc)[abc]{7}b$/, out);
    assert.match(out, /ℹ duration_ms.*✖ failing tests:.*b\.kernel\.test\.ts.*✖ b1.*bad/s);
    assert.match(out, /\nSKIPPED: 1 × without a reason; 1 × no moon\n$/);
  });

  it('has failed where all must run, if anything was skipped that the list does not have', async () => {
    put('a.test.ts', "test('x', () => {}); test('y', { skip: 'no moon' }, () => {});");
    put('b.test.ts', "test('z', { skip: 'runsc is not installed' }, () => {});");
    assert.equal((await start().ended).code, 0);
    const { code, out } = await start({ mustRunAll: true }).ended;
    assert.equal(code, 1);
    const failures = [...out.matchAll(/^FAILED: SKIPPED: ([^;]*);/gm)].map(([, what]) => what);
    assert.deepEqual(failures, ['all tests on a fake: it is missing', 'no moon']);
  });

  it('ends a file that hangs, even if it ignores SIGTERM', { timeout: 60_000 }, async () => {
    const hangs = "test('hangs', () => new Promise(() => { setInterval(() => {}, 1000); }));";
    put('hang.test.ts', "process.on('SIGTERM', () => {});", hangs);
    const { code, out } = await start({ timeoutMs: 2_000 }).ended;
    assert.equal(code, 1);
    assert.match(out, /failing tests.*hang\.test\.ts/s);
  });

  it('runs what measures alone, and files of the kernel one at a time beside the others', async () => {
    putNoting('hit-ratio.kernel.test.ts', 300);
    for (const name of ['x.kernel', 'y.kernel', 'a', 'b']) putNoting(`${name}.test.ts`, 1_500);
    assert.equal((await start().ended).code, 0);
    const first = 'hit-ratio.kernel.test.ts';
    assert.deepEqual(notes().slice(0, 2), [`start ${first}`, `end ${first}`]);
    const [one = '', two = ''] = notes()
      .slice(2)
      .filter((line) => line.includes('kernel'));
    assert.equal(two, one.replace('start', 'end'));
    const lastStart = notes().findLastIndex((line) => /^start \w\.kernel/.test(line));
    assert.ok(notes().indexOf('start a.test.ts') < lastStart);
  });

  it('waits for programs, goes on with what needs none, and skips what waited too long', async () => {
    putNoting('x.node.test.ts', 10);
    putNoting('a.test.ts', 10);
    const patient = await start({ builtMs: 2_000 }).ended;
    assert.equal(patient.code, 0, patient.out);
    const begun = notes().filter((note) => note.startsWith('start'));
    assert.deepEqual(begun, ['start a.test.ts', 'start x.node.test.ts']);
    const { code, out } = await start({ builtMs: 60_000, lateMs: 500, mustRunAll: true }).ended;
    assert.equal(code, 1);
    assert.match(out, /^FAILED: SKIPPED: x\.node\.test\.ts: its programs are still being built/m);
    assert.equal(summaryOf(out)['pass'], 1);
  });

  it('leaves no process when it is ended, not even one whose parent has ended, and starts none', async () => {
    put(
      'hang.test.ts',
      "process.on('SIGTERM', () => {});",
      "test('hangs', async () => {",
      "  const shell = spawn('sh', ['-c', 'sleep 600 & echo $!'], { detached: true });",
      // As an agent in many tests: its environment is not that of the test.
      "  const other = spawn('sleep', ['600'], { env: {}, detached: true });",
      "  shell.stdout.on('data', (pid) => note(['pids', process.pid, other.pid, pid].join(' ')));",
      '  await new Promise(() => { setInterval(() => {}, 1000); });',
      '});',
    );
    putNoting('x.kernel.test.ts', 60_000);
    putNoting('y.kernel.test.ts', 60_000);
    const { child, ended } = start();
    const pids = await eventually(() => {
      const found =
        notes()
          .find((line) => line.startsWith('pids'))
          ?.split(' ')
          .slice(1) ?? [];
      assert.equal(found.length, 3);
      assert.ok(notes().includes('start x.kernel.test.ts'));
      return found.map(Number);
    }, 60_000);
    const before = notes();
    child.kill('SIGTERM');
    const { code, out } = await ended;
    assert.equal(code, 143);
    assert.doesNotMatch(out, /^ℹ tests /m, 'a summary would look like that of a whole run');
    assert.deepEqual(notes(), before, 'nothing starts any more');
    await eventually(() => assert.deepEqual(pids.map(isAlive), [false, false, false]));
  });

  for (const [words, problem] of [
    [['--everything'], /^unknown flag: --everything; there are --all and --long\n$/],
    [['unit', 'test/nothing.test.ts'], /^there is no such test: test\/nothing\.test\.ts\n$/],
  ] as const) {
    it(`refuses ${words.join(' ')}`, () => {
      const program = join(import.meta.dirname, 'run.ts');
      const { status, stderr } = spawnSync(process.execPath, [program, ...words], {
        encoding: 'utf8',
      });
      assert.equal(status, 1);
      assert.match(stderr, problem);
    });
  }
});
