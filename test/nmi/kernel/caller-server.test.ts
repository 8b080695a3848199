import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import {
  answerBytes,
  readAnswer,
  requestBytes,
  writeRequest,
  type Answer,
  type RedirectReport,
  type Request,
} from '../../../src/nmi/kernel/caller-frames.ts';
import {
  openCallerServer,
  type CallerServerOptions,
} from '../../../src/nmi/kernel/caller-server.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';

const report: RedirectReport = {
  mode: 'ebpf',
  isActive: true,
  layout: 3,
  target: defaultTarget,
};

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nmi-test-callers-'));
});
after(() => rm(folder, { recursive: true, force: true }));

async function open(t: TestContext, path: string, over: Partial<CallerServerOptions> = {}) {
  const server = await openCallerServer({
    path,
    report: () => report,
    // The port is the cgroup ID, and an odd port has no record.
    lookUp: (_, port) =>
      port % 2 === 1
        ? { kind: 'unattested' }
        : { kind: 'attested', cgroupId: BigInt(port), isDirect: port % 4 === 0 },
    letThrough: () => undefined,
    ...over,
  });
  t.after(() => server[Symbol.asyncDispose]());
  return server;
}

function dial(path: string): Socket {
  return connect({ path }).on('error', () => undefined);
}

function encode(...requests: readonly Request[]): Buffer {
  const bytes = Buffer.alloc(requests.length * requestBytes);
  for (const [index, request] of requests.entries()) {
    writeRequest(request, bytes, index * requestBytes);
  }
  return bytes;
}

