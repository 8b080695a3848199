/**
 * Keeps one store equal to one collection of the Kubernetes API: list, then watch, forever.
 *
 * 1. One loop: at most one list or watch is open at any time, and only a dispose ends the loop.
 * 2. A relist is one `store.replace`; until then the store keeps what it has, however long the
 *    server is away.
 * 3. A broken watch resumes from the last version seen. A version the server has forgotten, a line
 *    that makes no sense, or an exception in the store asks for a new list.
 * 4. A clean close reopens at once; everything else waits with jitter, and at least as long as the
 *    server asked for.
 * 5. A connection without a byte for `silenceMs` is dead; bookmarks (about one a minute) keep a
 *    healthy one from looking so.
 * 6. Failures are logged when they begin, change and end, and counted always.
 */
import type { Clock } from '../../cache/clock.ts';
import type { ObjectRef, ObjectStore } from '../../cache/objects.ts';
import { backoffMs, type Backoff } from './backoff.ts';
import type { WatchOptions } from './client.ts';
import { pause } from './deadline.ts';
import type { JsonRecord } from '../json-value.ts';
import { KubeError, type KubeErrorCode } from './kube-error.ts';
import { listPages, type JsonReader } from './list-pages.ts';
import type { Parse } from './parse.ts';
import { readWatchEvent } from './watch-event.ts';

/** The logger as far as it is used here; pino's fits. */
export interface KubeLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** The client as far as it is used here. */
export interface KubeReader extends JsonReader {
  watch(path: string, options: WatchOptions): AsyncIterable<unknown>;
}

/** `INTERNAL`: an exception in the store or in a listener, contained here. */
export type ReflectorErrorCode = KubeErrorCode | 'INTERNAL';

export type ReflectorState =
  | { readonly kind: 'listing' }
  | { readonly kind: 'watching' }
  | { readonly kind: 'waiting'; readonly code: ReflectorErrorCode; readonly delayMs: number };

export interface ReflectorTiming {
  readonly backoff: Backoff;
  /** Spread of the first relist after an expired version, against a whole cluster relisting at once. */
  readonly relistJitterMs: number;
  /** A watch that lived this long ends a row of failures. */
  readonly healthyMs: number;
  /** Longest time without a byte on an open watch. */
  readonly silenceMs: number;
  /** Bounds between which the server is asked to end each watch, in seconds. */
  readonly watchSeconds: readonly [least: number, most: number];
  readonly listTimeoutMs: number;
  /** Waits a random part of this before the first list. */
  readonly startJitterMs: number;
}

const defaultReflectorTiming: ReflectorTiming = {
  backoff: { baseMs: 200, capMs: 10_000 },
  relistJitterMs: 800,
  healthyMs: 1000,
  // Bookmarks come every 60 to 75 s; one may be late.
  silenceMs: 120_000,
  watchSeconds: [240, 480],
  listTimeoutMs: 60_000,
  startJitterMs: 0,
};

export interface ReflectorOptions<T extends ObjectRef> {
  /** For logs and metrics, e.g. `pods`. */
  readonly name: string;
  /** Collection path without query. */
  readonly path: string;
  /** Selectors, e.g. `{ fieldSelector: 'spec.nodeName=x' }`. */
  readonly query?: Readonly<Record<string, string>>;
  readonly parse: Parse<T>;
  readonly store: ObjectStore<T>;
  readonly client: KubeReader;
  readonly clock: Clock;
  /** 0 up to 1. */
  readonly random: () => number;
  readonly log: KubeLog;
  readonly onState?: (state: ReflectorState) => void;
  readonly timing?: Partial<ReflectorTiming>;
  /** Items per list page. */
  readonly pageSize?: number;
}

export interface ReflectorStats {
  readonly syncedOnce: boolean;
  /** Since the server was last heard, or since opening when it never was. */
  readonly lastContactAgeMs: number;
  /** Lists after the first successful one. */
  readonly relists: number;
  /** Watches opened after the first one. */
  readonly restarts: number;
  readonly errors: Readonly<Record<ReflectorErrorCode, number>>;
  /** Objects in the store. */
  readonly objects: number;
  /** Versions of objects that were skipped as unusable. */
  readonly rejected: number;
}

export interface Reflector extends AsyncDisposable {
  readonly name: string;
  /** The store has held a complete list at least once. */
  readonly synced: boolean;
  /** Rejects with an AbortError when disposed before. */
  whenSynced(): Promise<void>;
  stats(): ReflectorStats;
}

