import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { createServer, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import { nativeModule, type NativeModule } from '../../../src/redirect/native/addon.ts';
import { twoFreePorts } from '../../../lab/fabric/free-ports.ts';

let native: NativeModule;
let folder = '';
let made = 0;

before(() => {
  freshNative();
  native = nativeModule();
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-descriptors-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** Both ends of a connection over a Unix socket. */
async function openPair() {
  const path = join(folder, `${(made += 1)}.sock`);
  const server = createServer({ pauseOnConnect: true }).listen(path);
  await once(server, 'listening');
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const near = native.connectLocal(path);
  const [socket] = await accepted;
  const far = (socket as Socket & { _handle: { fd: number } })._handle.fd;
  return {
    near,
    far,
    socket,
    [Symbol.dispose]: () => {
      socket.destroy();
      server.close();
    },
  };
}

async function canConnect(port: number): Promise<boolean> {
  const socket = connect({ host: '127.0.0.1', port });
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

const codeOf = (code: string) => (error: unknown) =>
  error instanceof Error && 'code' in error && error.code === code;

describe('listening sockets of the native module', () => {
  it('listen at their address, and report it', async () => {
    const [port] = await twoFreePorts();
    const listener = native.openListener('127.0.0.1', port);
    assert.deepEqual(native.listenerAddress(listener), { ip: '127.0.0.1', port });
    assert.equal(await canConnect(port), true);
    assert.throws(() => native.openListener('127.0.0.1', port), codeOf('EADDRINUSE'));
    // 192.0.2.0/24 is reserved for documentation: no machine has it.
    assert.throws(() => native.openListener('192.0.2.1', port), codeOf('EADDRNOTAVAIL'));
    const copy = native.duplicate(listener);
    closeSync(listener);
    assert.equal(await canConnect(port), true);
    closeSync(copy);
    assert.equal(await canConnect(port), false);
    assert.throws(() => native.listenerAddress(copy), codeOf('EBADF'));
  });

  it('refuse connections without giving up their port, and listen again', async () => {
    const [port] = await twoFreePorts();
    const listener = native.openListener('127.0.0.1', port);
    const waiting = connect({ host: '127.0.0.1', port });
    await once(waiting, 'connect');
    const reset = assert.rejects(once(waiting, 'end'), codeOf('ECONNRESET'));
    for (let round = 0; round < 2; round++) {
      native.setListening(listener, false);
      assert.equal(await canConnect(port), false);
      for (const host of ['127.0.0.1', '0.0.0.0']) {
        for (const reusePort of [false, true]) {
          const other = createServer().listen({ host, port, reusePort });
          await assert.rejects(once(other, 'listening'), codeOf('EADDRINUSE'));
        }
      }
      assert.throws(() => native.openListener('127.0.0.1', port), codeOf('EADDRINUSE'));
      native.setListening(listener, true);
      assert.equal(await canConnect(port), true);
    }
    await reset;
    closeSync(listener);
    closeSync(native.openListener('127.0.0.1', port));
  });

  it('listen again while connections of an earlier agent are closing', async () => {
    const [port] = await twoFreePorts();
    const listener = native.openListener('127.0.0.1', port);
    const server = createServer((socket) => socket.end());
    server.listen({ fd: native.duplicate(listener) });
    const client = connect({ host: '127.0.0.1', port }).resume();
    await once(client, 'end');
    server.close();
    await once(server, 'close');
    native.setListening(listener, false);
    native.setListening(listener, true);
    assert.equal(await canConnect(port), true);
    closeSync(listener);
    closeSync(native.openListener('127.0.0.1', port));
  });

  it('are distinguished from every other descriptor', async () => {
    using pair = await openPair();
    assert.throws(() => native.listenerAddress(pair.near), codeOf('EPROTOTYPE'));
    const file = openSync('/dev/null', 'r');
    assert.throws(() => native.listenerAddress(file), codeOf('ENOTSOCK'));
    closeSync(file);
    const [port] = await twoFreePorts();
    const listener = native.openListener('127.0.0.1', port);
    const client = connect({ host: '127.0.0.1', port });
    await once(client, 'connect');
    const { fd } = (client as Socket & { _handle: { fd: number } })._handle;
    assert.throws(() => native.listenerAddress(fd), codeOf('EPROTOTYPE'));
    client.destroy();
    closeSync(listener);
    closeSync(pair.near);
  });

  it('are sent over a Unix socket, and stay open when the sender closes its own', async () => {
    using pair = await openPair();
    const [port] = await twoFreePorts();
    const listener = native.openListener('127.0.0.1', port);
    assert.equal(native.receiveNote(pair.near), undefined);
    native.sendNote(pair.far, 7, listener);
    const received = native.receiveNote(pair.near);
    assert.equal(received?.note, 7);
    const { descriptor } = received;
    assert.ok(descriptor !== undefined && descriptor !== listener);
    closeSync(listener);
    assert.deepEqual(native.listenerAddress(descriptor), { ip: '127.0.0.1', port });
    const server = createServer((socket) => socket.end('answer')).listen({ fd: descriptor });
    await once(server, 'listening');
    const client = connect({ host: '127.0.0.1', port }).setEncoding('utf8');
    const [text] = (await once(client, 'data')) as [string];
    assert.equal(text, 'answer');
    server.close();
    await once(server, 'close');
    assert.equal(await canConnect(port), false);
    closeSync(pair.near);
  });

  it('are optional in a note', async () => {
    using pair = await openPair();
    native.sendNote(pair.far, 0);
    native.sendNote(pair.near, 255);
    assert.deepEqual(native.receiveNote(pair.near), { note: 0 });
    assert.deepEqual(native.receiveNote(pair.far), { note: 255 });
    pair.socket.destroy();
    await once(pair.socket, 'close');
    assert.throws(() => native.receiveNote(pair.near), codeOf('ECONNRESET'));
    assert.throws(() => native.sendNote(pair.near, 1), codeOf('EPIPE'));
    closeSync(pair.near);
  });

  it('fail to connect where no process listens', () => {
    assert.throws(() => native.connectLocal(join(folder, 'none.sock')), codeOf('ENOENT'));
    assert.throws(() => native.connectLocal(`/${'x'.repeat(108)}`), codeOf('ENAMETOOLONG'));
  });

  it('refuse invalid arguments', () => {
    for (const wrong of [-1, 1.5, 2 ** 31, Number.NaN]) {
      assert.throws(() => native.duplicate(wrong), /descriptor: a descriptor is wanted/);
    }
    assert.throws(() => native.sendNote(1, 256), /note: a number of 0 to 255 is wanted/);
    assert.throws(() => native.openListener('::1', 80), /ip: an IPv4 address is wanted/);
  });
});
