import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import {
  askHolder,
  awaitNote,
  codeOf,
  listenerPath,
  listensAt,
  noteOf,
  notes,
} from '../../../src/nmi/kernel/listener-notes.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { twoFreePorts } from '../../../lab/fabric/free-ports.ts';

let folder = '';
before(() => {
  freshNative();
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-notes-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

describe('notes about a listening socket', () => {
  it('contain the failures that a user can fix, and no others', () => {
    for (const code of ['EADDRINUSE', 'EADDRNOTAVAIL', 'EACCES']) {
      assert.equal(codeOf(noteOf(code)), code);
    }
    assert.equal(noteOf('EMFILE'), notes.failed);
    assert.equal(codeOf(notes.failed), 'failed');
    assert.equal(codeOf(200), 'failed');
  });

  it('keep their bytes, for agents of another version', () => {
    const { want, have, alone, shared, EADDRINUSE, EADDRNOTAVAIL, EACCES, failed } = notes;
    const bytes = [want, have, alone, shared, EADDRINUSE, EADDRNOTAVAIL, EACCES, failed];
    assert.deepEqual(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it('are sent over a separate socket beside that for look-ups', () => {
    assert.equal(listenerPath('/run/nmi/callers.sock'), '/run/nmi/listener.sock');
  });

  it('are awaited until one arrives, the time is over or the connection is closed', async () => {
    const come = [undefined, undefined, { note: 3 }];
    const native = { receiveNote: () => come.shift() };
    assert.deepEqual(await awaitNote(native, 9, () => false, 10_000), { note: 3 });
    assert.equal(await awaitNote(native, 9, () => false, 10), undefined);
    const never = { receiveNote: () => assert.fail('a descriptor of somebody else was read') };
    assert.equal(await awaitNote(never, 9, () => true, 10_000), undefined);
  });

  it('are missing when the holder closes, is not running, or reads nothing', async () => {
    const native = nativeModule();
    await assert.rejects(askHolder(native, join(folder, 'none.sock')), {
      name: 'ListenerError',
      code: 'ENOENT',
    });
    const path = join(folder, 'closes.sock');
    const server = createServer((socket) => socket.destroy()).listen(path);
    await once(server, 'listening');
    await assert.rejects(askHolder(native, path), { code: 'ECONNRESET' });
    server.close();
  });

  it('request the socket, or have the one that this process has already', async (t) => {
    const real = nativeModule();
    const sent: (number | undefined)[][] = [];
    const native = {
      ...real,
      connectLocal: (path: string) => real.connectLocal(path),
      sendNote: (_local: number, note: number, had?: number) => void sent.push([note, had]),
      receiveNote: () => ({ note: notes.alone }),
    };
    const path = join(folder, 'answers.sock');
    const server = createServer().listen(path);
    t.after(() => server.close());
    await once(server, 'listening');
    for (const had of [undefined, 7]) (await askHolder(native, path, had)).connection.destroy();
    assert.deepEqual(sent, [
      [notes.want, undefined],
      [notes.have, 7],
    ]);
  });

  it('contain a socket only if it listens at the requested address', async () => {
    const native = nativeModule();
    const [port, other] = await twoFreePorts();
    const listener = native.openListener('127.0.0.1', port);
    assert.equal(listensAt(native, listener, { ip: '127.0.0.1', port }), true);
    assert.equal(listensAt(native, listener, { ip: '127.0.0.1', port: other }), false);
    assert.equal(listensAt(native, listener, { ip: '127.0.0.2', port }), false);
    closeSync(listener);
    assert.equal(listensAt(native, listener, { ip: '127.0.0.1', port }), false);
  });
});