/** What the loop does after each kind of failure. */
const afterFailure = {
  NOT_FOUND: 'resume',
  GONE: 'relist',
  UNAUTHORIZED: 'resume',
  FORBIDDEN: 'resume',
  THROTTLED: 'resume',
  SERVER: 'resume',
  NETWORK: 'resume',
  TIMEOUT: 'resume',
  MALFORMED: 'relist',
  CONFIG: 'resume',
  INTERNAL: 'relist',
} as const satisfies Record<ReflectorErrorCode, 'resume' | 'relist'>;

/** Starts the loop. Never throws and never rejects but on a broken invariant. */
export function openReflector<T extends ObjectRef>(options: ReflectorOptions<T>): Reflector {
  const { name, path, query = {}, parse, store, client, clock, random, log } = options;
  const { pageSize = 500 } = options;
  const timing: ReflectorTiming = { ...defaultReflectorTiming, ...options.timing };

  const stop = new AbortController();
  const synced = Promise.withResolvers<undefined>();
  // Nobody has to wait for it.
  synced.promise.catch(() => undefined);

  /** Where to watch from; `undefined` asks for a list. */
  let version: string | undefined;
  /** The paged snapshot expired once: ask for one page of everything next time. */
  let unpaged = false;
  let syncedOnce = false;
  let contactAtMs = clock.monotonicMs();
  let lists = 0;
  let watches = 0;
  let rejected = 0;
  /** Failures in a row. */
  let failures = 0;
  /** Watches in a row that closed cleanly but too early. */
  let quickCloses = 0;
  /** The failure last logged, while it lasts. */
  let failing: ReflectorErrorCode | undefined;
  /** What the store holds, by uid. */
  const known = new Set<string>();
  /** Unusable objects by uid, with the reason last logged. */
  const skipped = new Map<string, string>();
  const errors: Record<ReflectorErrorCode, number> = {
    NOT_FOUND: 0,
    GONE: 0,
    UNAUTHORIZED: 0,
    FORBIDDEN: 0,
    THROTTLED: 0,
    SERVER: 0,
    NETWORK: 0,
    TIMEOUT: 0,
    MALFORMED: 0,
    CONFIG: 0,
    INTERNAL: 0,
  };

  function enter(state: ReflectorState): void {
    try {
      options.onState?.(state);
    } catch (err) {
      errors.INTERNAL += 1;
      log.error({ err, resource: name }, 'watch state listener failed');
    }
  }

  function heard(): void {
    contactAtMs = clock.monotonicMs();
  }

  async function list(): Promise<void> {
    enter({ kind: 'listing' });
    const items: T[] = [];
    const unusable = new Set<string>();
    const request = {
      path,
      query,
      pageSize: unpaged ? 0 : pageSize,
      // Memory is good enough to begin with; a relist has to be newer than what expired.
      version: lists === 0 ? '0' : '',
    };
    const call = { signal: stop.signal, timeoutMs: timing.listTimeoutMs };
    const listed = await listPages(client, request, call, (page) => {
      heard();
      for (const raw of page) {
        const parsed = parse(raw);
        if (parsed.ok) items.push(parsed.value);
        else unusable.add(skip(parsed.ref, parsed.reason));
      }
    });
    store.replace(items);
    known.clear();
    for (const item of items) known.add(item.uid);
    for (const uid of skipped.keys()) if (!unusable.has(uid)) skipped.delete(uid);
    version = listed;
    unpaged = false;
    lists += 1;
    if (syncedOnce) return;
    syncedOnce = true;
    log.info({ resource: name, objects: known.size }, 'watch synced');
    synced.resolve(undefined);
  }

  /** The uid it is remembered under, so that it is logged once. */
  function skip(ref: ObjectRef | undefined, reason: string): string {
    rejected += 1;
    const uid = ref?.uid ?? '';
    if (skipped.get(uid) !== reason) {
      skipped.set(uid, reason);
      log.warn({ resource: name, object: ref, reason }, 'unusable object skipped');
    }
    return uid;
  }

  async function watch(from: string): Promise<void> {
    watches += 1;
    const openedAtMs = clock.monotonicMs();
    let disarm: (() => void) | undefined;
    const [least, most] = timing.watchSeconds;
    const search = new URLSearchParams({
      ...query,
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: from,
      timeoutSeconds: String(Math.round(least + random() * (most - least))),
    });
    try {
      const events = client.watch(`${path}?${search.toString()}`, {
        signal: stop.signal,
        silenceMs: timing.silenceMs,
        onOpen: () => {
          heard();
          disarm = clock.schedule(timing.healthyMs, recovered);
          enter({ kind: 'watching' });
        },
      });
      for await (const raw of events) {
        heard();
        apply(raw);
      }
    } finally {
      disarm?.();
    }
    await afterCleanClose(clock.monotonicMs() - openedAtMs);
  }

  function apply(raw: unknown): void {
    const event = readWatchEvent(raw);
    switch (event.kind) {
      case 'error':
        throw event.error;
      case 'changed':
        changed(event.object);
        break;
      case 'deleted':
        deleted(event.object);
        break;
      case 'bookmark':
        break;
    }
    version = event.version;
  }

  function changed(object: JsonRecord): void {
    const parsed = parse(object);
    if (parsed.ok) {
      store.upsert(parsed.value);
      known.add(parsed.value.uid);
      skipped.delete(parsed.value.uid);
      return;
    }
    skip(parsed.ref, parsed.reason);
    // What it was before must not go on granting.
    if (parsed.ref !== undefined) forget(parsed.ref);
  }

  function deleted(object: JsonRecord): void {
    const parsed = parse(object);
    const ref = parsed.ok ? parsed.value : parsed.ref;
    if (ref === undefined) throw new KubeError('MALFORMED', 'a deleted object has no name');
    forget(ref);
    skipped.delete(ref.uid);
  }

  function forget(ref: ObjectRef): void {
    store.remove(ref);
    known.delete(ref.uid);
  }

  /** A server that closes every watch as soon as it is open must not be asked in a tight loop. */
  async function afterCleanClose(livedMs: number): Promise<void> {
    quickCloses = livedMs >= timing.healthyMs ? 0 : quickCloses + 1;
    if (quickCloses <= 1) return;
    const gentle = { baseMs: timing.backoff.baseMs, capMs: Math.min(1000, timing.backoff.capMs) };
    await pause(clock, backoffMs(gentle, quickCloses - 1, random()), stop.signal);
  }

  function recovered(): void {
    if (failing !== undefined) log.info({ resource: name, failures }, 'watch recovered');
    failures = 0;
    quickCloses = 0;
    failing = undefined;
  }

  async function failed(error: unknown): Promise<void> {
    const code = error instanceof KubeError ? error.code : 'INTERNAL';
    errors[code] += 1;
    failures += 1;
    // A refused version is answered 400 by some servers; only a list gives a new one.
    const badRequest = error instanceof KubeError && error.status === 400;
    if (version === undefined) unpaged ||= code === 'GONE';
    else if (badRequest || afterFailure[code] === 'relist') version = undefined;
    const delayMs =
      code === 'GONE' && failures === 1
        ? random() * timing.relistJitterMs
        : backoffMs(
            timing.backoff,
            failures,
            random(),
            error instanceof KubeError ? error.retryAfterMs : undefined,
          );
    report(code, error, delayMs);
    enter({ kind: 'waiting', code, delayMs });
    await pause(clock, delayMs, stop.signal);
  }

  function report(code: ReflectorErrorCode, err: unknown, delayMs: number): void {
    const fields = { resource: name, code, err, failures, retryInMs: Math.round(delayMs) };
    if (failing === code) {
      log.debug(fields, 'watch still failing');
      return;
    }
    failing = code;
    if (code === 'GONE') log.info(fields, 'watch version expired, listing again');
    else if (code === 'NOT_FOUND') log.error(fields, 'resource type is not installed, retrying');
    else if (code === 'INTERNAL') log.error(fields, 'exception in a watch handler, listing again');
    else log.warn(fields, 'watch failed, retrying');
  }

  async function run(): Promise<void> {
    if (timing.startJitterMs > 0) {
      await pause(clock, random() * timing.startJitterMs, stop.signal);
    }
    while (!stop.signal.aborted) {
      try {
        if (version === undefined) await list();
        else await watch(version);
      } catch (error) {
        if (isStopped()) return;
        await failed(error);
      }
    }
  }

  /** A call, because the compiler takes the loop's own check to hold across an `await`. */
  function isStopped(): boolean {
    return stop.signal.aborted;
  }

  const running = run();
  return {
    name,
    get synced() {
      return syncedOnce;
    },
    whenSynced: () => synced.promise,
    stats: () => ({
      syncedOnce,
      lastContactAgeMs: clock.monotonicMs() - contactAtMs,
      relists: Math.max(0, lists - 1),
      restarts: Math.max(0, watches - 1),
      errors: { ...errors },
      objects: known.size,
      rejected,
    }),
    async [Symbol.asyncDispose]() {
      stop.abort();
      synced.reject(new DOMException(`the watch of ${name} was stopped`, 'AbortError'));
      await running;
    },
  };
}
