/**
 * A process that only watches like the agent, so that its size is the size of the watches:
 * `watching-process.ts KUBECONFIG NODE stream|pages`. Prints its measurements once it is synced.
 */
import { systemClock } from '../../../src/base/time/clock.ts';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import { OwnerIndex } from '../../../src/cache/index/owner-index.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { openKubeClient, type KubeClient } from '../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import { openWatches } from '../../../src/nmi/kube/watch/watches.ts';
import { keptLog } from '../../unit/nmi/kube/kube-test-bed.ts';
import { usedHeap } from '../../support/heap.ts';

export interface Watched {
  readonly tookMs: number;
  readonly cpuMs: number;
  readonly pods: number;
  readonly identities: number;
  readonly bindings: number;
  /** Of live objects, after a full garbage collection. */
  readonly heapBytes: number;
  /** Highest so far, minus that of the process before its first request. */
  readonly peakBytes: number;
  /** Longest time in which the event loop was blocked. */
  readonly longestStallMs: number;
}

const [kubeconfigPath = '', node = '', listBy = 'stream'] = process.argv.slice(2);
await using opened = await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1' });
const client = listBy === 'pages' ? refusingStreams(opened) : opened;
const pods = new PodIndex(systemClock);
const grants = new GrantIndex(pods);
const { identities, bindings, exceptions } = grants;
const heapBefore = await usedHeap();
const peakBefore = peakBytes();
const cpuBefore = process.cpuUsage();
const startMs = performance.now();
let longestStallMs = 0;
let lastTickMs = startMs;
const ticks = setInterval(() => {
  const nowMs = performance.now();
  longestStallMs = Math.max(longestStallMs, nowMs - lastTickMs);
  lastTickMs = nowMs;
}, 1);
await using watches = openWatches({
  client,
  node,
  log: keptLog(),
  stores: { pods, identities, bindings, exceptions, grants: new OwnerIndex().grants },
});
await watches.whenSynced();
clearInterval(ticks);
const tookMs = performance.now() - startMs;
const cpu = process.cpuUsage(cpuBefore);
const watched: Watched = {
  tookMs,
  longestStallMs,
  cpuMs: (cpu.user + cpu.system) / 1000,
  pods: pods.stats.pods,
  identities: grants.stats.identities,
  bindings: grants.stats.bindings,
  peakBytes: peakBytes() - peakBefore,
  heapBytes: (await usedHeap()) - heapBefore,
};
console.log(JSON.stringify(watched));

function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

function refusingStreams(all: KubeClient): KubeClient {
  return {
    ...all,
    async *watch(path, options) {
      if (path.includes('sendInitialEvents')) {
        throw new KubeError('SERVER', 'no streams', { status: 422 });
      }
      yield* all.watch(path, options);
    },
  };
}
