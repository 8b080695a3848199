import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setInterval } from 'node:timers/promises';
import type { RunOptions } from '../../../src/kubectl/base/io.ts';
import { runProgram } from '../../../src/kubectl/transport/program.ts';

const never = new AbortController().signal;
const noTerminal = { isInteractive: false, prompt: () => undefined };

describe('a program of the user', () => {
  it('gets its arguments and its input unchanged, without a shell', async () => {
    const args = [
      '-e',
      'process.stdin.pipe(process.stdout); console.error(process.argv[1])',
      '$(id) *',
    ];
    assert.deepEqual(await runProgram(process.execPath, args, { input: 'in' }, never, noTerminal), {
      code: 0,
      stdout: 'in',
      stderr: '$(id) *\n',
    });
  });

  it('reads nothing of the terminal unless a person is there', async () => {
    const script =
      "const it = require('fs').fstatSync(0); console.log(it.isSocket() || it.isFIFO())";
    const run = await runProgram(process.execPath, ['-e', script], {}, never, noTerminal);
    assert.equal(run.stdout, 'true\n');
  });

  it('fails with its exit code, and without one when there is no such program', async () => {
    const run = await runProgram(
      process.execPath,
      ['-e', 'process.exit(3)'],
      { input: 'x'.repeat(1e6) },
      never,
      noTerminal,
    );
    assert.equal(run.code, 3);
    const missing = await runProgram('no-such-program', [], {}, never, noTerminal);
    assert.equal(missing.code, undefined);
    assert.match(missing.stderr, /no-such-program ENOENT/);
  });

  it('is started again where Ctrl-C ended it, if it may be and is to outlive that', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-program-'));
    t.after(() => rmSync(folder, { recursive: true }));
    // A group of its own is made by the child, a moment after it has begun to exist.
    const script = `mkdir "$0/$1" && kill -INT $$; echo done`;
    const runOnce = (name: string, options: RunOptions) =>
      runProgram('sh', ['-c', script, folder, name], options, never, noTerminal);
    const { code, stdout } = await runOnce('delete', { outlivesStop: true, mayRepeat: true });
    assert.deepEqual([code, stdout], [0, 'done\n']);
    assert.equal((await runOnce('get', {})).code, 1);
    // It may have had its effect.
    assert.equal((await runOnce('create', { outlivesStop: true })).code, 1);
  });

  it('passes on what it asks while it waits, and not its last words', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const folder = mkdtempSync(join(tmpdir(), 'nmi-program-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const entered = join(folder, 'code');
    const asked: string[] = [];
    const terminal = { isInteractive: false, prompt: (text: string) => asked.push(text) };
    const script = `
      console.error('E1129 attempt'); console.error('Enter the code');
      setInterval(() => {
        if (!require('fs').existsSync(process.argv[1])) return;
        console.error('Error: no'); process.exit(1);
      }, 10);`;
    const args = ['-e', script, entered];
    const running = runProgram(process.execPath, args, {}, never, terminal);
    for await (const _ of setInterval(10)) {
      t.mock.timers.tick(500);
      if (asked.length > 0) break;
    }
    writeFileSync(entered, '');
    const run = await running;
    t.mock.timers.tick(10_000);
    assert.deepEqual(asked, ['Enter the code\n']);
    assert.equal(run.stderr, 'E1129 attempt\nEnter the code\nError: no\n');
  });

  it('asks nothing while it goes on to write, and nothing once it has ended', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const asked: string[] = [];
    const terminal = { isInteractive: false, prompt: (text: string) => asked.push(text) };
    const script = `console.error('one'); setTimeout(() => console.error('two'), 100);`;
    const run = await runProgram(process.execPath, ['-e', script], {}, never, terminal);
    assert.equal(run.stderr, 'one\ntwo\n');
    t.mock.timers.tick(10_000);
    assert.deepEqual(asked, []);
  });

  it('ends when the user interrupts', async () => {
    const stop = new AbortController();
    const endless = ['-e', 'setInterval(() => {}, 1e6)'];
    const run = runProgram(process.execPath, endless, {}, stop.signal, noTerminal);
    stop.abort();
    assert.equal((await run).code, 1);
  });
});
