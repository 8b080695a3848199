import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { kubeletConnector, openKubeletPassing } from '../../../src/nmi/kernel/kubelet-socket.ts';
import { askHolder, notes } from '../../../src/nmi/kernel/listener-notes.ts';
import { watchKubelet } from '../../../src/nmi/kube/kubelet/pods-api.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { eventMessage, openFakeKubelet } from '../kube/kubelet/fake-kubelet.ts';

let folder = '';
let made = 0;
before(() => {
  freshNative();
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-passing-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const never = new AbortController().signal;

async function open() {
  await using stack = new AsyncDisposableStack();
  const kubelet = stack.use(await openFakeKubelet());
  made += 1;
  const callerSocket = join(folder, String(made), 'callers.sock');
  stack.use(await openKubeletPassing(callerSocket, kubelet.path));
  const path = join(folder, String(made), 'kubelet.sock');
  const owned = stack.move();
  return { kubelet, callerSocket, path, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

describe('a connection to the kubelet', () => {
  for (const isSplit of [true, false]) {
    it(`serves calls, ${isSplit ? 'passed on by the other container' : 'made here'}`, async () => {
      await using bed = await open();
      for (let call = 0; call < 2; call++) {
        const messages = watchKubelet(
          kubeletConnector(bed.callerSocket, isSplit, bed.kubelet.path),
          never,
        );
        assert.deepEqual((await messages.next()).value, eventMessage('end'));
        await messages.return();
      }
      assert.equal(bed.kubelet.calls.length, 2);
    });

    it(`is reported if the kubelet is away${isSplit ? ' from the other container' : ''}`, async () => {
      await using bed = await open();
      await bed.kubelet.stop();
      const connector = kubeletConnector(bed.callerSocket, isSplit, bed.kubelet.path);
      const call = watchKubelet(connector, never);
      const text = isSplit ? /nmi redirect run cannot connect to the kubelet/ : /ENOENT/;
      await assert.rejects(call.next(), text);
    });
  }

  it('is reported if the other container is away', async () => {
    const callerSocket = join(folder, 'nobody', 'callers.sock');
    await assert.rejects(kubeletConnector(callerSocket, true)(), /cannot connect to .*ENOENT/);
  });

  it('is not passed to who says nothing, and a descriptor that is sent along is closed', async () => {
    await using bed = await open();
    const silent = Array.from({ length: 6 }, () => connect({ path: bed.path }));
    // The server takes four at once.
    const closed = silent.map((socket: Socket) => once(socket.resume(), 'close'));
    await Promise.all(closed);
    const { note, descriptor, connection } = await askHolder(nativeModule(), bed.path, 0);
    assert.equal(note, notes.alone);
    assert.ok(descriptor !== undefined);
    connection.destroy();
    await eventually(() => assert.equal(bed.kubelet.calls.length, 0), 1_000);
  });
});
