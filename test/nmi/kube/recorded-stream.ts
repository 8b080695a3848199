/**
 * A recorded watch, replayed to a reflector and broken anywhere. The store that comes with it holds
 * every step against the recording: after each it has to be what the server had at some moment, and
 * never an earlier moment than before.
 */
import assert from 'node:assert/strict';
import type { Clock } from '../../../src/cache/clock.ts';
import type { ObjectRef, ObjectStore } from '../../../src/cache/index/objects.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import type { Parsed } from '../../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../../src/nmi/kube/watch/reflector.ts';
import { flatten, readWatchChunks } from '../../../src/nmi/kube/api/watch-stream.ts';
import { keptLog } from './kube-test-bed.ts';

export interface RawObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly [field: string]: unknown;
  };
  readonly [field: string]: unknown;
}

export interface Recording {
  /** What there was where the recording begins. */
  readonly before: readonly RawObject[];
  readonly version: string;
  /** Lines of the watch from there on, without their newlines. */
  readonly lines: readonly string[];
}

/** Where the list comes from, and so what can be cut. */
export type ListBy = 'pages' | 'stream';

/** An object and the moment it is of. */
interface Versioned extends ObjectRef {
  readonly version: string;
}

interface Line {
  readonly type: string;
  readonly object: RawObject;
}

/** Bytes of one connection that lists by the stream, or begins after the list. */
export function streamBytes(recording: Recording, listBy: ListBy): Buffer {
  const initial = listBy === 'stream' ? initialLines(recording) : [];
  return Buffer.from([...initial, ...recording.lines].map((line) => `${line}\n`).join(''));
}

/**
 * Lets a reflector live through the recording with its first connection cut after `cutAt` bytes,
 * and rejects with what is wrong. Resolves to the number of lists it took.
 */
export async function replayCut(
  recording: Recording,
  listBy: ListBy,
  cutAt: number,
): Promise<number> {
  const moments = momentsOf(recording);
  const store = new WatchedStore(moments);
  const done = Promise.withResolvers<undefined>();
  let connections = 0;
  let lists = 0;
  await using reflector = openReflector<Versioned>({
    name: 'recorded',
    path: '/recorded',
    parse: parseVersioned,
    store,
    client: {
      getJson() {
        lists += 1;
        return Promise.resolve({
          metadata: { resourceVersion: recording.version },
          items: recording.before,
        });
      },
      async *watch(path, { onOpen, signal }) {
        connections += 1;
        const isFirst = connections === 1;
        const from = new URL(path, 'http://recorded').searchParams.get('resourceVersion');
        if (from === null) lists += 1;
        onOpen?.();
        const chunks = chunksOf(bytesAfter(recording, from), isFirst ? cutAt : undefined);
        yield* flatten(readWatchChunks(chunks, () => undefined));
        if (isFirst) return;
        done.resolve(undefined);
        await ended(signal);
      },
    },
    clock: hastyClock,
    random: () => 0.5,
    log: keptLog(),
    timing: { backoff: soon, outage: soon, relistJitterMs: 1 },
    server: serverThat(listBy),
  });
  await Promise.race([done.promise, store.broken]);
  assert.equal(store.moment, moments.length - 1, 'the store is what the server has');
  const { NETWORK, ...others } = reflector.stats().errors;
  assert.ok(NETWORK <= 1);
  assert.deepEqual(Object.values(others).filter(Boolean), []);
  return lists;
}

const soon = { baseMs: 1, capMs: 1 };

/** Short waits end in the next turn, long ones never: nothing here takes a second. */
const hastyClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  schedule(delayMs, work) {
    if (delayMs > 100) return () => undefined;
    const immediate = setImmediate(work);
    return () => {
      clearImmediate(immediate);
    };
  },
};

function serverThat(listBy: ListBy) {
  return {
    streamsLists: listBy === 'stream',
    refuseStreams() {
      throw new Error('nobody refused');
    },
    notifyRecovery: () => undefined,
    onRecovery: () => () => undefined,
  };
}