function closeOf(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

/** As many answers as requested; fewer when the connection ends earlier. */
async function answersFrom(socket: Socket, count: number): Promise<(Answer | undefined)[]> {
  let bytes = Buffer.alloc(0);
  const closed = closeOf(socket);
  socket.on('data', (chunk: Buffer) => (bytes = Buffer.concat([bytes, chunk])));
  while (bytes.length < count * answerBytes) {
    await Promise.race([closed, new Promise(setImmediate)]);
    if (socket.destroyed) break;
  }
  const whole = Math.floor(bytes.length / answerBytes);
  return Array.from({ length: whole }, (_, index) => readAnswer(bytes, index * answerBytes));
}

describe('the socket for caller look-ups', () => {
  it('is open to every user, in a folder made for it, and is removed with the process', async (t) => {
    const path = join(folder, 'made', 'callers.sock');
    const server = await open(t, path);
    assert.equal((await stat(path)).mode & 0o777, 0o666);
    assert.equal((await stat(join(folder, 'made'))).mode & 0o022, 0);
    // The umask for creating the socket is restored.
    const file = join(folder, 'file-of-after');
    await writeFile(file, '');
    assert.equal((await stat(file)).mode & 0o111, 0);
    assert.equal((await stat(file)).mode & 0o600, 0o600);
    await server[Symbol.asyncDispose]();
    await assert.rejects(stat(path), { code: 'ENOENT' });
  });

  it('answers in order, with any number of requests at once and any split of the bytes', async (t) => {
    const path = join(folder, 'order.sock');
    await open(t, path);
    const socket = dial(path);
    const ports = Array.from({ length: 3_000 }, (_, index) => index);
    const bytes = encode(
      { kind: 'status' },
      ...ports.map((port) => ({ kind: 'look-up' as const, ip: '10.0.0.1', port })),
    );
    const answers = answersFrom(socket, ports.length + 1);
    socket.write(bytes.subarray(0, 11));
    await new Promise(setImmediate);
    socket.write(bytes.subarray(11));
    const [first, ...rest] = await answers;
    assert.deepEqual(first, { kind: 'status', report });
    assert.deepEqual(
      rest,
      ports.map((port) => ({
        kind: 'look-up',
        found:
          port % 2 === 1
            ? { kind: 'unattested' }
            : { kind: 'attested', cgroupId: BigInt(port), isDirect: port % 4 === 0 },
      })),
    );
    socket.destroy();
  });

  it('distinguishes a caller that may get a record from one that never does', async (t) => {
    const path = join(folder, 'unrecorded.sock');
    await open(t, path, { lookUp: () => ({ kind: 'unattested', retryWhy: 'no room' }) });
    const socket = dial(path);
    socket.write(encode({ kind: 'look-up', ip: '10.0.0.1', port: 2 }));
    const [answer] = await answersFrom(socket, 1);
    assert.ok(answer?.kind === 'look-up' && answer.found.kind === 'unattested');
    assert.notEqual(answer.found.retryWhy, undefined);
    socket.destroy();
  });

  it('reports that look-ups are unavailable in a mode that does not record callers', async (t) => {
    const path = join(folder, 'address.sock');
    await open(t, path, { lookUp: () => ({ kind: 'by-address' }) });
    const socket = dial(path);
    socket.write(encode({ kind: 'look-up', ip: '10.0.0.1', port: 2 }));
    const [answer] = await answersFrom(socket, 1);
    assert.equal(answer?.kind === 'look-up' && answer.found.kind, 'unavailable');
    socket.destroy();
  });

  it('closes a connection with an invalid request, and serves the others', async (t) => {
    const path = join(folder, 'strange.sock');
    await open(t, path);
    const strange = dial(path);
    strange.write('GET / HTTP/1.1\r\n\r\n');
    assert.deepEqual(await answersFrom(strange, 1), []);
    const socket = dial(path);
    socket.write(encode({ kind: 'status' }));
    assert.equal((await answersFrom(socket, 1)).length, 1);
    socket.destroy();
  });

  it('collects the pods to let through, each set as a whole', async (t) => {
    const path = join(folder, 'through.sock');
    const told: (readonly bigint[])[] = [];
    await open(t, path, { letThrough: (ids) => told.push(ids) });
    const socket = dial(path);
    const one = (cgroupId: bigint, hasMore: boolean): Request => ({
      kind: 'let-through',
      cgroupId,
      hasMore,
    });
    socket.write(encode(one(5n, true), one(2n ** 64n - 1n, false), one(0n, false), one(6n, true)));
    const kinds = (await answersFrom(socket, 4)).map((answer) => answer?.kind);
    assert.deepEqual(kinds, Array(4).fill('let-through'));
    assert.deepEqual(told, [[5n, 2n ** 64n - 1n], []]);
    const closed = closeOf(socket);
    socket.write(encode(...Array.from({ length: 1_100 }, () => one(7n, true)), one(7n, false)));
    await closed;
    assert.equal(told.length, 2);
  });

  it('waits for a client that reads late', async (t) => {
    const path = join(folder, 'late.sock');
    await open(t, path);
    const socket = dial(path).pause();
    const many = encode(...Array.from({ length: 12_000 }, () => ({ kind: 'status' as const })));
    await new Promise((resolve) => socket.write(many, resolve));
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    const answers = answersFrom(socket, 12_000);
    socket.resume();
    assert.equal((await answers).length, 12_000);
    socket.destroy();
  });

  it('ends with its clients', async (t) => {
    const path = join(folder, 'end.sock');
    const server = await open(t, path);
    const socket = dial(path);
    await once(socket, 'connect');
    const closed = closeOf(socket);
    await server[Symbol.asyncDispose]();
    await closed;
  });

  it('closes a client that does not read its answers', async (t) => {
    const path = join(folder, 'unread.sock');
    await open(t, path);
    const socket = dial(path).pause();
    const closed = closeOf(socket);
    const many = encode(...Array.from({ length: 8_000 }, () => ({ kind: 'status' as const })));
    while (!socket.destroyed) {
      socket.write(many);
      await Promise.race([closed, new Promise(setImmediate)]);
    }
  });

  it('accepts eight clients, and another when one has disconnected', async (t) => {
    const path = join(folder, 'many.sock');
    await open(t, path);
    const ask = async () => {
      const socket = dial(path);
      socket.write(encode({ kind: 'status' }));
      return { socket, answers: await answersFrom(socket, 1) };
    };
    const clients: Awaited<ReturnType<typeof ask>>[] = [];
    for (let count = 0; count < 8; count++) clients.push(await ask());
    assert.ok(clients.every(({ answers }) => answers.length === 1));
    assert.deepEqual((await ask()).answers, []);
    clients[0]?.socket.destroy();
    let last = await ask();
    while (last.answers.length === 0) last = await ask();
    for (const { socket } of [...clients, last]) socket.destroy();
  });

  it('replaces the socket of a killed process, and nothing else', async (t) => {
    const path = join(folder, 'left.sock');
    await open(t, path);
    await assert.rejects(open(t, path), /callers at .*left\.sock: another process answers there/);
    const file = join(folder, 'file');
    await writeFile(file, 'kept');
    await assert.rejects(open(t, file), /something that is no socket is there/);
    const link = join(folder, 'link.sock');
    await symlink(file, link);
    await assert.rejects(open(t, link), /something that is no socket is there/);
    assert.notEqual((await stat(file)).mode & 0o777, 0o666);
    await assert.rejects(open(t, join(folder, 'no', 'folder', 'x.sock')), /: ENOENT/);

    const dead = join(folder, 'dead');
    await mkdir(dead);
    const server = createServer().listen({ path: join(dead, 'x.sock') });
    await once(server, 'listening');
    const [from, to] = [join(dead, 'x.sock'), join(dead, 'y.sock')];
    // A renamed socket remains when its process ends.
    await rename(from, to);
    await new Promise((resolve) => server.close(resolve));
    await open(t, to);
  });

  it('reports when no client is left, or when the wait is over', async (t) => {
    const path = join(folder, 'unused.sock');
    const server = await open(t, path);
    await server.untilUnused(10_000);
    const client = dial(path);
    await once(client, 'connect');
    await server.untilUnused(50);
    let isUnused = false;
    const waiting = server.untilUnused(10_000).then(() => (isUnused = true));
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(isUnused, false);
    const startMs = performance.now();
    client.destroy();
    await waiting;
    assert.ok(performance.now() - startMs < 5_000, 'at once');
  });
});
