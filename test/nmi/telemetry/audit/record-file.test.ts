import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { StartError } from '../../../../src/base/start-error.ts';
import { openRecordFile } from '../../../../src/nmi/telemetry/audit/record-file.ts';
import { HandClock } from '../../../support/hand-clock.ts';

async function open() {
  await using opening = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'nmi-audit-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'audit.log');
  const clock = new HandClock();
  const dropped: string[] = [];
  let written = 0;
  const file = opening.use(
    await openRecordFile({
      path,
      clock,
      onDropped: (count, code) => dropped.push(`${count} ${code}`),
      onWritten: (count) => (written += count),
    }),
  );
  const owned = opening.move();
  async function until(condition: () => boolean): Promise<void> {
    for (let tries = 0; !condition(); tries++) {
      assert.ok(tries < 500, 'nothing was written in 5 s');
      await delay(10);
    }
  }
  return {
    folder,
    path,
    clock,
    file,
    dropped,
    /** Writes lines, and waits until each was written or dropped. */
    write: async (...lines: readonly string[]) => {
      const target = written + dropped.length + 1;
      for (const line of lines) file.write(line);
      await until(() => written + dropped.length >= target);
    },
    written: () => written,
    until,
    /** Lets the check of the file run that is due each second. */
    check: async () => {
      clock.advance(1_000);
      await until(() => clock.armed.includes(1_000));
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function refusalOf(path: string): Promise<StartError> {
  const nothing = (): void => undefined;
  const opening = openRecordFile({
    path,
    clock: new HandClock(),
    onDropped: nothing,
    onWritten: nothing,
  });
  const error: unknown = await opening.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof StartError, String(error));
  return error;
}

describe('the file of audit records', () => {
  it('gets all lines in order, after its previous content, readable only by its owner', async () => {
    await using opened = await open();
    const lines = Array.from({ length: 1_000 }, (_, index) => `line ${index}\n`);
    for (const line of lines.slice(0, 500)) opened.file.write(line);
    await opened.until(() => opened.written() > 0);
    for (const line of lines.slice(500)) opened.file.write(line);
    await opened.until(() => opened.written() === 1_000);
    assert.equal(await readFile(opened.path, 'utf8'), lines.join(''));
    assert.equal((await stat(opened.path)).mode & 0o777, 0o600);
    assert.deepEqual(opened.dropped, []);
  });

  it('contains everything that was written before it is closed', async () => {
    const opened = await open();
    const copy = join(tmpdir(), `nmi-audit-${process.pid}.copy`);
    for (let index = 0; index < 100; index++) opened.file.write(`${index}\n`);
    await opened.file[Symbol.asyncDispose]();
    assert.equal(opened.written(), 100);
    await rename(opened.path, copy);
    assert.equal((await readFile(copy, 'utf8')).split('\n').length, 101);
    await rm(copy);
    await opened[Symbol.asyncDispose]();
  });

  it('is reopened within a second after it was renamed or deleted', async () => {
    await using opened = await open();
    const { path, check, write } = opened;
    await write('first\n');
    await rename(path, `${path}.1`);
    await write('before the second is over\n');
    await check();
    await write('second\n');
    assert.equal(await readFile(`${path}.1`, 'utf8'), 'first\nbefore the second is over\n');
    assert.equal(await readFile(path, 'utf8'), 'second\n');
    await rm(path);
    await check();
    await write('third\n');
    assert.equal(await readFile(path, 'utf8'), 'third\n');
    // The state after logrotate's copytruncate.
    await writeFile(path, '');
    await write('fourth\n');
    assert.equal(await readFile(path, 'utf8'), 'fourth\n');
  });

  it('counts lost lines while it cannot be reopened, and continues when it can', async () => {
    await using opened = await open();
    const { path, folder, check, write, dropped } = opened;
    await rename(folder, `${folder}.away`);
    await check();
    await write('lost\n');
    assert.deepEqual(dropped, ['1 ENOENT']);
    await mkdir(folder);
    await write('lost before the next look\n');
    await check();
    await write('kept\n');
    assert.equal(await readFile(path, 'utf8'), 'kept\n');
    assert.deepEqual(dropped, ['1 ENOENT', '1 ENOENT']);
    await rm(`${folder}.away`, { recursive: true });
  });

  it('keeps a megabyte of waiting lines at most', async () => {
    await using opened = await open();
    const line = `${'x'.repeat(1_023)}\n`;
    for (let count = 0; count < 1_030; count++) opened.file.write(line);
    assert.deepEqual(
      opened.dropped,
      Array.from({ length: 6 }, () => '1 QUEUE_FULL'),
    );
    await opened.until(() => opened.written() === 1_024);
    await opened.write(line);
    assert.equal(opened.written(), 1_025);
  });

  it('counts the lines of a write that has not ended as waiting', async () => {
    await using opened = await open();
    opened.file.write(`${'x'.repeat(1024 * 1024 - 1)}\n`);
    // The write begins in this turn. Its end is not seen before the next one.
    await nextTurn();
    opened.file.write('y\n');
    assert.deepEqual(opened.dropped, ['1 QUEUE_FULL']);
    await opened.until(() => opened.written() === 1);
  });

  it('is a regular file: no folder, no link, no device, no pipe', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nmi-audit-'));
    const link = join(folder, 'link');
    const pipe = join(folder, 'pipe');
    await symlink(join(folder, 'elsewhere'), link);
    assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
    for (const [path, code] of [
      [folder, 'EISDIR'],
      [link, 'ELOOP'],
      ['/dev/null', 'NO_REGULAR_FILE'],
      [pipe, 'ENXIO'],
      [join(folder, 'none', 'audit.log'), 'ENOENT'],
    ] as const) {
      const { code: kind, message } = await refusalOf(path);
      assert.equal(kind, 'CONFIG');
      assert.ok(message.includes(path) && message.includes(code), message);
      assert.match(message, /--audit-log takes a file on a volume/);
    }
    await rm(folder, { recursive: true });
  });

  const program = join(import.meta.dirname, 'full-disk.ts');
  const script = 'mount -t tmpfs -o size=16k tmpfs "$1" && exec "$2" "$3" "$1"';
  const canMount = spawnSync('unshare', ['-rm', 'true']).status === 0;

  it(
    'keeps lines while the disk is full, reports it, and continues',
    { skip: !canMount && 'this user cannot mount' },
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'nmi-audit-'));
      const args = ['-rm', 'sh', '-c', script, 'sh', folder, process.execPath, program];
      const { stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8', timeout: 30_000 });
      await rm(folder, { recursive: true });
      assert.equal(stderr, '');
      const { sent, written, dropped, codes, whole, broken } = JSON.parse(stdout) as {
        readonly [name: string]: unknown;
      };
      assert.deepEqual(codes, ['ENOSPC']);
      assert.deepEqual([written, dropped, whole, broken], [sent, 0, sent, 0]);
    },
  );
});
