/**
 * What the hand-over needs of sockets, files and the native module. The real machine and the
 * simulated one pass the same tests.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import {
  codeOf,
  descriptorOf,
  eventually,
  once,
  openConnection,
  openServer,
  refusal,
  type System,
} from './system-fixture.ts';

/** @param run runs the work on a new system. */
export function itIsAsExpected(run: (work: (system: System) => Promise<void>) => Promise<void>) {
  const on = (name: string, work: (system: System) => Promise<void>): void => {
    it(name, () => run(work));
  };
  listeners(on);
  notes(on);
  servers(on);
  sockets(on);
  paths(on);
}

type On = (name: string, work: (system: System) => Promise<void>) => void;

function listeners(on: On): void {
  on('has one listener at an address as long as anybody refers to it', async (system) => {
    const { native, closeSync, address } = system;
    const open = () => native.openListener(address.ip, address.port);
    const { near, farDescriptor, far, close } = await openConnection(system);
    const first = open();
    assert.deepEqual(native.listenerAddress(first), address);
    assert.equal(refusal(open), 'EADDRINUSE');
    const second = native.duplicate(first);
    closeSync(first);
    assert.equal(refusal(open), 'EADDRINUSE');
    native.sendNote(near, 3, second);
    closeSync(second);
    assert.equal(refusal(open), 'EADDRINUSE');
    const note = native.receiveNote(farDescriptor);
    assert.deepEqual(native.listenerAddress(note?.descriptor ?? -1), address);
    closeSync(note?.descriptor ?? -1);
    closeSync(open());
    // Nobody reads this one.
    const third = open();
    native.sendNote(near, 3, third);
    closeSync(third);
    assert.equal(refusal(open), 'EADDRINUSE');
    far.destroy();
    closeSync(open());
    closeSync(near);
    await close();
  });

  on(
    'reuses the lowest descriptor, and knows none that is closed',
    async ({ native, closeSync, address }) => {
      const [first, other] = [native.openListener(address.ip, address.port)].flatMap((one) => [
        one,
        native.duplicate(one),
      ]);
      assert.ok(first !== undefined && other !== undefined);
      closeSync(first);
      assert.equal(
        refusal(() => native.listenerAddress(first)),
        'EBADF',
      );
      assert.equal(
        refusal(() => closeSync(first)),
        'EBADF',
      );
      const again = native.duplicate(other);
      assert.equal(again, first);
      closeSync(again);
      closeSync(other);
      await Promise.resolve();
    },
  );

  on('keeps the port of a socket that does not listen', async ({ native, closeSync, address }) => {
    const open = () => native.openListener(address.ip, address.port);
    const listener = open();
    native.setListening(listener, false);
    assert.equal(
      refusal(() => native.listenerAddress(listener)),
      'EPROTOTYPE',
    );
    assert.equal(refusal(open), 'EADDRINUSE');
    native.setListening(listener, true);
    assert.deepEqual(native.listenerAddress(listener), address);
    closeSync(listener);
    closeSync(open());
    await Promise.resolve();
  });

  on('has no listener at an address that is not up', async ({ native }) => {
    assert.equal(
      refusal(() => native.openListener('192.0.2.7', 2579)),
      'EADDRNOTAVAIL',
    );
    await Promise.resolve();
  });
}

function notes(on: On): void {
  on('passes notes on, with or without a descriptor', async (system) => {
    const { native, closeSync } = system;
    const { near, far, farDescriptor, close } = await openConnection(system);
    assert.equal(native.receiveNote(near), undefined);
    native.sendNote(farDescriptor, 7);
    assert.deepEqual(native.receiveNote(near), { note: 7 });
    assert.equal(
      refusal(() => native.listenerAddress(near)),
      'EPROTOTYPE',
    );
    closeSync(near);
    far.destroy();
    await close();
  });

  on('delivers what was sent before the other end closed', async (system) => {
    const { native, closeSync } = system;
    const { near, far, farDescriptor, close } = await openConnection(system);
    native.sendNote(farDescriptor, 5);
    far.destroy();
    await system.delay(50);
    assert.equal(
      refusal(() => native.sendNote(near, 1)),
      'EPIPE',
    );
    assert.deepEqual(native.receiveNote(near), { note: 5 });
    assert.equal(
      refusal(() => native.receiveNote(near)),
      'ECONNRESET',
    );
    closeSync(near);
    await close();
  });

  on('resets who connected but was not accepted', async (system) => {
    const { native, closeSync } = system;
    const { path, close } = await openServer(system);
    const near = native.connectLocal(path);
    native.sendNote(near, 1);
    const closed = close();
    assert.equal(
      refusal(() => native.receiveNote(near)),
      'ECONNRESET',
    );
    closeSync(near);
    await closed;
  });

  on('connects only where somebody listens', async (system) => {
    const { native, files, folder } = system;
    const { path, close } = await openServer(system);
    assert.equal(
      refusal(() => native.connectLocal(join(folder, 'none.sock'))),
      'ENOENT',
    );
    assert.equal(
      refusal(() => native.connectLocal(folder)),
      'ECONNREFUSED',
    );
    const aside = join(folder, 'aside.sock');
    await files.rename(path, aside);
    system.closeSync(native.connectLocal(aside));
    await close();
    assert.equal(
      refusal(() => native.connectLocal(aside)),
      'ECONNREFUSED',
    );
  });
}

