/** A thousand nodes and one API server, in simulated time: how they reconnect after a restart. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ObjectRef, ObjectStore } from '../../../../src/cache/index/objects.ts';
import type { WatchOptions } from '../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import type { KubeReader } from '../../../../src/nmi/kube/watch/reflector.ts';
import { openWatches, type Watches } from '../../../../src/nmi/kube/watch/watches.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { keptLog } from './kube-test-bed.ts';

const nodes = 1000;
const windowMs = 100;
const gone = { type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old' } };

interface Seen {
  readonly atMs: number;
  readonly resource: string;
  readonly kind: 'list' | 'resume';
}

/** A watch from a version before the last end of all watches is refused because that is too old. */
class HerdedServer {
  readonly seen: Seen[] = [];
  readonly #clock: HandClock;
  #failure: KubeError | undefined;
  #open = new Set<() => void>();
  #version = 1;

  constructor(clock: HandClock) {
    this.#clock = clock;
  }

  get watches(): number {
    return this.#open.size;
  }

  /** Ends all watches normally, as when a server is stopped or a load balancer moves them. */
  closeAll(): void {
    const open = this.#open;
    this.#version += 1;
    this.#open = new Set();
    for (const close of open) close();
  }

  failWith(failure: KubeError | undefined): void {
    this.#failure = failure;
  }

  reader(): KubeReader {
    return {
      getJson: (path) => this.#list(path),
      watch: (path, options) => this.#watch(path, options),
    };
  }

