import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { freePort } from '../../../../lab/fabric/free-ports.ts';
import { freshNative } from '../../../../scripts/native.ts';
import type { Log } from '../../../../src/base/log.ts';
import {
  agentCgroups,
  portToMaintain,
  removeSlots,
  takeSlot,
  type Slot,
  type SlotOptions,
} from '../../../../src/nmi/kernel/slots.ts';
import { HandClock } from '../../../support/hand-clock.ts';

freshNative();

describe('the port that an agent maintains the redirect for', () => {
  /** Own agent listens | other listens | other's process runs | redirect points at | own is younger. `*` is any. */
  const rows = [
    ['no  no  yes other *  ', 'none'],
    ['yes no  *   *     *  ', 'own'],
    ['no  no  no  *     *  ', 'own'],
    ['no  no  yes own   *  ', 'own'],
    ['no  no  yes none  *  ', 'own'],
    ['yes yes yes *     yes', 'own'],
    ['yes yes yes own   no ', 'own'],
    ['yes yes yes none  no ', 'own'],
    ['no  yes yes own   *  ', 'none'],
    ['no  yes yes none  *  ', 'other'],
    ['yes yes yes other no ', 'none'],
    ['no  yes yes other *  ', 'none'],
    ['yes yes no  *     *  ', 'own'],
    ['no  yes no  other *  ', 'other'],
    ['no  yes no  own   *  ', 'own'],
    ['no  yes no  none  *  ', 'own'],
  ] as const;
  const ports = { own: 2580, other: 2579, none: undefined };
  const either = ['yes', 'no'] as const;
  const targets = ['own', 'other', 'none'] as const;

  for (const [row, wanted] of rows) {
    it(`${row} -> ${wanted}`, () => {
      const pattern = row.trim().split(/ +/);
      let cases = 0;
      for (const own of either)
        for (const other of either)
          for (const held of either)
            for (const target of targets)
              for (const younger of either) {
                const one = [own, other, held, target, younger];
                if (!pattern.every((each, at) => each === '*' || each === one[at])) continue;
                cases += 1;
                const side = { port: ports.own, listens: own === 'yes' };
                const neighbor = { port: ports.other, listens: other === 'yes', order: 5 };
                const found = portToMaintain(
                  ports[target],
                  { ...side, order: younger === 'yes' ? 6 : 4 },
                  { ...neighbor, isHeld: held === 'yes' },
                );
                assert.equal(found, ports[wanted], one.join());
              }
      assert.ok(cases > 0);
    });
  }

  it('is in exactly one row for each state', () => {
    const count = rows.reduce(
      (sum, [row]) =>
        sum +
        row.split(/ +/).reduce((all, each, at) => all * (each === '*' ? (at === 3 ? 3 : 2) : 1), 1),
      0,
    );
    assert.equal(count, 2 * 2 * 2 * 3 * 2);
  });

  it('is its own without another agent, and of two of the same age the higher one takes it', () => {
    const own = { port: 2579, listens: false, order: 1 };
    for (const target of [2579, 2580, undefined]) {
      assert.equal(portToMaintain(target, own, undefined), 2579);
    }
    const [one, two] = [2579, 2580].map((port) => ({
      port,
      listens: true,
      order: 1,
      isHeld: true,
    }));
    assert.ok(one !== undefined && two !== undefined);
    assert.equal(portToMaintain(2579, two, one), 2580);
    assert.equal(portToMaintain(2580, one, two), undefined);
  });
});