function servers(on: On): void {
  on(
    'removes what is at the path of a server that closes, even another one’s socket',
    async (system) => {
      const { files } = system;
      const first = await openServer(system, 'first.sock');
      const second = await openServer(system, 'second.sock');
      await files.rename(second.path, first.path);
      await second.close();
      assert.ok((await files.lstat(first.path)).isSocket());
      await first.close();
      await assert.rejects(files.lstat(first.path), { code: 'ENOENT' });
    },
  );

  on('listens at no path that is taken or has no folder', async (system) => {
    const { path, close } = await openServer(system);
    for (const [taken, code] of [
      [path, 'EADDRINUSE'],
      [join(system.folder, 'none', 'a.sock'), 'EACCES'],
    ] as const) {
      const server = system.createServer({ pauseOnConnect: true });
      const failed = once(server, 'error');
      server.listen(taken);
      assert.equal(codeOf(await failed), code);
      assert.equal(server.listening, false);
    }
    await close();
  });

  on('closes connections beyond the limit of a server', async (system) => {
    const { native, closeSync } = system;
    const { path, server, accepted, close } = await openServer(system);
    server.maxConnections = 1;
    const [first, second] = [native.connectLocal(path), native.connectLocal(path)];
    await eventually(system, () =>
      refusal(() => native.receiveNote(second)) === 'ECONNRESET' ? true : undefined,
    );
    assert.equal(native.receiveNote(first), undefined);
    assert.equal(accepted.length, 1);
    for (const descriptor of [first, second]) closeSync(descriptor);
    accepted[0]?.destroy();
    await close();
  });

  on(
    'closes a server when its last connection is closed, and one that never listened',
    async (system) => {
      const { near, far, close } = await openConnection(system);
      let isClosed = false;
      const closed = close().then(() => (isClosed = true));
      await system.delay(50);
      assert.equal(isClosed, false);
      far.destroy();
      await closed;
      system.closeSync(near);
      await new Promise((resolve) => {
        system.createServer({ pauseOnConnect: true }).close(resolve);
      });
    },
  );
}

function sockets(on: On): void {
  on('reports the end of a connection only while it is read', async (system) => {
    const { near, far, close } = await openConnection(system);
    let isClosed = false;
    far.once('close', () => (isClosed = true));
    system.closeSync(near);
    await system.delay(50);
    assert.equal(isClosed, false);
    far.resume();
    await eventually(system, () => isClosed || undefined);
    assert.equal(far.destroyed, true);
    await close();
  });

  on('closes descriptors of notes that Node reads', async (system) => {
    const { native, closeSync, address } = system;
    const { near, far, close } = await openConnection(system);
    far.resume();
    const listener = native.openListener(address.ip, address.port);
    native.sendNote(near, 2, listener);
    closeSync(listener);
    const again = await eventually(system, () => {
      try {
        return native.openListener(address.ip, address.port);
      } catch {
        return undefined;
      }
    });
    closeSync(again);
    const closed = once(far, 'close');
    closeSync(near);
    await closed;
    await close();
  });

  on('fails when the other end closes without having read', async (system) => {
    const { native, closeSync } = system;
    const { near, far, close } = await openConnection(system);
    const failed = once(far, 'error');
    native.sendNote(descriptorOf(far), 4);
    closeSync(near);
    far.resume();
    assert.equal(codeOf(await failed), 'ECONNRESET');
    await close();
  });

  on('closes a descriptor at once when its socket is destroyed', async (system) => {
    const { native } = system;
    const { near, far, farDescriptor, close } = await openConnection(system);
    const socket = system.openSocket(near);
    const closed = once(socket, 'close');
    socket.destroy();
    assert.equal(socket.destroyed, true);
    assert.equal(
      refusal(() => native.receiveNote(farDescriptor)),
      'ECONNRESET',
    );
    await closed;
    far.destroy();
    await close();
  });

  on('connects as a socket where somebody listens', async (system) => {
    const { path, accepted, close } = await openServer(system);
    const socket = system.connect({ path });
    await once(socket, 'connect');
    socket.destroy();
    (await eventually(system, () => accepted[0])).destroy();
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
}

function paths(on: On): void {
  on('keeps the inode of a file that is renamed, and replaces another one', async (system) => {
    const { folder } = system;
    const { lstat, rename, unlink, mkdir } = system.files;
    const first = await openServer(system, 'first.sock');
    const second = await openServer(system, 'second.sock');
    const { ino } = await lstat(second.path, { bigint: true });
    assert.notEqual((await lstat(first.path, { bigint: true })).ino, ino);
    await rename(second.path, first.path);
    assert.equal((await lstat(first.path, { bigint: true })).ino, ino);
    await assert.rejects(lstat(second.path), { code: 'ENOENT' });
    await unlink(first.path);
    await assert.rejects(unlink(first.path), { code: 'ENOENT' });
    await first.close();
    await second.close();
    const made = join(folder, 'made');
    await mkdir(made, { mode: 0o700 });
    const found = await lstat(made);
    assert.equal(found.uid, process.geteuid?.());
    assert.equal(found.mode & 0o777, 0o700);
    assert.equal(found.isSocket(), false);
    await assert.rejects(mkdir(made, { mode: 0o700 }), { code: 'EEXIST' });
    await assert.rejects(mkdir(join(folder, 'a', 'b'), { mode: 0o700 }), { code: 'ENOENT' });
  });
}
