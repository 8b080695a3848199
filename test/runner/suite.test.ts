/** The runner of all tests, on folders of small files: its report, its order, and its ends. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { isAlive } from '../../lab/fabric/process-alive.ts';
import { planJobs } from './suite.ts';
import type { FileTime } from './times.ts';

const program = join(import.meta.dirname, 'run-fakes.ts');

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nmi-runner-'));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function put(name: string, ...lines: readonly string[]): void {
  const head = "import { test, describe, it } from 'node:test';";
  const tools = "import { appendFileSync } from 'node:fs';";
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), [head, tools, ...lines].join('\n'));
}

/** A test that notes when it starts and ends. */
function putNoting(name: string, ms: number): void {
  const log = JSON.stringify(join(folder, 'log'));
  put(
    name,
    `test('notes', async () => {`,
    `  appendFileSync(${log}, 'start ${name}\\n');`,
    `  await new Promise((resolve) => setTimeout(resolve, ${ms}));`,
    `  appendFileSync(${log}, 'end ${name}\\n');`,
    `});`,
  );
}

const notes = (): readonly string[] => readFileSync(join(folder, 'log'), 'utf8').trim().split('\n');

function start(timeoutMs: number, ...more: readonly number[]) {
  return startWith({}, timeoutMs, ...more);
}

/** As with CI=true. */
function startStrict(timeoutMs: number, ...more: readonly number[]) {
  return startWith({ TEST_MUST_RUN_ALL: 'true' }, timeoutMs, ...more);
}

function startWith(variables: object, timeoutMs: number, ...more: readonly number[]) {
  const { NODE_TEST_CONTEXT: _nested, ...environment } = process.env;
  const words = [program, folder, String(timeoutMs), ...more.map(String)];
  const child = spawn(process.execPath, words, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...environment, ...variables, TEST_TURN: folder },
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const ended = once(child, 'close').then(([code]) => ({
    code: code as number | null,
    out,
    get times() {
      return JSON.parse(err) as readonly FileTime[];
    },
  }));
  return { child, ended };
}

/** The numbers of the summary, by their names. */
function summaryOf(out: string): Readonly<Record<string, number>> {
  const lines = out.matchAll(/^ℹ (\w+) ([\d.]+)$/gm);
  return Object.fromEntries([...lines].map(([, name = '', count]) => [name, Number(count)]));
}

describe('a run of test files', () => {
  it('ends with one summary that counts the tests of all files', async () => {
    put('a.test.ts', "describe('s', () => { it('x', () => {}); it.skip('y', () => {}); });");
    put('b.test.ts', "test('z', () => {}); test('later', { todo: true }, () => {});");
    const { code, out } = await start(20_000).ended;
    assert.equal(code, 0, out);
    const { duration_ms: durationMs, ...counts } = summaryOf(out);
    assert.deepEqual(counts, {
      tests: 4,
      suites: 1,
      pass: 2,
      fail: 0,
      cancelled: 0,
      skipped: 1,
      todo: 1,
    });
    assert.ok(durationMs !== undefined && durationMs > 0);
    assert.match(out, /ℹ todo 1\nℹ duration_ms [\d.]+\nSKIPPED: 1 × without a reason\n$/);
    assert.equal(out.match(/^ℹ tests /gm)?.length, 1);
    // The table and what is skipped are before it.
    assert.match(out, /wall s.*all 2 files\n\nSKIPPED: all tests on a fake: .*\nℹ tests 4\n/s);
  });

  it('fails if one test fails, and repeats it after the summary', async () => {
    put('a.test.ts', "test('good', () => {});");
    put('b.test.ts', "test('bad', () => { throw new Error('on purpose'); });");
    const { code, out } = await start(20_000).ended;
    assert.equal(code, 1);
    const { tests, pass, fail } = summaryOf(out);
    assert.deepEqual({ tests, pass, fail }, { tests: 2, pass: 1, fail: 1 });
    assert.match(out, /ℹ duration_ms.*✖ failing tests:.*b\.test\.ts.*✖ bad.*on purpose/s);
  });

  it('has failed where all must run, if a test was skipped for a reason that the list does not have', async () => {
    put('a.test.ts', "test('x', () => {}); test('y', { skip: 'no moon' }, () => {});");
    put('b.test.ts', "describe('s', { skip: 'no moon' }, () => { it('z', () => {}); });");
    const usual = await start(20_000).ended;
    assert.equal(usual.code, 0, usual.out);
    assert.match(usual.out, /\nSKIPPED: 2 × no moon\n$/);
    const { code, out } = await startStrict(20_000).ended;
    assert.equal(code, 1);
    assert.match(out, /^FAILED: SKIPPED: no moon; /m);
    // Programs that this machine cannot have.
    assert.match(out, /^FAILED: SKIPPED: all tests on a fake: it is missing; /m);
    assert.match(out, /\nSKIPPED: 2 × no moon\n$/);
  });

  it('fails if a file crashes, cannot be loaded or exits with a code', async () => {
    put('crash.test.ts', "test('dies', () => { process.kill(process.pid, 'SIGKILL'); });");
    put('exit.test.ts', 'process.exit(3);');
    put('load.test.ts', "import './nowhere.ts';");
    put(
      'late.test.ts',
      "test('good', () => {}); setTimeout(() => { throw new Error('late'); }, 50);",
    );
    const { code, out } = await start(20_000).ended;
    assert.equal(code, 1);
    const { pass, fail } = summaryOf(out);
    assert.ok(fail !== undefined && fail >= 3, out);
    assert.ok(pass !== undefined && pass <= 1, out);
    for (const name of ['crash', 'exit', 'load', 'late']) {
      assert.match(out.slice(out.indexOf('failing tests')), new RegExp(`${name}\\.test\\.ts`));
    }
  });

  it('ends a file that hangs, even if it ignores SIGTERM', async () => {
    put(
      'hang.test.ts',
      "process.on('SIGTERM', () => {});",
      "test('hangs', () => new Promise(() => { setInterval(() => {}, 1000); }));",
    );
    put('good.test.ts', "test('good', () => {});");
    const { code, out, times } = await start(6_000).ended;
    assert.equal(code, 1);
    assert.equal(summaryOf(out)['pass'], 1);
    assert.match(out, /failing tests.*hang\.test\.ts/s);
    assert.ok(times.length === 2);
  });

  it('prints the output of a file as a whole', async () => {
    for (const name of ['a', 'b']) {
      put(
        `${name}.test.ts`,
        `for (const at of [1, 2, 3]) test('${name}' + at, async () => {`,
        `  console.log('says ${name}' + at);`,
        '  await new Promise((resolve) => setTimeout(resolve, 100));',
        '});',
      );
    }
    const { out } = await start(20_000).ended;
    const order = [...out.matchAll(/(?:says |✔ )([ab])\d/g)].map(([, name]) => name).join('');
    assert.match(order, /^(?:a{6}b{6}|b{6}a{6})$/, out);
  });
});

