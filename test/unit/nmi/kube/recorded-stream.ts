/**
 * A recorded watch, which is replayed to a reflector and can be broken anywhere. Its store checks
 * every step against the recording: after each step, its content must be a state that the server
 * had, and never an earlier state than before.
 */
import assert from 'node:assert/strict';
import type { Clock } from '../../../../src/base/time/clock.ts';
import type { ObjectRef, ObjectStore } from '../../../../src/cache/index/objects.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { flatten, readWatchChunks } from '../../../../src/nmi/kube/api/watch-stream.ts';
import { openReflector } from '../../../../src/nmi/kube/watch/reflector.ts';
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
  /** The objects at the start of the recording. */
  readonly before: readonly RawObject[];
  readonly version: string;
  /** Lines of the watch from there on, without their newlines. */
  readonly lines: readonly string[];
}

/** The source of the list, which determines what can be cut. */
export type ListBy = 'pages' | 'stream';

/** An object and its version. */
interface Versioned extends ObjectRef {
  readonly version: string;
}

/** The bytes of one connection, which includes the list (by stream) or begins after it (by pages). */
export function streamBytes({ before, version, lines }: Recording, listBy: ListBy): Buffer {
  const annotations = { 'k8s.io/initial-events-end': 'true' };
  const initial = [
    ...before.map((object) => ({ type: 'ADDED', object })),
    { type: 'BOOKMARK', object: { metadata: { resourceVersion: version, annotations } } },
  ].map((line) => JSON.stringify(line));
  return bytesOf([...(listBy === 'stream' ? initial : []), ...lines]);
}

/**
 * Runs a reflector through the recording with its first connection cut after `cutAt` bytes. Rejects
 * with the error found. Resolves to the number of lists that it needed.
 */
export async function replayCut(
  recording: Recording,
  listBy: ListBy,
  cutAt: number,
): Promise<number> {
  const moments = momentsOf(recording);
  const store = new WatchedStore(moments);
  const done = Promise.withResolvers<undefined>();
  let [connections, lists] = [0, 0];
  await using reflector = openReflector<Versioned>({
    name: 'recorded',
    path: '/recorded',
    parse: (raw) => ({ ok: true, value: versionedOf(raw as RawObject), texts: 0 }),
    store,
    client: {
      getJson() {
        lists += 1;
        const metadata = { resourceVersion: recording.version };
        return Promise.resolve({ metadata, items: recording.before });
      },
      async *watch(path, { onOpen, signal }) {
        const isFirst = (connections += 1) === 1;
        const from = new URL(path, 'http://recorded').searchParams.get('resourceVersion');
        if (from === null) lists += 1;
        onOpen?.();
        const chunks = chunksOf(bytesAfter(recording, from), isFirst ? cutAt : undefined);
        yield* flatten(readWatchChunks(chunks, () => undefined));
        if (isFirst) return;
        done.resolve(undefined);
        if (signal?.aborted === true) return;
        await new Promise((resolve) => signal?.addEventListener('abort', resolve));
      },
    },
    clock: hastyClock,
    random: () => 0.5,
    log: keptLog(),
    timing: { backoff: soon, outage: soon, relistJitterMs: 1 },
    listsBy: listBy,
  });
  await Promise.race([done.promise, store.broken.promise]);
  assert.equal(store.moment, moments.length - 1, 'the store has the state of the server');
  const { outage, ...others } = reflector.stats().errorsByKind;
  assert.ok(outage <= 1);
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
    return () => clearImmediate(immediate);
  },
};

async function* chunksOf(bytes: Buffer, cutAt: number | undefined): AsyncGenerator<Uint8Array> {
  await Promise.resolve();
  const end = cutAt ?? bytes.length;
  // In two pieces, so that a cut inside a piece and at its end both occur.
  const middle = end >> 1;
  yield bytes.subarray(0, middle);
  yield bytes.subarray(middle, end);
  // The other half of the cuts looks like a normal end.
  if (cutAt !== undefined && cutAt % 2 === 0) throw new KubeError('NETWORK', 'cut on purpose');
}

function bytesAfter(recording: Recording, from: string | null): Buffer {
  if (from === null) return streamBytes(recording, 'stream');
  const versionOf = (line: string) => Number(parseLine(line).object.metadata.resourceVersion);
  return bytesOf(recording.lines.filter((line) => versionOf(line) > Number(from)));
}

function bytesOf(lines: readonly string[]): Buffer {
  return Buffer.from(lines.map((line) => `${line}\n`).join(''));
}

function parseLine(line: string): { readonly type: string; readonly object: RawObject } {
  return JSON.parse(line) as ReturnType<typeof parseLine>;
}

function versionedOf({ metadata }: RawObject): Versioned {
  const { name, namespace = '', uid, resourceVersion } = metadata;
  return { namespace, name, uid, version: resourceVersion };
}

/** The content after each line that changes it, in order; the first is the initial content. */
function momentsOf({ before, lines }: Recording): readonly string[] {
  const content = new Map(before.map((object) => [object.metadata.name, versionedOf(object)]));
  const moments = [render(content)];
  for (const { type, object } of lines.map(parseLine)) {
    if (type === 'BOOKMARK') continue;
    if (type === 'DELETED') content.delete(object.metadata.name);
    else content.set(object.metadata.name, versionedOf(object));
    moments.push(render(content));
  }
  return moments;
}

function render(content: ReadonlyMap<string, Versioned>): string {
  const objects = Array.from(
    content.values(),
    (each) => `${each.name} ${each.uid} ${each.version}`,
  );
  return objects.sort().join('\n');
}

class WatchedStore implements ObjectStore<Versioned> {
  readonly #moments: readonly string[];
  readonly #content = new Map<string, Versioned>();
  /** Rejects when the store had a state that does not follow its previous one on the server. */
  readonly broken = Promise.withResolvers<never>();
  /** Index of the current state in the recording; -1 before the first list. */
  moment = -1;

  constructor(moments: readonly string[]) {
    this.#moments = moments;
    this.broken.promise.catch(() => undefined);
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
    const [next, is] = [this.moment + 1, render(this.#content)];
    if (this.#moments[next] === is) this.moment = next;
    else this.broken.reject(new Error(`after ${what} the store is\n${is}\nbut not moment ${next}`));
  }
}
