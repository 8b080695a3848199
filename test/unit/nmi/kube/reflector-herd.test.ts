/** A thousand nodes and one API server, in simulated time: how they reconnect after a restart. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import type { KubeReader } from '../../../../src/nmi/kube/watch/reflector.ts';
import { openWatches } from '../../../../src/nmi/kube/watch/watches.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { keptLog } from './kube-test-bed.ts';

const nodes = 1000;
const large = ['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'];
const gone = { type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old' } };
const refused = new KubeError('NETWORK', 'refused');

interface Seen {
  readonly atMs: number;
  readonly resource: string;
  readonly kind: 'list' | 'resume';
}

/** A watch from a version before the last end of all watches is refused because that is too old. */
function createServer(clock: HandClock) {
  const seen: Seen[] = [];
  let open = new Set<() => void>();
  let version = 1;
  const metadata = () => ({ resourceVersion: `${version}` });
  const server = {
    seen,
    failure: undefined as KubeError | undefined,
    watches: () => open.size,
    /** Ends all watches normally, as when a server is stopped or a load balancer moves them. */
    closeAll: (): void => {
      const closed = open;
      version += 1;
      open = new Set();
      for (const close of closed) close();
    },
  };
  async function receive(path: string, kind: Seen['kind']): Promise<void> {
    const [resource = ''] = path.split('/').at(-1)?.split('?') ?? [];
    seen.push({ atMs: clock.monotonicMs(), resource, kind });
    await Promise.resolve();
    if (server.failure !== undefined) throw server.failure;
  }
  const client: KubeReader = {
    async getJson(path) {
      await receive(path, 'list');
      return { metadata: metadata(), items: [] };
    },
    async *watch(path, { onOpen, signal }) {
      const { searchParams } = new URL(path, 'http://herd');
      const isList = searchParams.has('sendInitialEvents');
      const isKnown = searchParams.get('resourceVersion') === metadata().resourceVersion;
      await receive(path, isList ? 'list' : 'resume');
      onOpen?.();
      const annotations = { 'k8s.io/initial-events-end': 'true' };
      if (isList) yield { type: 'BOOKMARK', object: { metadata: { ...metadata(), annotations } } };
      else if (!isKnown) yield gone;
      const { promise, resolve } = Promise.withResolvers<void>();
      open.add(resolve);
      signal?.addEventListener('abort', () => resolve(), { once: true });
      await promise;
      open.delete(resolve);
    },
  };
  return { ...server, server, client };
}

/** The same numbers in every run. */
function pseudoRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/**
 * Healthy nodes.
 * @param objects of each custom kind; a hundredth of it are pods.
 * @param isAwaited whether a request waits on the first node.
 */