describe('the unit tests of a folder', () => {
  const pid = 'test(String(process.pid), () => {});';

  it('share a process, and each is counted', async () => {
    put('sub/a.test.ts', pid);
    put('sub/b.test.ts', pid);
    put('sub/deep/c.test.ts', pid);
    put('sub/d.kernel.test.ts', pid);
    const { code, out, times } = await start(20_000).ended;
    assert.equal(code, 0, out);
    assert.equal(summaryOf(out)['pass'], 4);
    const pids = [...out.matchAll(/^✔ (\d+)/gm)].map(([, each]) => each);
    assert.equal(pids.length, 4);
    assert.equal(new Set(pids).size, 3);
    assert.deepEqual(times.map(({ file }) => file).sort(), [
      'sub (2 files)',
      'sub/d.kernel.test.ts',
      'sub/deep/c.test.ts',
    ]);
  });

  it('have one each where they take long, and in a run of few files', () => {
    const long = ['test/simulation/a.test.ts', 'test/simulation/b.test.ts'];
    const files = ['sub/a.test.ts', 'sub/b.test.ts', ...long];
    for (const file of files) put(file, pid);
    const namesOf = (sharesProcesses: boolean) =>
      planJobs({ root: folder, files, size: 'all', sharesProcesses, known: {} }).map(
        ({ name }) => name,
      );
    assert.deepEqual(namesOf(true), ['sub (2 files)', ...long]);
    assert.deepEqual(namesOf(false), files);
  });

  it('share it with no suite of a cluster; these share one if they use one server', async () => {
    const shared = [pid, '(() => {', 'describeOnNewestVersion()', '})'].join('\n');
    put('sub/a.test.ts', pid);
    put('sub/b.test.ts', pid);
    put('sub/a.cluster.test.ts', shared);
    put('sub/b.cluster.test.ts', shared);
    put('sub/c.cluster.test.ts', pid);
    put('sub/deep/d.cluster.test.ts', shared);
    const { code, out, times } = await start(20_000).ended;
    assert.equal(code, 0, out);
    assert.equal(summaryOf(out)['pass'], 6);
    assert.deepEqual(times.map(({ file }) => file).sort(), [
      'sub (2 files)',
      'sub/*.cluster.test.ts (2 files)',
      'sub/c.cluster.test.ts',
      'sub/deep/d.cluster.test.ts',
    ]);
  });

  it('fail by their own name', async () => {
    put('sub/a.test.ts', "test('bad', () => { throw new Error('on purpose'); });");
    put('sub/b.test.ts', pid);
    put('none/a.test.ts', "import './nowhere.ts';");
    put('none/b.test.ts', pid);
    put('dead/a.test.ts', "test('dies', () => { process.kill(process.pid, 'SIGKILL'); });");
    put('dead/b.test.ts', pid);
    const { code, out } = await start(20_000).ended;
    assert.equal(code, 1);
    const { pass, fail } = summaryOf(out);
    assert.equal(pass, 1);
    assert.ok(fail !== undefined && fail >= 3, out);
    const failing = out.slice(out.indexOf('failing tests'));
    assert.match(failing, /sub\/a\.test\.ts:\d+:\d+\n✖ bad/);
    assert.match(out, /none\/a\.test\.ts/);
    assert.match(failing, /dead\/all\.test\.mjs/);
  });
});

