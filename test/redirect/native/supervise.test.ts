import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempDisposableSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { freshNative, nativeFolder } from '../../../scripts/native.ts';
import { OwnTime } from '../../../lab/pods/own-time.ts';

freshNative();

interface Line {
  readonly status: number;
  readonly msg: string;
  readonly pid: number;
}

/** A program that prints its pid and then does as told. */
function printing(then: string, first = ':'): readonly string[] {
  return ['sh', '-c', `${first}; printf '{"pid":%d}\\n' $$; ${then}`];
}

function supervise(...command: readonly string[]) {
  return superviseBy(join(nativeFolder, 'nmi-supervise'), command);
}

function superviseBy(program: string, command: readonly string[]) {
  const child = spawn(program, command, { stdio: ['ignore', 'pipe', 'pipe'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let errors = '';
  child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
  return {
    child,
    errors: () => errors,
    /** The next line; the program's own has a pid, the supervisor's a message. */
    next: async (): Promise<Line> => JSON.parse((await lines.next()).value as string) as Line,
    ended: once(child, 'exit').then(([code]) => code as number | null),
  };
}

describe('the supervisor of the process of a container', () => {
  it('starts a killed process again at once, and says so', async () => {
    const { child, next, ended } = supervise(...printing('exec sleep 100'));
    const first = await next();
    using time = new OwnTime();
    process.kill(first.pid, 'SIGKILL');
    const { status, msg } = await next();
    assert.deepEqual([status, msg], [137, 'the process failed, it is started again']);
    const second = await next();
    assert.notEqual(second.pid, first.pid);
    assert.ok(time.nowMs() < 2_000, `${time.nowMs()} ms`);
    child.kill('SIGTERM');
    assert.equal(await ended, 143);
    assert.throws(() => process.kill(second.pid, 0), { code: 'ESRCH' });
  });

  it('passes a signal to stop on, and ends with the status of the process', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const stopping = printing('while :; do sleep 0.05; done', 'trap "exit 7" TERM INT');
      const { child, next, ended } = supervise(...stopping);
      await next();
      child.kill(signal);
      assert.equal(await ended, 7);
    }
  });

  it('ends with a process that ends well', async () => {
    const { next, ended } = supervise(...printing('exit 0'));
    await next();
    assert.equal(await ended, 0);
  });

  it('does not start again what a wrong flag or setting has ended', async () => {
    for (const status of [2, 78]) {
      const { next, ended } = supervise(...printing(`exit ${status}`));
      await next();
      assert.equal(await ended, status);
    }
  });

  it('leaves a process that fails again and again to the kubelet', async () => {
    const { next, ended } = supervise(...printing('exit 3'));
    const pids = new Set<number>();
    for (let start = 0; start < 5; start++) {
      pids.add((await next()).pid);
      const { status, msg } = await next();
      assert.equal(status, 3);
      assert.equal(msg.includes('this container ends'), start === 4, msg);
    }
    assert.equal(pids.size, 5);
    assert.equal(await ended, 3);
  });

  it('starts again however often it fails, if not five times within ten minutes', async () => {
    // The ten minutes are half a second. After the third failure the pauses are longer.
    using folder = mkdtempDisposableSync(join(tmpdir(), 'nmi-test-supervise-'));
    const program = join(folder.path, 'nmi-supervise');
    const source = join(import.meta.dirname, '../../../src/redirect/native/supervise.c');
    execFileSync('cc', ['-std=gnu17', '-DWINDOW_MS=500', source, '-o', program]);
    const { child, next, ended } = superviseBy(program, printing('exit 3'));
    for (let start = 0; start < 8; start++) {
      await next();
      assert.equal((await next()).msg, 'the process failed, it is started again');
    }
    child.kill('SIGTERM');
    assert.equal(await ended, 143);
  });

  it('can be stopped while it waits for the next start', async () => {
    const { child, next, ended } = supervise(...printing('exit 3'));
    for (let line = 0; line < 8; line++) await next();
    // The pause is 0.8 s now.
    child.kill('SIGTERM');
    assert.equal(await ended, 143);
  });

  it('takes its process along when it is killed', async () => {
    const { child, next, ended } = supervise(...printing('exec sleep 100'));
    const { pid } = await next();
    child.kill('SIGKILL');
    await ended;
    const isGone = (): boolean => {
      try {
        process.kill(pid, 0);
        return false;
      } catch {
        return true;
      }
    };
    while (!isGone()) await new Promise(setImmediate);
  });

  it('reports what cannot be started, and does not try again', async () => {
    const { ended, errors } = supervise('/no/such/program');
    assert.equal(await ended, 127);
    assert.match(errors(), /^nmi-supervise: \/no\/such\/program: No such file/);
    const empty = supervise();
    assert.equal(await empty.ended, 2);
    assert.match(empty.errors(), /^usage: /);
  });
});