async function openHerd(count = nodes, objects = 0, isAwaited?: () => boolean) {
  const clock = new HandClock();
  const { server, client, seen, closeAll, watches } = createServer(clock);
  const random = pseudoRandom(4711);
  const ignore = (): void => undefined;
  const storeOf = (size: number) => ({ size, replace: ignore, upsert: ignore, remove: ignore });
  const [pods, custom] = [storeOf(objects / 100), storeOf(objects)];
  const kinds = { identities: custom, bindings: custom, exceptions: custom, grants: custom };
  const parts = { client, stores: { pods, ...kinds }, log: keptLog(), clock, random };
  const herd = Array.from({ length: count }, (_, node) =>
    openWatches({
      ...parts,
      node: `n-${node}`,
      ...(node === 0 && isAwaited !== undefined ? { isAwaited } : {}),
    }),
  );
  await Promise.all(herd.map((each) => each.whenSynced()));
  async function pass(ms: number, stepMs = 10): Promise<void> {
    for (let at = 0; at < ms; at += stepMs) {
      clock.advance(stepMs);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  await pass(2000);
  seen.length = 0;
  const timesOf = (resource: string, kind: Seen['kind'], sinceMs = 0): readonly number[] =>
    seen
      .filter((one) => one.resource === resource && one.kind === kind && one.atMs > sinceMs)
      .map(({ atMs }) => atMs)
      .sort((one, other) => one - other);
  return {
    server,
    seen,
    closeAll,
    pass,
    nowMs: () => clock.monotonicMs(),
    allWatch: () => assert.equal(watches(), 5 * count),
    /** A request begins to wait on the first node. */
    hurry: () => herd[0]?.hurry(),
    /** Each node lists this once; the time of the last one. */
    lastListMs: (resource: string): number => {
      const times = timesOf(resource, 'list');
      assert.equal(times.length, count, `each node lists ${resource} once`);
      return times.at(-1) ?? NaN;
    },
    /** Most requests in any window, as a share of the nodes. */
    crowd: (resource: string, kind: Seen['kind'], windowMs = 100, sinceMs = 0): number => {
      const times = timesOf(resource, kind, sinceMs);
      let [most, first] = [0, 0];
      for (const [last, atMs] of times.entries()) {
        while (atMs - (times[first] ?? 0) >= windowMs) first += 1;
        most = Math.max(most, last - first + 1);
      }
      return most / count;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(herd.map((each) => each[Symbol.asyncDispose]()));
    },
  };
}

function below(limit: number, value: number, what = ''): void {
  assert.ok(value < limit, `${what} ${value}, not below ${limit}`);
}

describe('a thousand nodes', () => {
  it('do not all list at once when all their versions expired at once', async () => {
    await using herd = await openHerd();
    const { pass, crowd, lastListMs } = herd;
    const startMs = herd.nowMs();
    herd.closeAll();
    await pass(4000);
    herd.allWatch();
    below(1001, lastListMs('pods') - startMs);
    below(0.25, crowd('pods', 'list'));
    for (const resource of large) {
      below(0.1, crowd(resource, 'list'));
      below(2501, lastListMs(resource) - startMs);
    }
  });

  it('neither reconnect nor list all at once through a restart of the server', async () => {
    await using herd = await openHerd();
    const { server, seen, pass, crowd, lastListMs } = herd;
    server.failure = refused;
    herd.closeAll();
    await pass(6000);
    const lateMs = herd.nowMs() - 3000;
    below(4000, seen.filter(({ atMs }) => atMs > lateMs).length / 3, 'attempts a second');
    for (const resource of ['pods', ...large]) below(0.35, crowd(resource, 'resume', 100, lateMs));

    const backAtMs = herd.nowMs();
    seen.length = 0;
    server.failure = undefined;
    await pass(4000);
    herd.allWatch();
    below(1001, lastListMs('pods') - backAtMs);
    below(0.35, crowd('pods', 'list'));
    for (const resource of large) {
      below(0.12, crowd(resource, 'list'));
      below(3001, lastListMs(resource) - backAtMs);
    }
  });

  it('do not all return at the same moment after the same Retry-After', async () => {
    await using herd = await openHerd();
    const { server, seen, pass, crowd } = herd;
    server.failure = new KubeError('THROTTLED', 'slower', { status: 429, retryAfterMs: 1000 });
    herd.closeAll();
    await pass(10);
    server.failure = undefined;
    const toldAtMs = herd.nowMs();
    await pass(5000);
    const resumed = seen.filter(({ atMs, kind }) => kind === 'resume' && atMs > toldAtMs);
    assert.ok(Math.min(...resumed.map(({ atMs }) => atMs)) - toldAtMs >= 980);
    below(0.5, crowd('pods', 'resume', 100, toldAtMs));
    herd.allWatch();
  });

  it('list over a minute what has 20,000 objects, on a node with a waiting request at once', async () => {
    await using herd = await openHerd(200, 20_000);
    const { seen, pass, crowd, lastListMs } = herd;
    const startMs = herd.nowMs();
    herd.closeAll();
    await pass(3_000);
    const lists = (): number => seen.filter(({ kind }) => kind === 'list').length;
    const before = lists();
    herd.hurry();
    await pass(10);
    const hurried = lists() - before;
    assert.ok(hurried >= 3 && hurried <= 10, `${hurried} lists when a request waits`);
    await pass(65_000, 50);
    herd.allWatch();
    for (const resource of large) {
      below(0.08, crowd(resource, 'list', 1_000));
      const lastMs = lastListMs(resource) - startMs;
      assert.ok(lastMs > 50_000 && lastMs <= 62_100, `${lastMs}`);
    }
    below(6_701, lastListMs('pods') - startMs);
  });

  it('try ever less often in a long outage, and every half second where a request waits', async () => {
    let isAwaited = false;
    const few = 100;
    await using herd = await openHerd(few, 0, () => isAwaited);
    const { server, seen, pass, crowd, lastListMs } = herd;
    server.failure = refused;
    herd.closeAll();
    await pass(600_000, 100);
    seen.length = 0;
    await pass(60_000, 100);
    const perSec = seen.length / 60;
    below(0.3, perSec / few, 'attempts a second from each node');
    isAwaited = true;
    herd.hurry();
    const waitingSinceMs = herd.nowMs();
    seen.length = 0;
    await pass(20_000);
    below(11, (seen[0]?.atMs ?? Infinity) - waitingSinceMs);
    const more = seen.length / 20 - perSec;
    assert.ok(more > 2 && more < 20, `${more} attempts a second more`);
    isAwaited = false;
    server.failure = undefined;
    seen.length = 0;
    const backAtMs = herd.nowMs();
    await pass(35_000, 50);
    herd.allWatch();
    below(31_001, lastListMs('pods') - backAtMs);
    below(0.35, crowd('pods', 'list', 1_000));
  });
});