describe('the order of test files', () => {
  it('runs exclusive files one at a time, beside the others', async () => {
    putNoting('x.kernel.test.ts', 600);
    putNoting('y.kernel.test.ts', 600);
    putNoting('a.test.ts', 100);
    putNoting('b.test.ts', 100);
    const { code, times } = await start(20_000).ended;
    assert.equal(code, 0);
    const exclusive = notes().filter((line) => line.includes('kernel'));
    const [first = '', second = ''] = exclusive;
    assert.equal(second, first.replace('start', 'end'), 'one at a time');
    // The other places do not wait for the second one.
    assert.ok(notes().indexOf('end b.test.ts') < notes().lastIndexOf(exclusive[3] ?? ''));
    assert.deepEqual(new Set(times.map(({ kind }) => kind)), new Set(['unit', 'kernel']));
  });

  it('waits for programs, goes on with what needs none, and skips what waited too long', async () => {
    putNoting('x.node.test.ts', 10);
    putNoting('a.test.ts', 10);
    const patient = await start(20_000, 3_000, 60_000).ended;
    assert.equal(patient.code, 0, patient.out);
    const begun = notes().filter((note) => note.startsWith('start'));
    assert.deepEqual(begun, ['start a.test.ts', 'start x.node.test.ts']);
    const late = await start(20_000, 60_000, 1_000).ended;
    assert.equal(late.code, 0, late.out);
    assert.match(late.out, /^SKIPPED: x\.node\.test\.ts: its programs are still being built$/m);
    assert.equal(summaryOf(late.out)['tests'], 1);
    const strict = await startStrict(20_000, 60_000, 1_000).ended;
    assert.equal(strict.code, 1);
    assert.match(strict.out, /^FAILED: SKIPPED: x\.node\.test\.ts: its programs are still/m);
  });
});

describe('the times of test files', () => {
  it('have the processor time of the file and of its children, and the wait', async () => {
    // In processor time: on a busy machine a second has less of it.
    const busy =
      'const { user } = process.cpuUsage(); while (process.cpuUsage().user < user + 200_000);';
    put(
      'busy.test.ts',
      "import { spawnSync } from 'node:child_process';",
      `test('busy', () => { ${busy} });`,
      `test('child', () => { spawnSync(process.execPath, ['-e', '${busy}']); });`,
    );
    const [time] = (await start(60_000).ended).times;
    assert.ok(time?.processorMs !== undefined);
    assert.ok(time.processorMs >= 400 && time.wallMs >= 400, JSON.stringify(time));
    assert.equal(Math.round(time.waitedMs / 1_000), 0);
  });
});

describe('a run that is ended', () => {
  it('leaves no process of it, not even one whose parent has ended, and starts none', async () => {
    const pidFile = join(folder, 'pids');
    const sleeper = "spawn('sh', ['-c', 'sleep 600 & echo $!'], { detached: true })";
    // As an agent in many tests: its environment is not that of the test.
    const other = "spawn('sleep', ['600'], { env: {}, detached: true })";
    put(
      'hang.test.ts',
      "import { spawn } from 'node:child_process';",
      "process.on('SIGTERM', () => {});",
      "test('hangs', async () => {",
      `  ${sleeper}.stdout.on('data', (pid) => {`,
      `    const pids = [process.pid, ${other}.pid, pid];`,
      `    appendFileSync(${JSON.stringify(pidFile)}, pids.join(' '));`,
      '  });',
      '  await new Promise(() => { setInterval(() => {}, 1000); });',
      '});',
    );
    for (const name of ['x', 'y', 'z']) putNoting(`${name}.test.ts`, 60_000);
    const { child, ended } = start(60_000);
    let pids: readonly number[] = [];
    await eventually(() => {
      pids = readFileSync(pidFile, 'utf8').trim().split(' ').map(Number);
      assert.equal(pids.length, 3);
      // Beside the one that hangs; more on a machine with more than two processors.
      assert.ok(notes().length >= 2);
    }, 60_000);
    const before = notes();
    child.kill('SIGTERM');
    const { code, out } = await ended;
    assert.equal(code, 143);
    assert.doesNotMatch(out, /^ℹ tests /m, 'a summary would look like that of a whole run');
    assert.deepEqual(notes(), before, 'nothing starts any more');
    await eventually(() => {
      assert.deepEqual(pids.map(isAlive), [false, false, false]);
    });
  });
});
