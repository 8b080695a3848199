import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { CallerClient } from '../../../src/nmi/kernel/caller-client.ts';
import {
  FrameReader,
  answerBytes,
  readRequest,
  requestBytes,
  writeAnswer,
  type Answer,
  type RedirectReport,
  type Request,
} from '../../../src/nmi/kernel/caller-frames.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { HandClock } from '../../support/hand-clock.ts';

const report: RedirectReport = {
  mode: 'ebpf',
  isActive: true,
  layout: 3,
  target: defaultTarget,
};
const why = /does not answer/;

let folder = '';
let made = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nmi-test-client-'));
});
after(() => rm(folder, { recursive: true, force: true }));

interface Asked {
  readonly request: Request;
  readonly bytes: string;
  readonly socket: Socket;
}

/** The other process; the test decides what it answers, and when. */
async function openSide(path: string) {
  const asked: Asked[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const frames = new FrameReader(requestBytes);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (chunk: Buffer) => {
      const bytes = frames.take(chunk);
      for (let at = 0; at < bytes.length; at += requestBytes) {
        const request = readRequest(bytes, at);
        assert.ok(request !== undefined);
        const frame = bytes.subarray(at, at + requestBytes).toString('hex');
        asked.push({ request, bytes: frame, socket });
      }
    });
  });
  server.listen({ path });
  await once(server, 'listening');
  return {
    asked,
    sockets,
    until: async (count: number) => {
      while (asked.length < count) await new Promise(setImmediate);
    },
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function answer(socket: Socket, ...answers: readonly Answer[]): void {
  const bytes = Buffer.alloc(answers.length * answerBytes);
  for (const [index, each] of answers.entries()) writeAnswer(each, bytes, index * answerBytes);
  socket.write(bytes);
}

const attested = (cgroupId: bigint): Answer => ({
  kind: 'look-up',
  found: { kind: 'attested', cgroupId, isDirect: false },
});
const status: Answer = { kind: 'status', report };

async function open(t: TestContext) {
  const path = join(folder, `${(made += 1)}.sock`);
  const side = await openSide(path);
  t.after(() => side.close());
  const clock = new HandClock();
  const reports: (RedirectReport | undefined)[] = [];
  const client = new CallerClient({ path, clock, onReport: (each) => reports.push(each) });
  t.after(() => client.close());
  const asking = client.report();
  await side.until(1);
  answer(side.asked[0]!.socket, status);
  assert.deepEqual(await asking, report);
  const untilLost = async () => {
    while (reports.at(-1) !== undefined) await new Promise(setImmediate);
  };
  return { path, side, clock, reports, client, untilLost };
}

describe('a client that looks callers up in another process', () => {
  it('sends nothing of an earlier request with the next', async (t) => {
    const { side, client } = await open(t);
    const { bytes } = side.asked[0]!;
    void client.lookUp('10.0.0.1', 65_535);
    await side.until(2);
    void client.report();
    await side.until(3);
    assert.equal(side.asked[2]?.bytes, bytes, 'another request with empty fields');
  });

  it('gets its answers in order, whatever was requested before', async (t) => {
    const { side, client } = await open(t);
    const first = client.lookUp('10.0.0.1', 1);
    const second = client.lookUp('10.0.0.2', 2);
    const again = client.report();
    const third = client.lookUp('10.0.0.3', 3);
    await side.until(5);
    const { socket } = side.asked[0]!;
    assert.deepEqual(
      side.asked.slice(1).map(({ request }) => request),
      [
        { kind: 'look-up', ip: '10.0.0.1', port: 1 },
        { kind: 'look-up', ip: '10.0.0.2', port: 2 },
        { kind: 'status' },
        { kind: 'look-up', ip: '10.0.0.3', port: 3 },
      ],
    );
    const unattested: Answer = { kind: 'look-up', found: { kind: 'unattested' } };
    answer(socket, attested(7n), unattested, { kind: 'status', report });
    assert.deepEqual(await first, { kind: 'attested', cgroupId: 7n, isDirect: false });
    assert.deepEqual(await second, { kind: 'unattested' });
    assert.deepEqual(await again, report);
    answer(socket, { kind: 'look-up', found: { kind: 'unavailable', why: 'x' } });
    const refused = await third;
    assert.ok(refused.kind === 'unavailable');
    assert.match(refused.why, /cannot look it up/);
  });

  it('fails after a second, for all requests on that connection', async (t) => {
    const { side, clock, client, untilLost } = await open(t);
    const first = client.lookUp('10.0.0.1', 1);
    await side.until(2);
    clock.advance(600);
    const second = client.lookUp('10.0.0.1', 2);
    await side.until(3);
    clock.advance(399);
    assert.equal(side.sockets.size, 1);
    clock.advance(1);
    for (const found of [await first, await second]) {
      assert.ok(found.kind === 'unavailable');
      assert.match(found.why, why);
    }
    await untilLost();
    const later = client.lookUp('10.0.0.1', 3);
    assert.ok(!(later instanceof Promise), 'no waiter for a connection');
    assert.equal(later.kind, 'unavailable');
  });

  it('waits as long for a request behind an answered one', async (t) => {
    const { side, clock, client } = await open(t);
    const first = client.lookUp('10.0.0.1', 1);
    await side.until(2);
    clock.advance(600);
    const second = client.lookUp('10.0.0.1', 2);
    await side.until(3);
    const { socket } = side.asked[0]!;
    answer(socket, attested(1n));
    await first;
    clock.advance(999);
    answer(socket, attested(2n));
    assert.deepEqual(await second, { kind: 'attested', cgroupId: 2n, isDirect: false });
  });

  it('stays connected when nothing is asked for long', async (t) => {
    const { side, clock, client } = await open(t);
    clock.advance(5_000);
    const found = client.lookUp('10.0.0.1', 1);
    await side.until(2);
    answer(side.asked[0]!.socket, attested(1n));
    assert.equal((await found).kind, 'attested');
  });

  it('connects once when it is asked for a report before it would by itself', async (t) => {
    const { path, side, clock, client, untilLost } = await open(t);
    await side.close();
    await untilLost();
    const next = await openSide(path);
    t.after(() => next.close());
    void client.report();
    await next.until(1);
    assert.deepEqual(clock.armed, [1_000], 'the answer is due, and no connection is');
  });

  it('answers what is pending when it is closed, and leaves no timer', async (t) => {
    const { side, clock, client } = await open(t);
    const found = client.lookUp('10.0.0.1', 1);
    await side.until(2);
    client.close();
    assert.equal((await found).kind, 'unavailable');
    assert.deepEqual(clock.armed, []);
  });

  it('sends a set of pods to let through as a whole, or nothing', async (t) => {
    const { side, client, clock, untilLost } = await open(t);
    const sent = () =>
      side.asked.slice(1).map(({ request }) => {
        assert.ok(request.kind === 'let-through');
        return [request.cgroupId, request.hasMore];
      });
    client.letThrough(Array.from({ length: 4_097 }, () => 9n));
    client.letThrough([]);
    client.letThrough([5n, 6n, 7n]);
    await side.until(5);
    assert.deepEqual(sent(), [
      [0n, false],
      [5n, true],
      [6n, true],
      [7n, false],
    ]);
    client.letThrough(Array.from({ length: 4_092 }, () => 9n));
    await side.until(4_097);
    client.letThrough([8n]);
    clock.advance(1_000);
    await untilLost();
    client.letThrough([8n]);
    assert.equal(side.asked.length, 4_097, 'no room, and no connection');
  });

  it('connects again by itself, a tenth of a second after each loss', async (t) => {
    const { path, side, clock, reports, client, untilLost } = await open(t);
    await side.close();
    await untilLost();
    clock.advance(100);
    while (reports.length < 3) await new Promise(setImmediate);
    assert.deepEqual(reports, [report, undefined, undefined], 'nobody listens');
    const next = await openSide(path);
    t.after(() => next.close());
    clock.advance(99);
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    assert.equal(next.asked.length, 0);
    clock.advance(1);
    await next.until(1);
    answer(next.asked[0]!.socket, status);
    while (reports.at(-1) === undefined) await new Promise(setImmediate);
    const found = client.lookUp('10.0.0.1', 1);
    await next.until(2);
    answer(next.asked[0]!.socket, attested(9n));
    assert.deepEqual(await found, { kind: 'attested', cgroupId: 9n, isDirect: false });
  });

  it('connects at once for a report, and returns an error when there is no listener', async () => {
    const clock = new HandClock();
    const client = new CallerClient({
      path: join(folder, 'nobody.sock'),
      clock,
      onReport: () => undefined,
    });
    assert.equal(await client.report(), undefined);
    client.close();
    assert.equal(await client.report(), undefined);
    assert.deepEqual(clock.armed, []);
  });

  const strange: readonly (readonly [string, readonly Answer[], string])[] = [
    ['an answer to nothing', [attested(1n), attested(2n)], 'attested'],
    ['an answer of another kind', [status], 'unavailable'],
  ];
  for (const [what, answers, kind] of strange) {
    it(`ends a connection that sends ${what}`, async (t) => {
      const { side, client, untilLost } = await open(t);
      const found = client.lookUp('10.0.0.1', 1);
      await side.until(2);
      answer(side.asked[0]!.socket, ...answers);
      assert.equal((await found).kind, kind);
      await untilLost();
    });
  }

  it('keeps a limited number of requests', async (t) => {
    const { side, client } = await open(t);
    const all = Array.from({ length: 4_097 }, (_, index) => client.lookUp('10.0.0.1', index));
    const last = await all.at(-1);
    assert.equal(last?.kind, 'unavailable');
    await side.until(4_097);
    answer(
      side.asked[0]!.socket,
      ...Array.from({ length: 4_096 }, (_, at) => attested(BigInt(at))),
    );
    assert.deepEqual(await all[4_095], { kind: 'attested', cgroupId: 4_095n, isDirect: false });
  });

  it('does not keep a process alive that has nothing else to do', async (t) => {
    const { path, side } = await open(t);
    const file = join(import.meta.dirname, '../../../src/nmi/kernel/caller-client.ts');
    const clock = file.replace('nmi/kernel/caller-client', 'base/time/clock');
    const script = `
      const { CallerClient } = await import('${file}');
      const { systemClock: clock } = await import('${clock}');
      const client = new CallerClient({ path: '${path}', clock, onReport: () => undefined });
      console.log((await client.report())?.mode);
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script]);
    let printed = '';
    child.stdout.on('data', (text: Buffer) => (printed += String(text)));
    await side.until(2);
    answer(side.asked[1]!.socket, status);
    assert.deepEqual(await once(child, 'exit'), [0, null]);
    assert.equal(printed, 'ebpf\n');
  });
});
