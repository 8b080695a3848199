import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { listenAt, makeOwnFolder } from '../../../../src/nmi/kernel/local-socket.ts';

/** As a killed process does. */
function leaveSocket(path: string): void {
  const leave = `require('node:net').createServer().listen(${JSON.stringify(path)}, () =>
    process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['--eval', leave]);
  assert.ok(existsSync(path));
}

describe('listening at a path', () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-local-socket-'));
    path = join(folder, 'socket');
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('gives the socket its mode for any umask, and restores the umask', async () => {
    const before = process.umask(0o077);
    try {
      await using server = createServer();
      assert.equal(await listenAt(server, path, 0o666), undefined);
      assert.equal(statSync(path).mode & 0o777, 0o666);
      assert.equal(process.umask(0o077), 0o077);
    } finally {
      process.umask(before);
    }
  });

  it('replaces a socket without a listener', async () => {
    leaveSocket(path);
    await using server = createServer();
    assert.equal(await listenAt(server, path, 0o600), undefined);
  });

  it('keeps a socket on which another process answers', async () => {
    await using first = createServer();
    await using second = createServer();
    assert.equal(await listenAt(first, path, 0o600), undefined);
    assert.equal(await listenAt(second, path, 0o600), 'another process answers there');
    assert.ok(first.listening);
  });

  it('keeps a file that is not a socket, and throws any other failure', async () => {
    writeFileSync(path, '');
    await using server = createServer();
    assert.equal(await listenAt(server, path, 0o600), 'something that is no socket is there');
    assert.ok(existsSync(path));
    await assert.rejects(listenAt(server, join(folder, 'none', 'socket'), 0o600));
  });

  it('creates a missing folder, and none above it', async () => {
    const made = join(folder, 'made');
    assert.equal(await makeOwnFolder(made), undefined);
    assert.equal(await makeOwnFolder(made), undefined);
    assert.equal(statSync(made).mode & 0o777, 0o700);
    await assert.rejects(makeOwnFolder(join(folder, 'one', 'two')), { code: 'ENOENT' });
  });

  it('distrusts a folder that another user can write to', async () => {
    for (const mode of [0o720, 0o702]) {
      chmodSync(folder, mode);
      assert.match((await makeOwnFolder(folder)) ?? '', /this user alone/);
    }
  });
});
