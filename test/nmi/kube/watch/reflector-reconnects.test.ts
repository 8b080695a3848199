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
import { usedHeap } from '../../../support/heap.ts';
import { countingClock, eventually, keptLog, MapStore, temporaryDir } from '../kube-test-bed.ts';

const reconnects = 10_000;
const maxMs = 120_000;

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

/** Ends every watch as soon as it is open. */
async function openRestlessServer() {
  let served = 0;
  const server = createServer((request, response) => {
    served += 1;
    if (request.url?.includes('sendInitialEvents')) {
      response.write(event + listEnd, () => response.end());
    } else {
      endings[served % endings.length]?.(response);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
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
  it('has as many sockets and timers, and as much heap, after 10,000 of them', async (t) => {
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
    async function measure(): Promise<{ sockets: number; timers: number; heap: number }> {
      lines.length = 0;
      store.replaced.length = 0;
      const heap = await usedHeap();
      return { sockets: openSockets(), timers: clock.armed, heap };
    }
    async function restarted(times: number): Promise<void> {
      const startMs = performance.now();
      while (reflector.stats().restarts < times) {
        assert.ok(performance.now() - startMs < maxMs, `${reflector.stats().restarts} only`);
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
    t.diagnostic(`heap ${(early.heap / 1e6).toFixed(2)} MB, then ${(late.heap / 1e6).toFixed(2)}`);
    assert.equal(store.items.size, 1);
    // Each side of a connection that is just ending, and the listening socket.
    assert.ok(late.sockets <= Math.max(early.sockets, 7), `${late.sockets} sockets`);
    assert.ok(late.timers <= Math.max(early.timers, 3), `${late.timers} timers`);
    // Compiled code varies by a megabyte; one leaked socket per connection would be 20 MB.
    assert.ok(late.heap - early.heap < 3_000_000, `${late.heap - early.heap} bytes more`);
    const { errors } = reflector.stats();
    assert.ok(errors.NETWORK > reconnects / 3);
    assert.equal(errors.INTERNAL + errors.MALFORMED, 0);
    await reflector[Symbol.asyncDispose]();
    await eventually('no timer is left', () => clock.armed === 0);
  });
});
