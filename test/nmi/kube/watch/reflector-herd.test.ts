/** A thousand nodes and one API server, in simulated time: how they reconnect after a restart. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ObjectRef, ObjectStore } from '../../../../src/cache/index/objects.ts';
import type { WatchOptions } from '../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import type { KubeReader } from '../../../../src/nmi/kube/watch/reflector.ts';
import { openWatches, type Watches } from '../../../../src/nmi/kube/watch/watches.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { keptLog } from '../kube-test-bed.ts';

const nodes = 1000;
const windowMs = 100;
const bookmark = {
  type: 'BOOKMARK',
  object: {
    metadata: { resourceVersion: '1', annotations: { 'k8s.io/initial-events-end': 'true' } },
  },
};
const gone = { type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old' } };

interface Seen {
  readonly atMs: number;
  readonly resource: string;
  readonly kind: 'list' | 'resume';
}

/** Every resumed watch is refused because its version is too old. */
class HerdedServer {
  readonly seen: Seen[] = [];
  readonly #clock: HandClock;
  #failure: KubeError | undefined;
  #open = new Set<() => void>();

  constructor(clock: HandClock) {
    this.#clock = clock;
  }

  get watches(): number {
    return this.#open.size;
  }

  /** Ends all watches normally, as when a server is stopped or a load balancer moves them. */
  closeAll(): void {
    const open = this.#open;
    this.#open = new Set();
    for (const close of open) close();
  }

  failWith(failure: KubeError | undefined): void {
    this.#failure = failure;
  }

  reader(): KubeReader {
    return {
      getJson: () => Promise.reject(new KubeError('SERVER', 'lists are streams here')),
      watch: (path, options) => this.#watch(path, options),
    };
  }

  async *#watch(path: string, { onOpen, signal }: WatchOptions): AsyncGenerator {
    const { pathname, searchParams } = new URL(path, 'http://herd');
    const isList = searchParams.has('sendInitialEvents');
    const resource = pathname.slice(pathname.lastIndexOf('/') + 1);
    const kind = isList ? 'list' : 'resume';
    this.seen.push({ atMs: this.#clock.monotonicMs(), resource, kind });
    await Promise.resolve();
    if (this.#failure !== undefined) throw this.#failure;
    onOpen?.();
    yield isList ? bookmark : gone;
    await this.#closed(signal);
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
  readonly size = 0;
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

async function openHerd() {
  const clock = new HandClock();
  const server = new HerdedServer(clock);
  const random = pseudoRandom(4711);
  const store = new NoStore();
  const stores = {
    pods: store,
    identities: store,
    bindings: store,
    exceptions: store,
    grants: store,
  };
  const herd: Watches[] = [];
  for (let node = 0; node < nodes; node += 1) {
    const client = server.reader();
    herd.push(openWatches({ client, node: `n-${node}`, stores, log: keptLog(), clock, random }));
  }
  await Promise.all(herd.map((watches) => watches.whenSynced()));
  async function pass(ms: number): Promise<void> {
    for (let at = 0; at < ms; at += 10) {
      clock.advance(10);
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
    async [Symbol.asyncDispose]() {
      await Promise.all(herd.map((watches) => watches[Symbol.asyncDispose]()));
    },
  };
}

/** Most requests in any window, as a share of the nodes. */
function crowd(seen: readonly Seen[], resource: string, kind: Seen['kind']): number {
  const times = seen
    .filter((one) => one.resource === resource && one.kind === kind)
    .map(({ atMs }) => atMs)
    .sort((one, other) => one - other);
  let most = 0;
  let first = 0;
  for (const [last, atMs] of times.entries()) {
    while (atMs - (times[first] ?? 0) >= windowMs) first += 1;
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
});
