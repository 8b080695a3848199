/** The lock of a slot and the list of sockets, in the kernel. Neither takes a privilege. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { freePort } from '../../../lab/fabric/free-ports.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { freshNative } from '../../../scripts/native.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';

freshNative();
const native = nativeModule();
const source = join(import.meta.dirname, '../../../src/redirect/native/addon.ts');

describe('a locked file', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-native-slots-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  it('has one holder until its descriptor is closed, and no other descriptor releases it', () => {
    const path = join(folder, 'one');
    assert.equal(native.isLocked(path), false);
    const lock = native.lockFile(path);
    assert.ok(lock !== undefined);
    for (let round = 0; round < 3; round++) {
      assert.deepEqual([native.lockFile(path), native.isLocked(path)], [undefined, true]);
    }
    assert.equal(statSync(path).mode & 0o777, 0o600);
    closeSync(lock);
    assert.equal(native.isLocked(path), false);
    closeSync(native.lockFile(path) ?? assert.fail());
  });

  it('is released when its holder is killed, though a child of it runs on', async (t) => {
    const path = join(folder, 'two');
    const script = `import(${JSON.stringify(source)}).then(({ nativeModule }) => {
      nativeModule().lockFile(${JSON.stringify(path)});
      const child = require('node:child_process').spawn('sleep', ['60'], { stdio: 'ignore' });
      console.log(child.pid);
    });
    setInterval(() => undefined, 1e6);`;
    const holder = spawn(process.execPath, ['-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [pid] = (await once(holder.stdout, 'data')) as [Buffer];
    const child = Number(pid.toString());
    t.after(() => process.kill(child, 'SIGKILL'));
    assert.deepEqual([native.isLocked(path), native.lockFile(path)], [true, undefined]);
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    process.kill(child, 0);
    assert.equal(native.isLocked(path), false);
  });

  it('is not behind a link, nor where there is no folder', () => {
    const target = join(folder, 'target');
    symlinkSync(target, join(folder, 'link'));
    for (const [path, code] of [
      [join(folder, 'link'), 'ELOOP'],
      [join(folder, 'none', 'x'), 'ENOENT'],
      [folder, 'EISDIR'],
    ] as const) {
      assert.throws(() => native.lockFile(path), { code, step: 'open lock' });
      assert.throws(() => native.isLocked(path), { code, step: 'open lock' });
    }
    assert.equal(existsSync(target), false);
  });
});

describe('a port that is listened on', () => {
  it('is one with a socket that listens there, and no socket of another kind', async () => {
    const port = await freePort();
    const isListening = (ip: string) => native.isListening(ip, port);
    assert.equal(isListening('127.0.0.1'), false);
    const server = createServer((socket) => socket.end());
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    assert.deepEqual(['127.0.0.1', '127.0.0.2'].map(isListening), [true, false]);
    // The server's end is established, then in TIME_WAIT, as it ends first.
    const client = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
    await once(client, 'connect');
    server.close();
    await eventually(() => assert.equal(isListening('127.0.0.1'), false));
    client.resume();
    await once(client, 'end');
    client.end();
    await once(client, 'close');
    assert.equal(isListening('127.0.0.1'), false);
    // A socket that is bound there.
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const address = other.address();
    assert.ok(address !== null && typeof address === 'object');
    const from = connect({
      host: '127.0.0.1',
      port: address.port,
      localPort: port,
      localAddress: '127.0.0.5',
    });
    await once(from, 'connect');
    assert.equal(isListening('127.0.0.5'), false);
    from.destroy();
    other.close();
  });

  it('is also one that is listened on at all addresses, and none at an address on no link', async () => {
    const port = await freePort();
    assert.equal(native.isListening('203.0.113.9', port), false);
    const server = createServer().listen(port, '0.0.0.0');
    await once(server, 'listening');
    assert.equal(native.isListening('127.0.0.1', port), true);
    assert.equal(native.isListening('127.0.0.1', port === 1 ? 2 : port - 1), false);
    server.close();
    await once(server, 'close');
    assert.equal(native.isListening('127.0.0.1', port), false);
  });
});
