import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { openKubeClient } from '../../../../src/nmi/kube/api/client.ts';
import { parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../../../src/nmi/kube/watch/reflector.ts';
import { isWithin, sizeOfThisRun } from '../../../runner/kinds.ts';
import { usedHeap } from '../../../support/heap.ts';
import { countingClock, eventually, keptLog, MapStore, temporaryDir } from './kube-test-bed.ts';

const reconnects = isWithin('long', sizeOfThisRun()) ? 10_000 : 2_500;
/** Longest time without a reconnect. How long all of them take depends on the machine. */
const stallMs = 60_000;

const pod = {
  metadata: { name: 'p', namespace: 'n', uid: 'u', resourceVersion: '7' },
  status: { phase: 'Running', podIP: '10.0.0.1' },
};
const event = `${JSON.stringify({ type: 'MODIFIED', object: pod })}\n`;
const listEnd = `${JSON.stringify({
  type: 'BOOKMARK',
  object: {
    metadata: { resourceVersion: '7', annotations: { 'k8s.io/initial-events-end': 'true' } },
  },
})}\n`;

/** The possible ends of a watch. */
const endings: readonly ((response: ServerResponse) => void)[] = [
  (response) => response.end(event),
  (response) => response.write(event, () => response.socket?.resetAndDestroy()),
  (response) => response.write(event.slice(0, 50), () => response.socket?.destroy()),
  (response) => response.end(event.slice(0, 50)),
  (response) => response.socket?.resetAndDestroy(),
];

/** Ends every watch as soon as it is open, except while it rests. */
async function openRestlessServer() {
  let served = 0;
  let isResting = false;
  const open = new Set<ServerResponse>();
  const server = createServer((request, response) => {
    served += 1;
    if (isResting) {
      response.flushHeaders();
      open.add(response);
    } else if (request.url?.includes('sendInitialEvents')) {
      response.write(event + listEnd, () => response.end());
    } else {
      endings[served % endings.length]?.(response);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** Leaves the next watch open. */
    rest: () => (isResting = true),
    isWatched: () => open.size === 1,
    goOn: () => {
      isResting = false;
      for (const response of open) response.end();
      open.clear();
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

const openSockets = (): number =>
  process.getActiveResourcesInfo().filter((kind) => kind.startsWith('TCP')).length;

describe('a reflector with watches that all end at once', () => {
  it(`has as many sockets and timers, and as much heap, after ${reconnects} of them`, async (t) => {
    await using server = await openRestlessServer();
    await using folder = await temporaryDir();
    const kubeconfigPath = join(folder.path, 'config');
    const config = {
      clusters: [{ name: 'c', cluster: { server: server.url } }],
      users: [{ name: 'u', user: {} }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'c',
    };
    await writeFile(kubeconfigPath, JSON.stringify(config));
    const clock = countingClock();
    await using client = await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1', clock });
    const eager = { baseMs: 0.1, capMs: 0.2 };
    const store = new MapStore<Pod>();
    const { lines, ...log } = keptLog();
    await using reflector = openReflector<Pod>({
      listsBy: 'stream',
      name: 'pods',
      path: '/api/v1/pods',
      parse: parsePod,
      store,
      client,
      clock,
      log,
      random: Math.random,
      timing: { backoff: eager, outage: eager, relistJitterMs: 1 },
    });
    /** The heap while one watch is open, and no other connection is about to end. */
    async function measure(): Promise<number> {
      server.rest();
      await eventually('one watch stays open', () => server.isWatched());
      // Each side of its connection and of one that is kept for later, and the listening socket.
      await eventually('no other socket is open', () => openSockets() <= 5);
      await eventually('no other timer is armed', () => clock.armed <= 3);
      lines.length = 0;
      store.replaced.length = 0;
      const heap = await usedHeap();
      server.goOn();
      return heap;
    }
    async function restarted(times: number): Promise<void> {
      let [before, atMs] = [0, performance.now()];
      for (;;) {
        const { restarts } = reflector.stats();
        if (restarts >= times) return;
        if (restarts > before) [before, atMs] = [restarts, performance.now()];
        assert.ok(performance.now() - atMs < stallMs, `${restarts} only`);
        lines.length = 0;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }

    await restarted(reconnects / 10);
    const early = await measure();
    const startMs = performance.now();
    await restarted(reconnects);
    const tookMs = performance.now() - startMs;
    const late = await measure();
    t.diagnostic(`${((tookMs / reconnects) * (10 / 9)).toFixed(2)} ms each`);
    t.diagnostic(`heap ${(early / 1e6).toFixed(2)} MB, then ${(late / 1e6).toFixed(2)}`);
    assert.equal(store.items.size, 1);
    // Compiled code varies by a megabyte; one leaked socket per connection would be 2 kB each.
    assert.ok(late - early < 3_000_000, `${late - early} bytes more`);
    const { errorsByKind: errors } = reflector.stats();
    assert.ok(errors.outage > reconnects / 3);
    assert.equal(errors.exception + errors.refusal, 0);
    await reflector[Symbol.asyncDispose]();
    await eventually('no timer is left', () => clock.armed === 0);
  });
});
