/**
 * Keeps one store equal to one collection of the Kubernetes API: list, then watch, forever.
 *
 * 1. One loop: at most one list or watch is open at any time, and only a dispose ends the loop.
 * 2. A relist is one `store.replace`; until then the store keeps what it has, however long the
 *    server is away.
 * 3. A list is a stream that goes on as the watch, one object in memory at a time; page by page
 *    where the server has no such streams.
 * 4. A broken watch resumes from the last version seen. A version the server has forgotten, a line
 *    that makes no sense, or an exception in the store asks for a new list.
 * 5. A clean close reopens at once; everything else waits with jitter, and as long as the server
 *    asked for.
 * 6. A watch without a byte for `silenceMs` is replaced, for it may be dead. Bookmarks, one a
 *    minute, keep most from being silent. Whoever misses an object may doubt a watch sooner.
 * 7. Failures are logged when they begin, change and end, and counted always.
 */
import type { Clock } from '../../../cache/clock.ts';
import type { ObjectRef, ObjectStore } from '../../../cache/index/objects.ts';
import { backoffMs, type Backoff } from '../api/backoff.ts';
import type { WatchOptions } from '../api/client.ts';
import { pause } from '../../base/deadline.ts';
import { createIntake, type Gathering } from './decoder.ts';
import { KubeError } from '../api/kube-error.ts';
import { listPages, type JsonReader } from '../api/list-pages.ts';
import type { Parse } from './parse.ts';
import {
  errorsByKind,
  noErrors,
  remedyOf,
  type ErrorKind,
  type Remedy,
  type ReflectorErrorCode,
} from './remedy.ts';
import { createServerMemory, type ServerMemory } from './server-memory.ts';
import { asRecord } from '../../base/json-value.ts';
import { readWatchEvent, versionOf } from '../api/watch-event.ts';

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

export type ReflectorState =
  | { readonly kind: 'listing' }
  | { readonly kind: 'watching' }
  | { readonly kind: 'waiting'; readonly code: ReflectorErrorCode; readonly delayMs: number };

export interface ReflectorTiming {
  /** After a refusal, which somebody has to end. */
  readonly backoff: Backoff;
  /** While the server cannot be reached or is not well. */
  readonly outage: Backoff;
  /** Spread of a relist after an expired version, against a whole cluster relisting at once. */
  readonly relistJitterMs: number;
  /** A watch that lived this long ends a row of failures. */
  readonly healthyMs: number;
  /** Longest time without a byte on an open watch; up to a quarter of it more, by chance. */
  readonly silenceMs: number;
  /** A watch in doubt is replaced unless it brings a byte within this time. */
  readonly doubtMs: number;
  /** Doubts sooner after the last one are not listened to. */
  readonly doubtEveryMs: number;
  /** Bounds between which the server is asked to end each watch, in seconds. */
  readonly watchSeconds: readonly [least: number, most: number];
  readonly listTimeoutMs: number;
  /** Waits a random part of this before the first list. */
  readonly startJitterMs: number;
}

const defaultReflectorTiming: ReflectorTiming = {
  backoff: { baseMs: 200, capMs: 10_000 },
  outage: { baseMs: 200, capMs: 10_000 },
  relistJitterMs: 2_000,
  healthyMs: 1000,
  // Measured: bookmarks come 60 s apart, by the server's source up to 75 s. But none comes while
  // the server's version of the resource is that which the watch began with: in a quiet cluster
  // whose etcd does not report progress, silence is health, and must cost no more than a resume.
  silenceMs: 80_000,
  // Events are there within some milliseconds of the change, on a loaded server some tens.
  doubtMs: 300,
  doubtEveryMs: 5_000,
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
  /** Items per page of a list that is not a stream. */
  readonly pageSize?: number;
  /**
   * The first of such lists comes from the server's memory and in one piece: for pods of one node
   * an indexed look-up instead of a scan of the cluster's pods.
   */
  readonly listsFromMemory?: boolean;
  /** Shared by all reflectors of one server; default one of its own. */
  readonly server?: ServerMemory;
}

export interface ReflectorStats {
  readonly syncedOnce: boolean;
  /** Since the server was last heard, or since opening when it never was. */
  readonly lastContactAgeMs: number;
  /**
   * Since the last proof that the store is current: an event, a bookmark, a whole list, a watch
   * that ended in good order, or one that had nothing to tell for `healthyMs` after it was opened.
   * Since opening when there was none. Up to 101 s while all is well and nothing happens.
   */
  readonly stalenessMs: number;
  /** Lists after the first successful one. */
  readonly relists: number;
  /** Watches opened after the first one. */
  readonly restarts: number;
  /** Watches replaced because they were silent. */
  readonly silences: number;
  readonly errors: Readonly<Record<ReflectorErrorCode, number>>;
  readonly errorsByKind: Readonly<Record<ErrorKind, number>>;
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
  /**
   * Somebody misses an object. An open watch that stays silent for `doubtMs` from now on is
   * replaced, and a wait for the end of an outage ends.
   */
  doubt(): void;
  stats(): ReflectorStats;
}