describe('the slots of the agents of a node', () => {
  let folder = '';
  let firstPort = 0;
  let clock: HandClock;
  let lines: string[] = [];
  let opened: AsyncDisposableStack;
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-slots-'));
    firstPort = await freePort();
    clock = new HandClock();
    lines = [];
    opened = new AsyncDisposableStack();
  });
  afterEach(async () => {
    await opened.disposeAsync();
    rmSync(folder, { recursive: true });
  });

  const add = (_fields: unknown, message: string): void => void lines.push(message);
  const log: Log = { debug: add, info: add, warn: add, error: add };

  async function take(pod: string, over: Partial<SlotOptions> = {}, signal?: AbortSignal) {
    const options = { folder, ip: '127.0.0.1', firstPort, pod, cgroup: 7n, clock, log, ...over };
    return takeSlot(options, signal);
  }

  /** An agent that accepts connections. */
  async function listen(port: number, host = '127.0.0.1'): Promise<Server> {
    const server = opened.use(createServer().listen(port, host));
    await once(server, 'listening');
    return server;
  }

  async function end(server: Server): Promise<void> {
    server.close();
    await once(server, 'close');
  }

  const orderAndPort = (slot: Slot) => [slot.own().order, slot.port - firstPort];

  it('make one that leaves older than the other, until it starts again', async () => {
    const first = await take('one');
    const second = await take('two');
    let changes = 0;
    using _ = first.watch(() => (changes += 1));
    second.leave();
    assert.deepEqual([first.other()?.order, second.own().order], [-2, -2]);
    await eventually(() => assert.ok(changes > 0));
    second[Symbol.dispose]();
    assert.deepEqual(orderAndPort(await take('two')), [2, 1]);
    first.leave();
    first[Symbol.dispose]();
    assert.deepEqual(orderAndPort(await take('three')), [3, 0]);
  });

  it('are two, in the order of their agents, and a third agent waits for one', async () => {
    const first = await take('one');
    const second = await take('two');
    assert.deepEqual([first, second].map(orderAndPort), [
      [1, 0],
      [2, 1],
    ]);
    let third: Slot | undefined;
    const waiting = take('three').then((slot) => (third = slot));
    await eventually(() => assert.equal(clock.armed.length, 1));
    for (let round = 0; round < 5; round++) {
      clock.advance(200);
      await new Promise(setImmediate);
    }
    assert.equal(third, undefined);
    assert.deepEqual(lines, ['two other agents have both ports, waiting']);
    second[Symbol.dispose]();
    clock.advance(200);
    using last = await waiting;
    assert.deepEqual(orderAndPort(last), [2, 1]);
    first[Symbol.dispose]();
    using youngest = await take('four');
    assert.deepEqual(orderAndPort(youngest), [3, 0]);
    assert.deepEqual([last.other()?.order, youngest.other()?.order], [3, 2]);
  });

  it('are not waited for any longer once the signal aborts', async () => {
    using _first = await take('one');
    using _second = await take('two');
    const stop = new AbortController();
    const waiting = take('three', {}, stop.signal);
    await eventually(() => assert.equal(clock.armed.length, 1));
    stop.abort(new Error('stopped'));
    clock.advance(200);
    await assert.rejects(waiting, /stopped/);
  });

  it('are for a pod what they were, also while its agent listens', async () => {
    using _first = await take('one');
    const second = await take('two');
    await listen(second.port);
    second[Symbol.dispose]();
    using again = await take('two');
    assert.deepEqual(orderAndPort(again), [2, 1]);
    assert.deepEqual(again.own(), { port: again.port, order: 2, listens: true });
  });

  it('are not taken where an agent listens whose process does not run', async () => {
    await listen(firstPort);
    const slot = await take('one');
    assert.equal(slot.port, firstPort + 1);
    const other = { port: firstPort, listens: true, isHeld: false, order: 0 };
    assert.deepEqual(slot.other(), other);
    slot[Symbol.dispose]();
    const onAllAddresses = await listen(firstPort + 1, '0.0.0.0');
    const waiting = take('two');
    await eventually(() => assert.equal(clock.armed.length, 1));
    await end(onAllAddresses);
    clock.advance(200);
    using next = await waiting;
    assert.equal(next.port, firstPort + 1);
  });

  it('are one without a folder, or in a folder that others may write to', async () => {
    const check = (slot: Slot) => {
      const { port } = slot;
      assert.equal(port, firstPort);
      assert.deepEqual(slot.own(), { port, order: 1, listens: true });
      assert.deepEqual([slot.other(), slot.isAlone()], [undefined, true]);
      slot[Symbol.dispose]();
    };
    check(await take('one', { folder: '' }));
    assert.deepEqual(lines, []);
    for (const mode of [0o720, 0o702]) {
      chmodSync(folder, mode);
      check(await take('one'));
    }
    check(await take('one', { folder: join(folder, 'none', 'deeper') }));
    assert.deepEqual(lines, Array(3).fill('an update will refuse connections'));
    assert.deepEqual(readdirSync(folder), []);
  });

  it('are removed once their agents have ended', async () => {
    removeSlots(folder, firstPort);
    const first = await take('one');
    using _second = await take('two');
    first[Symbol.dispose]();
    removeSlots(folder, firstPort);
    const left = [`${firstPort + 1}.json`, `${firstPort + 1}.lock`];
    assert.deepEqual(readdirSync(folder).toSorted(), left);
  });

  it('tell an agent whether it has to listen, ready or not', async () => {
    const older = await take('one');
    assert.equal(older.isAlone(), true, 'nobody else is there');
    using younger = await take('two');
    assert.equal(older.isAlone(), true, 'the other one is younger');
    assert.equal(younger.isAlone(), false, 'the older one may listen soon');
    clock.advance(9_999);
    assert.equal(younger.isAlone(), false);
    clock.advance(1);
    assert.equal(younger.isAlone(), true, 'it has not listened for ten seconds');
    const server = await listen(older.port);
    assert.equal(younger.isAlone(), false);
    await end(server);
    assert.equal(younger.isAlone(), false, 'the ten seconds begin again');
    clock.advance(9_999);
    assert.equal(younger.isAlone(), false);
    const again = await listen(older.port);
    older[Symbol.dispose]();
    assert.equal(younger.isAlone(), false, 'it listens, though nobody maintains its redirect');
    await end(again);
    assert.equal(younger.isAlone(), true, 'it has ended');
  });

  it('let one process at a time read and change the redirect, and wait for none that hangs', async () => {
    using one = await take('one');
    using two = await take('two');
    const first = await one.turn();
    let hasTurn = false;
    const waiting = two.turn().finally(() => (hasTurn = true));
    const pass = async (ms: number) => {
      for (let passed = 0; passed < ms; passed += 20) {
        clock.advance(20);
        await new Promise(setImmediate);
      }
    };
    await pass(1_000);
    assert.equal(hasTurn, false);
    first[Symbol.dispose]();
    await pass(20);
    const second = await waiting;
    const impatient = one.turn();
    await pass(15_000);
    (await impatient)[Symbol.dispose]();
    second[Symbol.dispose]();
    using alone = await takeSlot({
      ...{ folder: '', ip: '', firstPort, pod: '' },
      clock,
      log,
      cgroup: 1n,
    });
    (await alone.turn())[Symbol.dispose]();
  });

  it('tell the cgroups of the agents, whatever a note contains', async () => {
    const cgroups = () => agentCgroups(folder, firstPort);
    assert.deepEqual([cgroups(), agentCgroups('', firstPort)], [[], []]);
    using slot = await take('one');
    const other = await take('two', { cgroup: 2n ** 64n - 1n });
    other[Symbol.dispose]();
    assert.deepEqual(cgroups(), [7n, 2n ** 64n - 1n], 'the one that has ended may still answer');
    using _unknown = await take('three', { cgroup: undefined });
    assert.deepEqual(cgroups(), [7n]);
    const path = join(folder, `${firstPort + 1}.json`);
    const { boot } = JSON.parse(readFileSync(path, 'utf8')) as { readonly boot: string };
    for (const cgroup of ['0', '-1', '1.5', ' 7', '0x7', '7n', 7, [7], null, String(2n ** 64n)]) {
      writeFileSync(path, JSON.stringify({ boot, pod: 'two', order: 2, cgroup }));
      assert.deepEqual(cgroups(), [7n], String(cgroup));
    }
    for (const order of ['2', 1e300, 1.5, null]) {
      writeFileSync(path, JSON.stringify({ boot, order, cgroup: '9' }));
      assert.deepEqual([slot.other()?.order, cgroups()], [0, [7n, 9n]]);
    }
    const ofLastBoot = JSON.stringify({ boot: 'x', pod: 'two', order: 2, cgroup: '9' });
    for (const text of ['', 'null', '[]', '{', '"x"', ofLastBoot]) {
      writeFileSync(path, text);
      assert.deepEqual([slot.other()?.order, cgroups()], [0, [7n]], text);
    }
  });
});
