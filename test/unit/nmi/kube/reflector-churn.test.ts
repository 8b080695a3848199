import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { GrantIndex } from '../../../../src/cache/index/grant-index.ts';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../../../src/nmi/kube/watch/reflector.ts';
import { flatten, readWatchChunks } from '../../../../src/nmi/kube/api/watch-stream.ts';
import { usedHeap } from '../../../support/heap.ts';
import { keptLog } from './kube-test-bed.ts';

const events = 100_000;
const podsAtOnce = 110;

/** About as large as the kubelet and the scheduler make it. */
const managedFields = Array.from({ length: 4 }, (_, at) => ({
  manager: `manager-${at}`,
  operation: 'Update',
  apiVersion: 'v1',
  fieldsType: 'FieldsV1',
  fieldsV1: { 'f:status': { 'f:conditions': { 'k:{"type":"Ready"}': { 'f:status': {} } } } },
}));

function lineOf(type: string, serial: number, version: number): string {
  const ip = `10.${(serial >> 16) & 255}.${(serial >> 8) & 255}.${serial & 255}`;
  const object = {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: {
      name: `job-${serial}`,
      namespace: 'batch',
      uid: `uid-${serial}`,
      resourceVersion: `${version}`,
      labels: { aadpodidbinding: `demo-${serial % 7}` },
      managedFields,
    },
    spec: { nodeName: 'node-a', serviceAccountName: 'batch', containers: [{ name: 'app' }] },
    status: { phase: 'Running', podIP: ip, podIPs: [{ ip }] },
  };
  return `${JSON.stringify({ type, object })}\n`;
}

/** Each pod arrives, changes, and is deleted when the 110th after it has arrived. */
async function* churn(count: number, onEvent: (at: number) => Promise<void>) {
  const annotations = { 'k8s.io/initial-events-end': 'true' };
  const object = { metadata: { resourceVersion: '1', annotations } };
  yield Buffer.from(`${JSON.stringify({ type: 'BOOKMARK', object })}\n`);
  let version = 1;
  for (let serial = 0; version <= count; serial += 1) {
    const lines = [
      lineOf('ADDED', serial, (version += 1)),
      lineOf('MODIFIED', serial, (version += 1)),
    ];
    if (serial >= podsAtOnce) lines.push(lineOf('DELETED', serial - podsAtOnce, (version += 1)));
    yield Buffer.from(lines.join(''));
    await onEvent(version);
  }
}

describe('a reflector under churn', () => {
  it('is not larger after 100,000 events of pods than after 10,000', async (t) => {
    const pods = new PodIndex(systemClock);
    const grants = new GrantIndex(pods);
    const sizes: number[] = [];
    const over = Promise.withResolvers<undefined>();
    const startMs = performance.now();
    let nextSizeAt = events / 10;
    await using reflector = openReflector<Pod>({
      listsBy: 'stream',
      name: 'pods',
      path: '/api/v1/pods',
      parse: parsePod,
      store: pods,
      client: {
        getJson: () => Promise.reject(new KubeError('SERVER', 'not used')),
        async *watch(_path, { signal }) {
          const chunks = churn(events, async (at) => {
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
      random: Math.random,
      log: keptLog(),
    });
    await over.promise;
    const tookMs = performance.now() - startMs;
    t.diagnostic(`${Math.round((tookMs / events) * 1000)} us an event, checks included`);
    t.diagnostic(`heap in MB: ${sizes.map((bytes) => (bytes / 1e6).toFixed(2)).join(' ')}`);
    assert.equal(reflector.stats().objects, podsAtOnce);
    assert.deepEqual([pods.stats.pods, pods.stats.ips], [podsAtOnce, podsAtOnce]);
    assert.equal(grants.stats.boundPods, 0);
    assert.deepEqual(Object.values(reflector.stats().errorsByKind).filter(Boolean), []);
    const [early = 0] = sizes;
    const grown = Math.max(...sizes.slice(1)) - early;
    assert.ok(sizes.length === 10 && grown < 1_000_000, `${grown} bytes more`);
  });
});