  async #list(path: string): Promise<unknown> {
    this.#see(path, 'list');
    await Promise.resolve();
    if (this.#failure !== undefined) throw this.#failure;
    return { metadata: this.#metadata, items: [] };
  }

  #see(path: string, kind: Seen['kind']): void {
    const { pathname } = new URL(path, 'http://herd');
    const resource = pathname.slice(pathname.lastIndexOf('/') + 1);
    this.seen.push({ atMs: this.#clock.monotonicMs(), resource, kind });
  }

  async *#watch(path: string, { onOpen, signal }: WatchOptions): AsyncGenerator {
    const { searchParams } = new URL(path, 'http://herd');
    const isList = searchParams.has('sendInitialEvents');
    const isKnown = searchParams.get('resourceVersion') === this.#metadata.resourceVersion;
    this.#see(path, isList ? 'list' : 'resume');
    await Promise.resolve();
    if (this.#failure !== undefined) throw this.#failure;
    onOpen?.();
    const annotations = { 'k8s.io/initial-events-end': 'true' };
    if (isList)
      yield { type: 'BOOKMARK', object: { metadata: { ...this.#metadata, annotations } } };
    else if (!isKnown) yield gone;
    await this.#closed(signal);
  }

  get #metadata() {
    return { resourceVersion: `${this.#version}` };
  }

  async #closed(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const close = (): void => {
      resolve(undefined);
    };
    this.#open.add(close);
    signal?.addEventListener('abort', close, { once: true });
    await promise;
    signal?.removeEventListener('abort', close);
    this.#open.delete(close);
  }
}

class NoStore implements ObjectStore<ObjectRef> {
  readonly size: number;

  constructor(size: number) {
    this.size = size;
  }

  replace(): void {}
  upsert(): void {}
  remove(): void {}
}

/** The same numbers in every run. */
function pseudoRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

interface HerdOptions {
  readonly nodes?: number;
  /** Of each custom kind; a hundredth of it are pods. */
  readonly objects?: number;
  /** Whether a request waits on the first node. */
  readonly isAwaited?: () => boolean;
}

async function openHerd(options: HerdOptions = {}) {
  const { objects = 0, isAwaited } = options;
  const clock = new HandClock();
  const server = new HerdedServer(clock);
  const random = pseudoRandom(4711);
  const store = new NoStore(objects);
  const stores = {
    pods: new NoStore(objects / 100),
    identities: store,
    bindings: store,
    exceptions: store,
    grants: store,
  };
  const herd: Watches[] = [];
  for (let node = 0; node < (options.nodes ?? nodes); node += 1) {
    const parts = { client: server.reader(), node: `n-${node}`, stores, log: keptLog() };
    const waits = node > 0 || isAwaited === undefined ? {} : { isAwaited };
    herd.push(openWatches({ ...parts, ...waits, clock, random }));
  }
  await Promise.all(herd.map((watches) => watches.whenSynced()));
  async function pass(ms: number, stepMs = 10): Promise<void> {
    for (let at = 0; at < ms; at += stepMs) {
      clock.advance(stepMs);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  // All are healthy.
  await pass(2000);
  server.seen.length = 0;
  return {
    clock,
    server,
    pass,
    /** A request begins to wait on the first node. */
    hurry: () => herd[0]?.hurry(),
    async [Symbol.asyncDispose]() {
      await Promise.all(herd.map((watches) => watches[Symbol.asyncDispose]()));
    },
  };
}

/** Most requests in any window, as a share of the nodes. */
function crowd(
  seen: readonly Seen[],
  resource: string,
  kind: Seen['kind'],
  window = windowMs,
): number {
  const times = seen
    .filter((one) => one.resource === resource && one.kind === kind)
    .map(({ atMs }) => atMs)
    .sort((one, other) => one - other);
  let most = 0;
  let first = 0;
  for (const [last, atMs] of times.entries()) {
    while (atMs - (times[first] ?? 0) >= window) first += 1;
    most = Math.max(most, last - first + 1);
  }
  return most / nodes;
}

function lastList(seen: readonly Seen[], resource: string): number {
  const lists = seen.filter((one) => one.resource === resource && one.kind === 'list');
  assert.equal(lists.length, nodes, `each node lists ${resource} once`);
  return Math.max(...lists.map(({ atMs }) => atMs));
}

const large = ['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'];

describe('a thousand nodes', () => {
  it('do not all list at once when all their versions expired at once', async (t) => {
    await using herd = await openHerd();
    const { server, clock, pass } = herd;
    const startMs = clock.monotonicMs();
    server.closeAll();
    await pass(4000);
    assert.equal(server.watches, 5 * nodes);
    assert.ok(lastList(server.seen, 'pods') - startMs <= 1000);
    const share = crowd(server.seen, 'pods', 'list');
    t.diagnostic(`pods: ${Math.round(share * 100)} % of the nodes within the worst 100 ms`);
    assert.ok(share < 0.25, `${share}`);
    for (const resource of large) {
      assert.ok(crowd(server.seen, resource, 'list') < 0.1);
      assert.ok(lastList(server.seen, resource) - startMs <= 2500);
    }
  });

  it('neither reconnect nor list all at once through a restart of the server', async (t) => {
    await using herd = await openHerd();
    const { server, clock, pass } = herd;
    server.failWith(new KubeError('NETWORK', 'refused'));
    server.closeAll();
    await pass(6000);
    const late = server.seen.filter(({ atMs }) => atMs > clock.monotonicMs() - 3000);
    t.diagnostic(`${Math.round(late.length / 3)} attempts a second while it is away`);
    assert.ok(late.length / 3 < 4000);
    for (const resource of ['pods', ...large]) assert.ok(crowd(late, resource, 'resume') < 0.35);

    const backAtMs = clock.monotonicMs();
    server.seen.length = 0;
    server.failWith(undefined);
    await pass(4000);
    assert.equal(server.watches, 5 * nodes);
    assert.ok(lastList(server.seen, 'pods') - backAtMs <= 1000);
    const share = crowd(server.seen, 'pods', 'list');
    t.diagnostic(`pods: ${Math.round(share * 100)} % of the nodes within the worst 100 ms`);
    assert.ok(share < 0.35, `${share}`);
    for (const resource of large) {
      assert.ok(crowd(server.seen, resource, 'list') < 0.12);
      assert.ok(lastList(server.seen, resource) - backAtMs <= 3000);
    }
  });

  it('do not all return at the same moment after the same Retry-After', async () => {
    await using herd = await openHerd();
    const { server, clock, pass } = herd;
    server.failWith(new KubeError('THROTTLED', 'slower', { status: 429, retryAfterMs: 1000 }));
    server.closeAll();
    await pass(10);
    server.failWith(undefined);
    const toldAtMs = clock.monotonicMs();
    await pass(5000);
    const resumed = server.seen.filter(({ atMs, kind }) => kind === 'resume' && atMs > toldAtMs);
    assert.ok(Math.min(...resumed.map(({ atMs }) => atMs)) - toldAtMs >= 980);
    assert.ok(crowd(resumed, 'pods', 'resume') < 0.5);
    assert.equal(server.watches, 5 * nodes);
  });

  it('list over a minute what has 20,000 objects, on a node with a waiting request at once', async (t) => {
    const few = 200;
    await using herd = await openHerd({ nodes: few, objects: 20_000 });
    const { server, clock, pass } = herd;
    const startMs = clock.monotonicMs();
    server.closeAll();
    await pass(3_000);
    const before = server.seen.filter(({ kind }) => kind === 'list').length;
    herd.hurry();
    await pass(10);
    const hurried = server.seen.filter(({ kind }) => kind === 'list').length - before;
    assert.ok(hurried >= 3 && hurried <= 10, `${hurried} lists when a request waits`);
    await pass(65_000, 50);
    assert.equal(server.watches, 5 * few);
    for (const resource of large) {
      const lists = server.seen.filter((one) => one.resource === resource && one.kind === 'list');
      assert.equal(lists.length, few);
      const share = (crowd(server.seen, resource, 'list', 1_000) * nodes) / few;
      t.diagnostic(
        `${resource}: ${Math.round(share * 100)} % of the nodes within the worst second`,
      );
      assert.ok(share < 0.08, `${share}`);
      const lastMs = Math.max(...lists.map(({ atMs }) => atMs)) - startMs;
      assert.ok(lastMs > 50_000 && lastMs <= 62_100, `${lastMs}`);
    }
    const pods = server.seen.filter((one) => one.resource === 'pods' && one.kind === 'list');
    assert.ok(Math.max(...pods.map(({ atMs }) => atMs)) - startMs <= 6_700);
  });

  it('try ever less often in a long outage, and every half second where a request waits', async (t) => {
    let isAwaited = false;
    const few = 100;
    await using herd = await openHerd({ nodes: few, isAwaited: () => isAwaited });
    const { server, clock, pass } = herd;
    server.failWith(new KubeError('NETWORK', 'refused'));
    server.closeAll();
    await pass(600_000, 100);
    server.seen.length = 0;
    await pass(60_000, 100);
    const perSec = server.seen.length / 60;
    t.diagnostic(`${(perSec / few).toFixed(2)} attempts a second from each node after ten minutes`);
    assert.ok(perSec / few < 0.3, `${perSec}`);
    isAwaited = true;
    herd.hurry();
    const waitingSinceMs = clock.monotonicMs();
    server.seen.length = 0;
    await pass(20_000);
    const { atMs } = server.seen[0] ?? { atMs: Infinity };
    assert.ok(atMs - waitingSinceMs <= 10, `${atMs - waitingSinceMs}`);
    const more = server.seen.length / 20 - perSec;
    assert.ok(more > 2 && more < 20, `${more} attempts a second more`);
    isAwaited = false;
    server.failWith(undefined);
    server.seen.length = 0;
    const backAtMs = clock.monotonicMs();
    await pass(35_000, 50);
    assert.equal(server.watches, 5 * few);
    const pods = server.seen.filter((one) => one.resource === 'pods' && one.kind === 'list');
    assert.ok(Math.max(...pods.map(({ atMs: listedAtMs }) => listedAtMs)) - backAtMs <= 31_000);
    assert.ok((crowd(server.seen, 'pods', 'list', 1_000) * nodes) / few < 0.35);
  });
});