async function ended(signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined || signal.aborted) return;
  await new Promise((resolve) => {
    signal.addEventListener('abort', resolve, { once: true });
  });
}

async function* chunksOf(bytes: Buffer, cutAt: number | undefined): AsyncGenerator<Uint8Array> {
  await Promise.resolve();
  const end = cutAt ?? bytes.length;
  // In two pieces, so that a cut inside a piece and at its end both occur.
  const middle = end >> 1;
  yield bytes.subarray(0, middle);
  yield bytes.subarray(middle, end);
  // The other half of the cuts looks like an end in good order.
  if (cutAt !== undefined && cutAt % 2 === 0) throw new KubeError('NETWORK', 'cut on purpose');
}

function bytesAfter(recording: Recording, from: string | null): Buffer {
  if (from === null) return streamBytes(recording, 'stream');
  const rest = recording.lines.filter((line) => Number(versionOf(parseLine(line))) > Number(from));
  return Buffer.from(rest.map((line) => `${line}\n`).join(''));
}

function initialLines({ before, version }: Recording): string[] {
  const annotations = { 'k8s.io/initial-events-end': 'true' };
  return [
    ...before.map((object) => ({ type: 'ADDED', object })),
    { type: 'BOOKMARK', object: { metadata: { resourceVersion: version, annotations } } },
  ].map((line) => JSON.stringify(line));
}

function parseLine(line: string): Line {
  return JSON.parse(line) as Line;
}

function versionOf({ object }: Line): string {
  return object.metadata.resourceVersion;
}

function parseVersioned(raw: unknown): Parsed<Versioned> {
  const { metadata } = raw as RawObject;
  const { name, namespace = '', uid, resourceVersion } = metadata;
  return { ok: true, value: { namespace, name, uid, version: resourceVersion } };
}

/** The content after each line that changes it, in order; the first is what there was before. */
function momentsOf({ before, lines }: Recording): readonly string[] {
  const content = new Map<string, Versioned>();
  const put = (object: RawObject): void => {
    const parsed = parseVersioned(object);
    if (parsed.ok) content.set(parsed.value.name, parsed.value);
  };
  for (const object of before) put(object);
  const moments = [render(content.values())];
  for (const line of lines.map(parseLine)) {
    if (line.type === 'BOOKMARK') continue;
    if (line.type === 'DELETED') content.delete(line.object.metadata.name);
    else put(line.object);
    moments.push(render(content.values()));
  }
  return moments;
}

function render(objects: Iterable<Versioned>): string {
  return [...objects]
    .map(({ name, uid, version }) => `${name} ${uid} ${version}`)
    .sort()
    .join('\n');
}

class WatchedStore implements ObjectStore<Versioned> {
  readonly #moments: readonly string[];
  readonly #content = new Map<string, Versioned>();
  readonly #broken = Promise.withResolvers<never>();
  /** Index of the moment that the store is of; -1 before the first list. */
  moment = -1;

  constructor(moments: readonly string[]) {
    this.#moments = moments;
    this.#broken.promise.catch(() => undefined);
  }

  /** Rejects when the store was something that the server never had after what it was before. */
  get broken(): Promise<never> {
    return this.#broken.promise;
  }

  get size(): number {
    return this.#content.size;
  }
  replace(items: readonly Versioned[]): void {
    this.#content.clear();
    for (const item of items) this.#content.set(item.name, item);
    this.#step('a list');
  }
  upsert(item: Versioned): void {
    this.#content.set(item.name, item);
    this.#step(`${item.name} of version ${item.version}`);
  }
  remove({ name }: ObjectRef): void {
    this.#content.delete(name);
    this.#step(`the end of ${name}`);
  }

  /** One event is one step: it can be neither lost nor repeated. */
  #step(what: string): void {
    const next = this.moment + 1;
    if (this.#moments[next] === render(this.#content.values())) {
      this.moment = next;
      return;
    }
    const is = render(this.#content.values());
    this.#broken.reject(new Error(`after ${what} the store is\n${is}\nbut not moment ${next}`));
  }
}