/** Starts the loop. Never throws and never rejects but on a broken invariant. */
const silencesToDoubt = 2;

export function openReflector<T extends ObjectRef>(options: ReflectorOptions<T>): Reflector {
  const { name, path, query = {}, client, clock, random, log } = options;
  const { pageSize = 500, listsFromMemory = false, server = createServerMemory() } = options;
  const timing: ReflectorTiming = { ...defaultReflectorTiming, ...options.timing };

  const stop = new AbortController();
  /** Ends what is under way, after which the loop goes on. */
  let step = new AbortController();
  /** What may be ended so: an open watch, or the wait for the end of an outage. */
  let idle: 'watching' | 'waiting' | undefined;
  const synced = Promise.withResolvers<undefined>();
  // Nobody has to wait for it.
  synced.promise.catch(() => undefined);
  const intake = createIntake({
    parse: options.parse,
    store: options.store,
    onSkip: (ref, reason) => {
      log.warn({ resource: name, object: ref, reason }, 'unusable object skipped');
    },
  });

  /** Where to watch from; `undefined` asks for a list. */
  let version: string | undefined;
  /** The paged snapshot expired once: ask for one page of everything next time. */
  let unpaged = false;
  let syncedOnce = false;
  let contactAtMs = clock.monotonicMs();
  let provenAtMs = contactAtMs;
  let replacedAtMs = -Infinity;
  let endDoubt: (() => void) | undefined;
  let lists = 0;
  let watches = 0;
  let silences = 0;
  /** Watches in a row that brought not even a bookmark. */
  let silencesInRow = 0;
  let isVersionInDoubt = false;
  /** Failures in a row of one pace. */
  let failures = 0;
  let pace: Remedy['pace'] | undefined;
  /** The server could not be reached or was not well when last asked. */
  let isAway = false;
  /** How long the last wait was; 0 when it was cut short. It was random, too. */
  let waitedMs = 0;
  /** Watches in a row that closed cleanly but too early. */
  let quickCloses = 0;
  /** The failure last logged, while it lasts. */
  let failing: ReflectorErrorCode | undefined;
  const errors = noErrors();

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

  /** The store is as new as what was just heard. */
  function proven(): void {
    heard();
    provenAtMs = contactAtMs;
  }

  async function listByPages(): Promise<void> {
    enter({ kind: 'listing' });
    const gathering = intake.gather();
    const request = {
      path,
      query,
      pageSize: unpaged ? 0 : pageSize,
      // A relist has to be newer than what expired, and memory could be older.
      version: listsFromMemory && lists === 0 ? '0' : '',
    };
    const call = { signal: step.signal, timeoutMs: timing.listTimeoutMs };
    const listed = await listPages(client, request, call, (page) => {
      heard();
      for (const item of page) gathering.put(item);
    });
    listedAll(gathering, listed);
    answered();
  }

  function listedAll(gathering: Gathering, listed: string): void {
    gathering.commit();
    proven();
    version = listed;
    unpaged = false;
    lists += 1;
    if (syncedOnce) return;
    syncedOnce = true;
    log.info({ resource: name, objects: intake.objects }, 'watch synced');
    synced.resolve(undefined);
  }

  /** From a version, or from nothing: then with all there is first, as a list. */
  async function watch(from: string | undefined): Promise<void> {
    let gathering = from === undefined ? intake.gather() : undefined;
    if (gathering !== undefined) enter({ kind: 'listing' });
    const openedAtMs = clock.monotonicMs();
    let isOpen = false;
    let disarm: (() => void) | undefined;
    function watching(): void {
      watches += 1;
      answered();
      disarm = clock.schedule(timing.healthyMs, recovered);
      idle = 'watching';
      enter({ kind: 'watching' });
    }
    try {
      const events = client.watch(watchPath(from), {
        signal: step.signal,
        silenceMs: timing.silenceMs * (1 + random() / 4),
        onOpen: () => {
          isOpen = true;
          heard();
          if (gathering === undefined) watching();
        },
      });
      for await (const raw of events) {
        if (gathering === undefined) {
          apply(raw);
          continue;
        }
        const progress = gather(gathering, raw);
        if (progress === 'more') continue;
        if (progress === 'unmarked') {
          refuseStreams('it does not say where the list ends');
          return;
        }
        gathering = undefined;
        watching();
      }
    } catch (error) {
      if (gathering === undefined) {
        if (!isOpen || !isTimeout(error)) throw error;
        silences += 1;
        stayedSilent();
        log.debug({ resource: name }, 'watch is silent, opening another');
        return;
      }
      const refusal = refusalOfStream(error, isOpen);
      if (refusal === undefined) throw error;
      refuseStreams(refusal);
      return;
    } finally {
      idle = undefined;
      disarm?.();
    }
    if (gathering !== undefined) throw new KubeError('NETWORK', 'the list ended too early');
    proven();
    await afterCleanClose(clock.monotonicMs() - openedAtMs);
  }

  /** Until its time, or until somebody doubted it. */
  function stayedSilent(): void {
    silencesInRow += 1;
    isVersionInDoubt = silencesInRow % silencesToDoubt === 0;
  }

  /**
   * A server restored from a backup knows lower versions than ours; it opens a watch from one it
   * has not reached, and stays silent until it has. So a silence that lasts is asked about.
   */
  async function doubtVersion(): Promise<void> {
    const call = { signal: step.signal, timeoutMs: timing.listTimeoutMs };
    const search = new URLSearchParams({ ...query, limit: '1' });
    const page = asRecord(await client.getJson(`${path}?${search.toString()}`, call));
    const newest = page === undefined ? '' : versionOf(page);
    if (version === undefined || !isBefore(newest, version)) return;
    log.warn({ resource: name, newest, version }, 'the server has gone back, listing again');
    version = undefined;
  }

  function refuseStreams(reason: string): void {
    server.refuseStreams();
    log.info({ resource: name, reason }, 'the server streams no lists, listing page by page');
  }

  function watchPath(from: string | undefined): string {
    const [least, most] = timing.watchSeconds;
    const search = new URLSearchParams({
      ...query,
      watch: 'true',
      allowWatchBookmarks: 'true',
      // Without a version it is the newest state that the stream begins with.
      ...(from === undefined
        ? { sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' }
        : { resourceVersion: from }),
      timeoutSeconds: String(Math.round(least + random() * (most - least))),
    });
    return `${path}?${search.toString()}`;
  }

  function gather(gathering: Gathering, raw: unknown): 'more' | 'listed' | 'unmarked' {
    heard();
    const event = readWatchEvent(raw);
    switch (event.kind) {
      case 'error':
        throw event.error;
      case 'changed':
        gathering.put(event.object);
        return 'more';
      case 'deleted':
        gathering.drop(event.object);
        return 'more';
      case 'bookmark':
        // A server that knows of such lists sends no other bookmark before.
        if (!event.endsList) return 'unmarked';
        listedAll(gathering, event.version);
        return 'listed';
    }
  }

  function apply(raw: unknown): void {
    const event = readWatchEvent(raw);
    switch (event.kind) {
      case 'error':
        throw event.error;
      case 'changed':
        intake.changed(event.object);
        break;
      case 'deleted':
        intake.deleted(event.object);
        break;
      case 'bookmark':
        break;
    }
    proven();
    silencesInRow = 0;
    version = event.version;
  }

  /** A server that closes every watch as soon as it is open must not be asked in a tight loop. */
  async function afterCleanClose(livedMs: number): Promise<void> {
    quickCloses = livedMs >= timing.healthyMs ? 0 : quickCloses + 1;
    if (quickCloses <= 1) return;
    const { baseMs, capMs } = timing.backoff;
    const gentle = { baseMs, capMs: Math.min(1000, capMs) };
    await pause(clock, backoffMs(gentle, quickCloses - 1, random()), step.signal);
  }

  function answered(): void {
    if (!isAway) return;
    isAway = false;
    server.tellBack();
  }

  function recovered(): void {
    if (failing !== undefined) log.info({ resource: name, failures }, 'watch recovered');
    failures = 0;
    quickCloses = 0;
    failing = undefined;
    pace = undefined;
    waitedMs = 0;
    // What it missed would have been the first that it was told.
    provenAtMs = clock.monotonicMs();
  }

  async function failed(error: unknown, triedMs: number): Promise<void> {
    const known = error instanceof KubeError ? error : undefined;
    const code = known?.code ?? 'INTERNAL';
    const remedy = remedyOf(code, known);
    errors[code] += 1;
    failures = remedy.pace === pace ? failures + 1 : 1;
    pace = remedy.pace;
    isAway ||= remedy.pace === 'outage';
    if (version === undefined) unpaged ||= code === 'GONE';
    else if (remedy.way === 'relist') version = undefined;
    const delayMs = delayOf(remedy, known?.retryAfterMs, triedMs);
    report(code, error, delayMs);
    enter({ kind: 'waiting', code, delayMs });
    if (remedy.pace === 'outage' && known?.retryAfterMs === undefined) idle = 'waiting';
    await pause(clock, delayMs, step.signal);
    idle = undefined;
    waitedMs = step.signal.aborted ? 0 : delayMs;
  }

  /** `triedMs`: how long the server was given to be reached at all. */
  function delayOf(remedy: Remedy, retryAfterMs: number | undefined, triedMs: number): number {
    switch (remedy.pace) {
      case 'expiry':
        // Nodes that come from a wait are spread already.
        return failures === 1
          ? Math.max(0, random() * timing.relistJitterMs - waitedMs)
          : backoffMs(timing.backoff, failures, random());
      case 'outage': {
        const delayMs = backoffMs(timing.outage, failures, random(), retryAfterMs);
        return retryAfterMs === undefined ? Math.max(0, delayMs - triedMs) : delayMs;
      }
      case 'refusal':
        return backoffMs(timing.backoff, failures, random(), retryAfterMs);
    }
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

  function doubt(): void {
    const isTooSoon = clock.monotonicMs() - replacedAtMs < timing.doubtEveryMs;
    if (idle === undefined || endDoubt !== undefined || isTooSoon) return;
    const doubted = step;
    const heardAtMs = contactAtMs;
    endDoubt = clock.schedule(timing.doubtMs, () => {
      endDoubt = undefined;
      if (idle === undefined || step !== doubted || contactAtMs !== heardAtMs) return;
      replacedAtMs = clock.monotonicMs();
      log.debug({ resource: name }, 'watch is silent and in doubt, opening another');
      if (idle === 'watching') stayedSilent();
      step.abort();
    });
  }

  async function run(): Promise<void> {
    if (timing.startJitterMs > 0) {
      await pause(clock, random() * timing.startJitterMs, step.signal);
    }
    while (!stop.signal.aborted) {
      if (step.signal.aborted) step = new AbortController();
      const startedAtMs = clock.monotonicMs();
      const contactBeforeMs = contactAtMs;
      try {
        if (isVersionInDoubt) {
          isVersionInDoubt = false;
          await doubtVersion();
        }
        if (version === undefined && !server.streams) await listByPages();
        else await watch(version);
      } catch (error) {
        if (isStopped()) return;
        if (step.signal.aborted) continue;
        const wasReached = contactAtMs !== contactBeforeMs;
        await failed(error, wasReached ? 0 : clock.monotonicMs() - startedAtMs);
      }
    }
  }

  /** A call, because the compiler takes the loop's own check to hold across an `await`. */
  function isStopped(): boolean {
    return stop.signal.aborted;
  }

  const forgetServer = server.onBack(() => {
    if (idle === 'waiting') step.abort();
  });
  const running = run();
  return {
    name,
    get synced() {
      return syncedOnce;
    },
    whenSynced: () => synced.promise,
    doubt,
    stats: () => ({
      syncedOnce,
      lastContactAgeMs: clock.monotonicMs() - contactAtMs,
      stalenessMs: clock.monotonicMs() - provenAtMs,
      relists: Math.max(0, lists - 1),
      restarts: Math.max(0, watches - 1),
      silences,
      errors: { ...errors },
      errorsByKind: errorsByKind(errors),
      objects: intake.objects,
      rejected: intake.rejected,
    }),
    async [Symbol.asyncDispose]() {
      stop.abort();
      step.abort();
      endDoubt?.();
      forgetServer();
      synced.reject(new DOMException(`the watch of ${name} was stopped`, 'AbortError'));
      await running;
    },
  };
}

/** Why it cannot be had as a stream, or undefined when something else is wrong. */
function refusalOfStream(error: unknown, isOpen: boolean): string | undefined {
  if (!(error instanceof KubeError)) return undefined;
  // 422 where the feature is off or unknown.
  if (error.status === 422 || error.status === 400) return error.message;
  return isOpen && isTimeout(error) ? 'it did not come to an end' : undefined;
}

function isTimeout(error: unknown): boolean {
  return error instanceof KubeError && error.code === 'TIMEOUT';
}

/** Versions of one server are numbers that grow. */
function isBefore(one: string, other: string): boolean {
  return /^\d+$/.test(one) && /^\d+$/.test(other) && BigInt(one) < BigInt(other);
}
