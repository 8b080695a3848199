import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { freshNative } from '../../../scripts/native.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../src/base/time/clock.ts';
import { takeListener } from '../../../src/nmi/kernel/held-listener.ts';
import { openListenerHolder } from '../../../src/nmi/kernel/listener-holder.ts';
import { askHolder, descriptorOf, notes } from '../../../src/nmi/kernel/listener-notes.ts';
import { nativeModule, type FlowEnd } from '../../../src/redirect/native/addon.ts';
import { freePort } from '../../../lab/fabric/free-ports.ts';

let folder = '';
let made = 0;
before(() => {
  freshNative();
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-held-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const ignore = (): void => undefined;

async function openFixture() {
  const address: FlowEnd = { ip: '127.0.0.1', port: await freePort() };
  const path = join(folder, String((made += 1)), 'listener.sock');
  const openHolder = (agentsPath = path, handoverPath = '') =>
    openListenerHolder({
      address,
      agentsPath,
      handoverPath,
      clock: systemClock,
      log: { debug: ignore, info: ignore, warn: ignore, error: ignore },
      onSuccessor: () => Promise.resolve(),
      onSuccessorGone: ignore,
    });
  const tryListen = (): boolean => {
    try {
      closeSync(nativeModule().openListener(address.ip, address.port));
      return true;
    } catch {
      return false;
    }
  };
  return { address, path, openHolder, tryListen };
}

describe('the listening socket of another process', () => {
  it('is awaited until the holder has started', async () => {
    const { address, path, openHolder } = await openFixture();
    const taking = takeListener({ path, address }, new AbortController().signal);
    await delay(100);
    await using _holder = await openHolder();
    using held = await taking;
    assert.ok(held !== undefined);
    assert.deepEqual(nativeModule().listenerAddress(held.descriptor), address);
    assert.equal(held.isShared, false);
    closeSync(held.descriptor);
  });

  for (const which of ['before', 'after'] as const) {
    it(`is shared until the pod ${which} this one has ended`, async () => {
      const { address, path, openHolder } = await openFixture();
      const handoverPath = join(folder, String(made), 'handover.sock');
      const otherPath = join(folder, `${made}-other`, 'listener.sock');
      const openOther = () => openHolder(otherPath, handoverPath);
      const older = which === 'before' ? await openOther() : undefined;
      await older?.listen();
      await using _holder = await openHolder(path, handoverPath);
      const other = older ?? (await openOther());
      using held = await takeListener({ path, address });
      assert.ok(held !== undefined);
      assert.equal(held.isShared, true);
      let isAlone = false;
      void held.untilAlone.then(() => (isAlone = true));
      await delay(300);
      assert.equal(isAlone, false);
      await other[Symbol.asyncDispose]();
      await eventually(() => assert.ok(isAlone));
      closeSync(held.descriptor);
    });
  }

  it('is awaited while the holder cannot listen', async (t) => {
    const { address, path, openHolder } = await openFixture();
    const other = createServer().listen(address.port, address.ip);
    t.after(() => other.close());
    await once(other, 'listening');
    await using _holder = await openHolder();
    const taking = takeListener({ path, address });
    // Answered after the one above.
    const { note, connection } = await askHolder(nativeModule(), path);
    connection.destroy();
    assert.equal(note, notes.EADDRINUSE);
    other.close();
    using held = await taking;
    assert.ok(held !== undefined);
    closeSync(held.descriptor);
  });

  it('is awaited as long again from a holder that starts after half a minute', async (t) => {
    const { address, path, openHolder } = await openFixture();
    const now = performance.now.bind(performance);
    let aheadMs = 0;
    const clock = t.mock.method(performance, 'now', () => now() + aheadMs);
    const taking = takeListener({ path, address });
    await eventually(() => assert.ok(clock.mock.callCount() > 0));
    aheadMs = 31_000;
    mkdirSync(dirname(path));
    let answers = 0;
    await using starting = createServer({ pauseOnConnect: true }, (socket) => {
      nativeModule().sendNote(descriptorOf(socket), notes.failed);
      socket.destroy();
      answers += 1;
    }).listen(path);
    await eventually(() => assert.equal(answers, 2));
    starting.close();
    await using _holder = await openHolder();
    using held = await taking;
    assert.ok(held !== undefined);
    closeSync(held.descriptor);
  });

  it('is awaited for half a minute in vain', async (t) => {
    const { address, path } = await openFixture();
    const now = performance.now.bind(performance);
    t.mock.method(performance, 'now', () => now() * 100);
    await assert.rejects(takeListener({ path, address }), {
      name: 'ListenerError',
      code: 'ENOENT',
    });
  });

  it('is awaited for half a minute', async (t) => {
    const { address, path } = await openFixture();
    let nowMs = 0;
    t.mock.method(performance, 'now', () => (nowMs += 31_000));
    await assert.rejects(takeListener({ path, address }), {
      name: 'ListenerError',
      code: 'ENOENT',
    });
  });

  it('is no longer awaited once the signal aborts', async () => {
    const { address, path } = await openFixture();
    const stop = new AbortController();
    const taking = takeListener({ path, address }, stop.signal);
    stop.abort();
    assert.equal(await taking, undefined);
  });

  it('is passed to each holder that comes, one after the other', async (t) => {
    const { address, path, openHolder, tryListen } = await openFixture();
    let holder = await openHolder();
    t.after(() => holder[Symbol.asyncDispose]());
    using held = await takeListener({ path, address });
    assert.ok(held !== undefined);
    closeSync(held.descriptor);
    for (let count = 0; count < 2; count += 1) {
      await holder[Symbol.asyncDispose]();
      holder = await openHolder();
      await eventually(async () => {
        const { descriptor, connection } = await askHolder(nativeModule(), path);
        connection.destroy();
        assert.ok(descriptor !== undefined);
        closeSync(descriptor);
      });
    }
    held[Symbol.dispose]();
    await holder[Symbol.asyncDispose]();
    assert.equal(tryListen(), true);
  });

  it('is passed to the next holder, and to none after its release', async () => {
    const { address, path, openHolder, tryListen } = await openFixture();
    const first = await openHolder();
    const held = await takeListener({ path, address });
    assert.ok(held !== undefined);
    closeSync(held.descriptor);
    await first[Symbol.asyncDispose]();
    // This process has a spare one.
    assert.equal(tryListen(), false);
    await using _second = await openHolder();
    const again = await eventually(async () => {
      const taken = await takeListener({ path, address });
      assert.ok(taken !== undefined);
      return taken;
    });
    closeSync(again.descriptor);
    again[Symbol.dispose]();
    held[Symbol.dispose]();
    held[Symbol.dispose]();
    await _second[Symbol.asyncDispose]();
    assert.equal(tryListen(), true);
  });
});
