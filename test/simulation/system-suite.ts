/** What an update needs of sockets, locks and files. The real machine and the simulated one pass the same tests. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { codeOf, once, openServer, type System } from './system-fixture.ts';

/** @param run runs the work on a new system. */
export function itIsAsExpected(run: (work: (system: System) => Promise<void>) => Promise<void>) {
  const on = (name: string, work: (system: System) => Promise<void>): void => {
    it(name, () => run(work));
  };

  on('knows whether somebody listens at a port, and has one listener there', async (system) => {
    const { native, address } = system;
    const { ip, port } = address;
    assert.equal(native.isListening(ip, port), false);
    const close = await openServer(system, { host: ip, port });
    assert.equal(native.isListening(ip, port), true);
    assert.equal(native.isListening(ip, port + 1), false);
    const second = system.createServer();
    const failed = once(second, 'error');
    second.listen({ host: ip, port });
    assert.equal(codeOf(await failed), 'EADDRINUSE');
    await close();
    assert.equal(native.isListening(ip, port), false);
    await (
      await openServer(system, { host: ip, port })
    )();
  });

  on('has no listener at an address that is not up', async ({ createServer }) => {
    const server = createServer();
    const failed = once(server, 'error');
    server.listen({ host: '192.0.2.7', port: 2579 });
    assert.equal(codeOf(await failed), 'EADDRNOTAVAIL');
  });

  on('locks a file until the descriptor is closed', async ({ native, closeSync, folder }) => {
    const path = join(folder, 'a.lock');
    const first = native.lockFile(path);
    assert.ok(first !== undefined);
    assert.equal(native.lockFile(path), undefined);
    assert.equal(native.isLocked(path), true);
    const other = native.lockFile(join(folder, 'b.lock'));
    closeSync(first);
    assert.equal(native.isLocked(path), false);
    const again = native.lockFile(path);
    assert.equal(again, first);
    for (const each of [again, other]) closeSync(each ?? -1);
    await Promise.resolve();
  });

  on('replaces a small file, and tells who watches it', async ({ shared, folder, delay }) => {
    const { writeShared, readShared, watchShared } = shared;
    const path = join(folder, 'a.json');
    assert.equal(readShared(path), undefined);
    let changes = 0;
    const watch = watchShared(path, () => (changes += 1));
    writeShared(path, { a: 1 });
    assert.deepEqual(readShared(path), { a: 1 });
    writeShared(join(folder, 'b.json'), {});
    await delay(100);
    assert.ok(changes > 0);
    watch[Symbol.dispose]();
    const before = changes;
    writeShared(path, { b: '2' });
    await delay(100);
    assert.equal(changes, before);
    assert.deepEqual(readShared(path), { b: '2' });
  });

  on('listens at no path that is taken or has no folder', async (system) => {
    const path = join(system.folder, 'a.sock');
    const close = await openServer(system, path);
    for (const [taken, code] of [
      [path, 'EADDRINUSE'],
      [join(system.folder, 'none', 'a.sock'), 'EACCES'],
    ] as const) {
      const server = system.createServer();
      const failed = once(server, 'error');
      server.listen(taken);
      assert.equal(codeOf(await failed), code);
    }
    await close();
  });

  on('connects only where somebody listens', async (system) => {
    const path = join(system.folder, 'a.sock');
    const close = await openServer(system, path);
    const socket = system.connect({ path });
    await once(socket, 'connect');
    socket.destroy();
    const aside = join(system.folder, 'aside.sock');
    await system.files.rename(path, aside);
    await close();
    for (const [there, code] of [
      [aside, 'ECONNREFUSED'],
      [path, 'ENOENT'],
    ] as const) {
      assert.equal(codeOf(await once(system.connect({ path: there }), 'error')), code);
    }
  });

  on('keeps the inode of a file that is renamed, and replaces another one', async (system) => {
    const { lstat, rename, unlink, mkdir } = system.files;
    const [first, second] = ['first', 'second'].map((name) => join(system.folder, name));
    assert.ok(first !== undefined && second !== undefined);
    const closes = [await openServer(system, first), await openServer(system, second)];
    const { ino } = await lstat(second, { bigint: true });
    assert.notEqual((await lstat(first, { bigint: true })).ino, ino);
    await rename(second, first);
    assert.equal((await lstat(first, { bigint: true })).ino, ino);
    assert.ok((await lstat(first)).isSocket());
    await assert.rejects(lstat(second), { code: 'ENOENT' });
    await unlink(first);
    await assert.rejects(unlink(first), { code: 'ENOENT' });
    for (const close of closes) await close();
    const made = join(system.folder, 'made');
    await mkdir(made, { mode: 0o700 });
    const found = await lstat(made);
    assert.equal(found.uid, process.geteuid?.());
    assert.equal(found.mode & 0o777, 0o700);
    await assert.rejects(mkdir(made, { mode: 0o700 }), { code: 'EEXIST' });
    const below = join(system.folder, 'none', 'b');
    await assert.rejects(mkdir(below, { mode: 0o700 }), { code: 'ENOENT' });
  });
}
