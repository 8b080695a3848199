import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { GrantIndex } from '../../../../src/cache/index/grant-index.ts';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { flatten, readWatchChunks } from '../../../../src/nmi/kube/api/watch-stream.ts';
import { parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../../../src/nmi/kube/watch/reflector.ts';
import { isWithin, sizeOfThisRun } from '../../../runner/kinds.ts';
import { usedHeap } from '../../../support/heap.ts';
import {
  clientBy,
  countingClock,
  eventually,
  keptLog,
  kubeconfigOf,
  MapStore,
} from './kube-test-bed.ts';

const ofPods = {
  listsBy: 'stream',
  name: 'pods',
  path: '/api/v1/pods',
  parse: parsePod,
  random: Math.random,
} as const;

function lineOf(type: string, object: object): string {
  return `${JSON.stringify({ type, object })}\n`;
}

const annotations = { 'k8s.io/initial-events-end': 'true' };
const listEnd = lineOf('BOOKMARK', { metadata: { resourceVersion: '1', annotations } });

const events = 100_000;
const podsAtOnce = 110;

function rawJob(serial: number, version: number) {
  const ip = `10.${(serial >> 16) & 255}.${(serial >> 8) & 255}.${serial & 255}`;
  const metadata = { name: `job-${serial}`, namespace: 'batch', uid: `uid-${serial}` };
  const labels = { aadpodidbinding: `demo-${serial % 7}` };
  return {
    metadata: { ...metadata, resourceVersion: `${version}`, labels },
    spec: { nodeName: 'node-a', serviceAccountName: 'batch', containers: [{ name: 'app' }] },
    status: { phase: 'Running', podIP: ip, podIPs: [{ ip }] },
  };
}

/** Each pod arrives, changes, and is deleted when the 110th after it has arrived. */
async function* churn(onEvent: (at: number) => Promise<void>) {
  yield Buffer.from(listEnd);
  let version = 1;
  for (let serial = 0; version <= events; serial += 1) {
    const lines = [
      lineOf('ADDED', rawJob(serial, (version += 1))),
      lineOf('MODIFIED', rawJob(serial, (version += 1))),
    ];
    const old = serial - podsAtOnce;
    if (old >= 0) lines.push(lineOf('DELETED', rawJob(old, (version += 1))));
    yield Buffer.from(lines.join(''));
    await onEvent(version);
  }
}

const event = lineOf('MODIFIED', {
  metadata: { name: 'p', namespace: 'n', uid: 'u', resourceVersion: '7' },
  status: { phase: 'Running', podIP: '10.0.0.1' },
});
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
      response.end(event + listEnd);
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

const reconnects = isWithin('long', sizeOfThisRun()) ? 10_000 : 2_500;
/** Longest time without a reconnect. How long all of them take depends on the machine. */
const stallMs = 60_000;

describe('a reflector', () => {
  it('is not larger after 100,000 events of pods than after 10,000', async (t) => {
    const pods = new PodIndex(systemClock);
    const grants = new GrantIndex(pods);
    const sizes: number[] = [];
    const over = Promise.withResolvers<undefined>();
    let nextSizeAt = events / 10;
    await using reflector = openReflector<Pod>({
      ...ofPods,
      store: pods,
      client: {
        getJson: () => Promise.reject(new KubeError('SERVER', 'not used')),
        async *watch(_path, { signal }) {
          const chunks = churn(async (at) => {
            if (at < nextSizeAt) return;
            nextSizeAt += events / 10;
            sizes.push(await usedHeap());
          });
          yield* flatten(readWatchChunks(chunks, () => undefined));
          over.resolve(undefined);
          await new Promise((resolve) => signal?.addEventListener('abort', resolve));
        },
      },
      clock: systemClock,
      log: keptLog(),
    });
    await over.promise;
    t.diagnostic(`heap in MB: ${sizes.map((bytes) => (bytes / 1e6).toFixed(2)).join(' ')}`);
    assert.equal(reflector.stats().objects, podsAtOnce);
    assert.deepEqual([pods.stats.pods, pods.stats.ips], [podsAtOnce, podsAtOnce]);
    assert.equal(grants.stats.boundPods, 0);
    assert.deepEqual(Object.values(reflector.stats().errorsByKind).filter(Boolean), []);
    const [early = 0] = sizes;
    const grown = Math.max(...sizes.slice(1)) - early;
    assert.ok(sizes.length === 10 && grown < 1_000_000, `${grown} bytes more`);
  });

  it(`has as many sockets and timers, and as much heap, after ${reconnects} watches`, async (t) => {
    await using server = await openRestlessServer();
    const clock = countingClock();
    await using client = await clientBy(kubeconfigOf(server.url), clock);
    const eager = { baseMs: 0.1, capMs: 0.2 };
    const store = new MapStore<Pod>();
    const { lines, ...log } = keptLog();
    const timing = { backoff: eager, outage: eager, relistJitterMs: 1 };
    await using reflector = openReflector<Pod>({ ...ofPods, store, client, clock, log, timing });
    const openSockets = (): number =>
      process.getActiveResourcesInfo().filter((kind) => kind.startsWith('TCP')).length;
    /** The heap while one watch is open, and no other connection is about to end. */
    const measure = async (): Promise<number> => {
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
    };
    const restarted = async (times: number): Promise<void> => {
      let [before, atMs] = [0, performance.now()];
      for (;;) {
        const { restarts } = reflector.stats();
        if (restarts >= times) return;
        if (restarts > before) [before, atMs] = [restarts, performance.now()];
        assert.ok(performance.now() - atMs < stallMs, `${restarts} only`);
        lines.length = 0;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    await restarted(reconnects / 10);
    const early = await measure();
    await restarted(reconnects);
    const late = await measure();
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
