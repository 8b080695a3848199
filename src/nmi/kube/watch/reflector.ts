/**
 * Keeps one store equal to one collection of the Kubernetes API: list, then watch, forever.
 *
 * 1. One loop: at most one list or watch is open at any time, and only a dispose ends the loop.
 * 2. A relist is one `store.replace`; until then the store keeps its content, however long the
 *    server is unavailable.
 * 3. A list is paged: for 5,000 objects a server of Kubernetes 1.37 needs 99 ms of processor, 190 for
 *    a list as a stream, both compressed; 1.34 needs 118 and 193, and does not compress a stream.
 *    Where an object may be too large to be read, the list is a stream that continues as the watch,
 *    and leaves such an object out; if the server has no such streams, it is paged, too.
 * 4. After a failure the watch resumes from the last version, unless that is unusable: expired, or
 *    followed by an invalid line or an exception in the store.
 * 5. A watch without a byte for `silenceMs` may be dead, and the next one no better: a server that
 *    was restored from a backup accepts a watch from a version that it has not reached, and sends
 *    nothing until it has. So after each silence the server's version is requested; if it is below
 *    ours, everything is listed again. Bookmarks, one a minute, keep most watches from being
 *    silent. A waiter for an object may cause an earlier check.
 * 6. Failures are logged when they begin, change and end, and always counted.
 */
import type { Clock } from '../../../base/time/clock.ts';
import type { ObjectRef } from '../../../cache/index/objects.ts';
import { Observers } from '../../../cache/index/observers.ts';
import { asRecord, stringAt, type JsonRecord } from '../../../base/json-value.ts';
import type { Log } from '../../../base/log.ts';
import { LogBudget } from '../../../base/lines/log-budget.ts';
import type { JsonReader, WatchOptions } from '../api/client.ts';
import { KubeError } from '../api/kube-error.ts';
import { pause } from '../../../base/time/deadline.ts';
import { createDecoder, type Decoder, type DecoderOptions } from './decoder.ts';
import {
  closeDelayMs,
  noFailures,
  retryAfterFailure,
  type ErrorKind,
  type ReflectorErrorCode,
  type RetryTiming,
} from './retry-policy.ts';
import { readWatchEvent, versionOf } from '../api/watch-event.ts';

/** The methods of the client that are used here. */
export interface KubeReader extends JsonReader {
  watch(path: string, options: WatchOptions): AsyncIterable<unknown>;
}

export interface ReflectorTiming extends RetryTiming {
  /** A watch that was open this long ends a series of failures. */
  readonly healthyMs: number;
  /** Longest time without a byte on an open watch; up to a quarter of it is added at random. */
  readonly silenceMs: number;
  /** A watch under check is replaced unless it receives something within this time. */
  readonly checkGraceMs: number;
  /** Requests for a check sooner after the last one are ignored. */
  readonly checkEveryMs: number;
  /** A collection is absent after this time of nothing but 404: a starting server does not serve each kind. */
  readonly absentAfterMs: number;
  /** Longest time between two requests for an absent collection. */
  readonly absentEveryMs: number;
}

/**
 * When a refused list counts as an empty one. A server that starts answers 403 for 30 to 70 ms, and 404 for a
 * kind that it does not serve yet, so an answer alone shows neither that the kind is missing nor the right.
 * - `never`: what was listed holds.
 * - `confirmed`: when it was 404 for `absentAfterMs`.
 * - `presumed`: so too, and before the first list at any 403 or 404.
 */
export type Absence = 'never' | 'confirmed' | 'presumed';

const defaultTiming: ReflectorTiming = {
  backoff: { baseMs: 200, capMs: 10_000 },
  outage: { baseMs: 200, capMs: 10_000 },
  relistJitterMs: 2_000,
  relistJitterPerObjectMs: 3,
  healthyMs: 1000,
  // Measured: bookmarks come 60 s apart, up to 75 s by the server's source. But none comes while
  // the server's version of the resource equals the one at which the watch began: in a quiet
  // cluster where etcd does not report progress, silence is healthy, and must cost no list.
  silenceMs: 80_000,
  // Events arrive within some milliseconds of the change, on a loaded server within tens.
  checkGraceMs: 300,
  checkEveryMs: 5_000,
  absentAfterMs: 60_000,
  // One small request a minute from each node, until the kind is installed.
  absentEveryMs: 60_000,
};

/** Log lines of one namespace in the first minute; each later minute gets one report of the rest. */
const maxSkipLines = 50;
/** The first pause; each later one is as long as the absence so far. */
const firstAbsenceMs = 1_000;
const listTimeoutMs = 60_000;
/** More than a page of usual objects. */
const maxPageBytes = 4 * 1024 * 1024;
/** More than any object. */
const maxObjectBytes = 16 * 1024 * 1024;
/** For one object. If the server takes longer, the watch is opened all the same. */
const checkTimeoutMs = 5_000;
/** Range of the watch timeouts that are requested from the server, in seconds. */
const watchSeconds = { least: 240, most: 480 };
/** The message of an internal exception goes to the log only. */
const internalFailure = 'exception in a watch handler';

export type ListsBy = 'stream' | 'pages';

export interface ReflectorOptions<T extends ObjectRef> extends Omit<DecoderOptions<T>, 'onSkip'> {
  /** For logs and metrics, e.g. `pods`. */
  readonly name: string;
  /** Collection path without query. */
  readonly path: string;
  /** Selectors, e.g. `{ fieldSelector: 'spec.nodeName=x' }`. */
  readonly query?: Readonly<Record<string, string>>;
  readonly client: KubeReader;
  readonly clock: Clock;
  /** 0 up to 1. */
  readonly random: () => number;
  readonly log: Log;
  readonly timing?: Partial<ReflectorTiming>;
  /** Items per page of a list that is not a stream. */
  readonly pageSize?: number;
  /** Default: never. An absent collection is requested again once a minute. */
  readonly absence?: Absence;
  /** Default: pages. */
  readonly listsBy?: ListsBy;
  /** Whether a request waits for an object; by default none ever does. */
  readonly isAwaited?: (() => boolean) | undefined;
  /**
   * The server answers again after an outage: shared by its reflectors, so that one that retries often
   * serves all.
   */
  readonly recovery?: Observers;
}

/** The failure that has lasted since `sinceMs`; of several failures the last one. */
interface WatchFailure {
  readonly code: ReflectorErrorCode;
  readonly message: string;
  /** Monotonic. */
  readonly sinceMs: number;
  /**
   * The server has no such collection: this is not a failure, and the collection counts as empty.
   */
  readonly isAbsence: boolean;
}

export interface FailureStats extends Omit<WatchFailure, 'sinceMs'> {
  readonly forMs: number;
}

/** `checking`: a list of one object, to get the server's version. */
type Phase = 'listing' | 'opening' | 'watching' | 'checking' | 'waiting';

export interface ReflectorStats extends Pick<Decoder, 'objects' | 'bytes' | 'rejected'> {
  readonly phase: Phase;
  readonly syncedOnce: boolean;
  /** Time since the server last sent something; undefined if it never has. */
  readonly lastContactAgeMs: number | undefined;
  /**
   * Time since the last proof that the store is current: an event, a bookmark, a complete list, a
   * watch that ended cleanly, or one without an event for `healthyMs` after it was opened. Without
   * a proof, since the reflector was opened. Up to 101 s while all is well and nothing changes.
   */
  readonly stalenessMs: number;
  /** Lists after the first complete one. */
  readonly relists: number;
  /** Watches opened after the first one. */
  readonly restarts: number;
  readonly errorsByKind: Readonly<Record<ErrorKind, number>>;
  /** The last failure and how long the watch has failed, until it is healthy again. */
  readonly failure: FailureStats | undefined;
}

export interface Reflector extends AsyncDisposable {
  /** The store has had a complete list at least once. */
  readonly synced: boolean;
  /** Rejects with an AbortError when disposed before. */
  whenSynced(): Promise<void>;
  /**
   * An object is missing: an open watch that stays silent for the next `checkGraceMs` is replaced,
   * and a wait for the end of an outage ends. Once in `checkEveryMs` at most.
   */
  checkNow(): void;
  /** A request waits for an object: see `Retry.idleMs`. */
  hurry(): void;
  /** That of the stats. */
  readonly stalenessMs: number;
  stats(): ReflectorStats;
}

export function openReflector<T extends ObjectRef>(options: ReflectorOptions<T>): Reflector {
  return new ReflectorLoop(options);
}

class ReflectorLoop<T extends ObjectRef> implements Reflector {
  readonly #options: ReflectorOptions<T>;
  readonly #timing: ReflectorTiming;
  readonly #recovery: Observers;
  readonly #decoder: Decoder;
  readonly #synced = Promise.withResolvers<undefined>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #phase: Phase = 'listing';
  #listsBy: ListsBy;
  /** The version to watch from; `undefined` requires a list. */
  #version: string | undefined;
  /** Complete ones; an absent collection counts as one. */
  #lists = 0;
  #isListed = false;
  /** Since then each answer was 404. */
  #missingSinceMs: number | undefined;
  #watches = 0;
  readonly #errors = { outage: 0, refusal: 0, expiry: 0, exception: 0 };
  /** -Infinity before the first contact. */
  #contactAtMs = -Infinity;
  /** When the store was last known to be current. */
  #provenAtMs: number;
  /** When the last check was requested that was not ignored. */
  #checkAtMs = -Infinity;
  #failures = noFailures;
  /** The failure last logged, while it lasts: until a watch is healthy again. */
  #failing: WatchFailure | undefined;
  /** Since then the server could not be reached, or was failing, at each request. */
  #awaySinceMs: number | undefined;
  /** Watches that the server closed cleanly since one was healthy. */
  #closes = 0;
  /** Of the running call or wait. */
  #call = new AbortController();
  #isWakeable = false;
  #isIdle = false;
  /** Timers of the running call. */
  readonly #timers: (() => void)[] = [];

  constructor(options: ReflectorOptions<T>) {
    const { clock, recovery = new Observers(), listsBy = 'pages' } = options;
    this.#options = options;
    this.#timing = { ...defaultTiming, ...options.timing };
    this.#recovery = recovery;
    this.#listsBy = listsBy;
    this.#decoder = openDecoder(options);
    this.#provenAtMs = clock.monotonicMs();
    // It may have no waiter.
    this.#synced.promise.catch(() => undefined);
    this.#running = this.#run();
  }

  get synced(): boolean {
    return this.#lists > 0;
  }

  get stalenessMs(): number {
    return this.#nowMs - this.#provenAtMs;
  }

  whenSynced(): Promise<void> {
    return this.#synced.promise;
  }

  checkNow(): void {
    const { checkEveryMs, checkGraceMs } = this.#timing;
    const isWatching = this.#phase === 'watching';
    if (this.#stop.signal.aborted || !(isWatching || this.#phase === 'waiting')) return;
    if (this.#nowMs - this.#checkAtMs < checkEveryMs) return;
    this.#checkAtMs = this.#nowMs;
    this.#wake();
    if (!isWatching) return;
    this.#arm(checkGraceMs, () => {
      if (this.#contactAtMs <= this.#checkAtMs) this.#beginCheck();
    });
  }

  hurry(): void {
    if (this.#isIdle) this.#call.abort();
  }

  stats(): ReflectorStats {
    const nowMs = this.#nowMs;
    const { objects, bytes, rejected } = this.#decoder;
    const failing = this.#failing;
    return {
      phase: this.#phase,
      syncedOnce: this.synced,
      lastContactAgeMs: this.#contactAtMs === -Infinity ? undefined : nowMs - this.#contactAtMs,
      stalenessMs: this.stalenessMs,
      relists: Math.max(0, this.#lists - 1),
      restarts: Math.max(0, this.#watches - 1),
      errorsByKind: { ...this.#errors },
      failure: failing === undefined ? undefined : { ...failing, forMs: nowMs - failing.sinceMs },
      objects,
      bytes,
      rejected,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { name } = this.#options;
    this.#stop.abort();
    this.#call.abort();
    this.#synced.reject(new DOMException(`the watch of ${name} was stopped`, 'AbortError'));
    await this.#running;
  }

  get #nowMs(): number {
    return this.#options.clock.monotonicMs();
  }

  async #run(): Promise<void> {
    const unsubscribe = this.#recovery.add(() => this.#wake());
    while (!this.#stop.signal.aborted) {
      this.#call = new AbortController();
      const { signal } = this.#call;
      const sinceMs = this.#nowMs;
      try {
        await this.#perform(signal);
        this.#disarm();
      } catch (error) {
        this.#disarm();
        if (!signal.aborted) await this.#recover(error, sinceMs);
      }
    }
    unsubscribe();
  }

  #perform(signal: AbortSignal): Promise<void> {
    if (this.#phase === 'checking') return this.#check(signal);
    if (this.#version !== undefined) return this.#watch(signal);
    this.#phase = 'listing';
    return this.#listsBy === 'stream' ? this.#watch(signal) : this.#listPages(signal);
  }

  async #listPages(signal: AbortSignal): Promise<void> {
    const { client, path } = this.#options;
    const gathering = this.#decoder.gather();
    let limit = this.#options.pageSize ?? 500;
    let position = {};
    for (;;) {
      const pagePath = this.#pathOf({ limit: String(limit), ...position });
      const maxBytes = limit === 1 ? maxObjectBytes : maxPageBytes;
      let page: JsonRecord | undefined;
      try {
        const call = { signal, timeoutMs: listTimeoutMs, maxBytes };
        page = asRecord(await client.getJson(pagePath, call));
      } catch (error) {
        if (!(error instanceof KubeError) || error.code !== 'TOO_LARGE' || limit === 1) throw error;
        // The authors of the objects decide their size.
        limit = Math.ceil(limit / 8);
        continue;
      }
      // Go encodes a nil slice as null.
      const items: unknown = page?.['items'] ?? [];
      const version = versionOf(page);
      if (version === '' || !Array.isArray(items)) {
        throw new KubeError('MALFORMED', `the answer to ${path} is not a list`);
      }
      this.#contactAtMs = this.#nowMs;
      for (const item of items) gathering.changed(item);
      const token = stringAt(asRecord(page?.['metadata']), 'continue');
      if (token === '') {
        gathering.commit();
        return this.#listed(version);
      }
      position = { continue: token };
    }
  }

  /** Watches from the version. Without one, the stream begins with all objects, as a list. */
  async #watch(signal: AbortSignal): Promise<void> {
    const { client, random } = this.#options;
    const from = this.#version;
    let gathering = from === undefined ? this.#decoder.gather() : undefined;
    this.#phase = from === undefined ? 'listing' : 'opening';
    const events = client.watch(this.#watchPath(from), {
      signal,
      silenceMs: this.#timing.silenceMs * (1 + random() / 4),
      onOpen: () => {
        this.#contactAtMs = this.#nowMs;
        if (from !== undefined) this.#beginWatching();
      },
    });
    for await (const raw of events) {
      const event = readWatchEvent(raw);
      if (event.kind === 'error') throw event.error;
      const { kind, version } = event;
      if (kind === 'overlong') {
        // What the unread change granted or revoked is unknown, so the collection is listed again.
        if (event.ref === undefined && gathering === undefined) throw overlong();
        (gathering ?? this.#decoder).reject(event.ref, 'it is too long to be read');
      } else if (kind !== 'bookmark') {
        (gathering ?? this.#decoder)[kind](event.object);
      } else if (gathering !== undefined && event.endsList) {
        gathering.commit();
        gathering = undefined;
        this.#listed(version);
        this.#beginWatching();
      }
      if (gathering === undefined) this.#prove(version);
      else this.#contactAtMs = this.#nowMs;
      if (signal.aborted) return;
    }
    if (signal.aborted) return;
    if (gathering !== undefined) throw new KubeError('NETWORK', 'the list ended too early');
    this.#disarm();
    this.#prove(this.#version);
    this.#closes += 1;
    const delayMs = closeDelayMs(this.#timing, this.#closes, random());
    // No mutation: a delay of a millisecond is as good as none.
    if (delayMs > 0) await this.#wait(delayMs, false);
  }

  async #check(signal: AbortSignal): Promise<void> {
    const { name, client, log } = this.#options;
    const call = { signal, timeoutMs: checkTimeoutMs };
    const newest = versionOf(asRecord(await client.getJson(this.#pathOf({ limit: '1' }), call)));
    const version = this.#version;
    this.#contactAtMs = this.#nowMs;
    this.#phase = 'opening';
    if (version === undefined || !isBefore(newest, version)) return;
    this.#version = undefined;
    const fields = { resource: name, newest, version };
    log.warn(fields, 'API server resourceVersion went backwards, listing again');
  }

  #beginCheck(): void {
    const { name, log } = this.#options;
    this.#phase = 'checking';
    log.debug({ resource: name }, 'watch is silent, opening another');
    this.#call.abort();
  }

  #beginWatching(): void {
    this.#phase = 'watching';
    this.#missingSinceMs = undefined;
    this.#watches += 1;
    this.#arm(this.#timing.healthyMs, () => this.#becomeHealthy());
    this.#answered();
  }

  /** A watch delivers missed changes first, so by now the store is current. */
  #becomeHealthy(): void {
    const { name, log } = this.#options;
    const { count } = this.#failures;
    if (this.#failing !== undefined) {
      log.info({ resource: name, failures: count }, 'watch recovered');
    }
    this.#failures = noFailures;
    this.#failing = undefined;
    this.#closes = 0;
    this.#provenAtMs = this.#nowMs;
  }

  #listed(version: string): void {
    this.#prove(version);
    this.#isListed = true;
    this.#missingSinceMs = undefined;
    this.#lists += 1;
    if (this.#lists === 1) this.#reportSynced();
  }

  #reportSynced(): void {
    const { name, log } = this.#options;
    log.info({ resource: name, objects: this.#decoder.objects }, 'watch synced');
    this.#synced.resolve(undefined);
  }

  /** The store is as new as the data just received. */
  #prove(version: string | undefined): void {
    this.#version = version;
    this.#contactAtMs = this.#nowMs;
    this.#provenAtMs = this.#nowMs;
  }

  #answered(): void {
    const wasAway = this.#awaySinceMs !== undefined;
    this.#awaySinceMs = undefined;
    if (wasAway) this.#recovery.notify();
  }

  /** Returns when the next request is due. */
  async #recover(error: unknown, sinceMs: number): Promise<void> {
    const { log, name, random, isAwaited } = this.#options;
    const isWatching = this.#phase === 'watching';
    if (isWatching && error instanceof KubeError && error.code === 'TIMEOUT') {
      return this.#beginCheck();
    }
    if (this.#phase === 'listing' && this.#listsBy === 'stream' && refusesStream(error)) {
      this.#listsBy = 'pages';
      const fields = { resource: name, reason: error.message };
      return log.info(fields, 'the server streams no lists, listing page by page');
    }
    if (this.#isAbsence(error)) return this.#takeAsEmpty(error);
    const isReached = isWatching || this.#contactAtMs > sinceMs;
    const nowMs = this.#nowMs;
    const retry = retryAfterFailure(error, this.#failures, this.#timing, {
      triedMs: isReached ? 0 : nowMs - sinceMs,
      awayForMs: nowMs - (this.#awaySinceMs ?? nowMs),
      objects: this.#decoder.objects,
      chance: random(),
    });
    const { code, failures, isRelist, delayMs, idleMs, isWakeable } = retry;
    if (isRelist) this.#version = undefined;
    this.#errors[failures.kind] += 1;
    this.#failures = failures;
    if (failures.kind === 'outage') this.#awaySinceMs ??= nowMs;
    this.#reportFailure(code, error, delayMs + idleMs);
    const isComplete = await this.#wait(delayMs, isWakeable);
    if (!isComplete || idleMs === 0 || isAwaited?.() === true) return;
    this.#isIdle = true;
    await this.#wait(idleMs, isWakeable, delayMs);
    this.#isIdle = false;
  }

  #reportFailure(code: ReflectorErrorCode, error: unknown, delayMs: number): void {
    const { name, log } = this.#options;
    const before = this.#failing;
    // The stack of an internal exception is logged; failures of server or network have no useful
    // stack.
    const isInternal = code === 'INTERNAL' || !(error instanceof Error);
    const err = isInternal ? error : error.message;
    const { count } = this.#failures;
    const fields = { resource: name, code, err, failures: count, retryInMs: Math.round(delayMs) };
    if (before?.code === code) log.debug(fields, 'watch still failing');
    else if (code === 'GONE') log.info(fields, 'watch version expired, listing again');
    else if (code === 'NOT_FOUND') log.error(fields, 'resource type is not installed, retrying');
    else if (code === 'INTERNAL') log.error(fields, `${internalFailure}, listing again`);
    else log.warn(fields, 'watch failed, retrying');
    const message = isInternal ? internalFailure : error.message;
    const sinceMs = before?.isAbsence === false ? before.sinceMs : this.#nowMs;
    this.#failing = { code, message, sinceMs, isAbsence: false };
  }

  /** Listed objects stay when the permission is lost, as after any other failure. */
  #isAbsence(error: unknown): error is KubeError {
    const { absence = 'never' } = this.#options;
    const code = error instanceof KubeError ? error.code : undefined;
    const isMissing = code === 'NOT_FOUND';
    const sinceMs = isMissing ? (this.#missingSinceMs ?? this.#nowMs) : undefined;
    this.#missingSinceMs = sinceMs;
    if (absence === 'never') return false;
    if (absence === 'presumed' && !this.#isListed) return isMissing || code === 'FORBIDDEN';
    return sinceMs !== undefined && this.#nowMs - sinceMs >= this.#timing.absentAfterMs;
  }

  /** An absent collection counts as a list, and is requested again until the kind is installed. */
  async #takeAsEmpty({ code, message }: KubeError): Promise<void> {
    const { name, log, random } = this.#options;
    const before = this.#failing;
    this.#decoder.gather().commit();
    this.#prove(undefined);
    if (this.#lists === 0) this.#reportSynced();
    this.#lists = Math.max(1, this.#lists);
    if (before?.code !== code || !before.isAbsence) {
      const fields = { resource: name, code, err: message };
      log.warn(fields, 'resource type is not available, taken as empty');
    }
    const sinceMs = before?.isAbsence === true ? before.sinceMs : this.#nowMs;
    this.#failing = { code, message, sinceMs, isAbsence: true };
    this.#answered();
    // A new right takes a moment to reach all API servers, and meanwhile no identity has an owner.
    const absentMs = Math.max(firstAbsenceMs, this.#nowMs - sinceMs);
    const pauseMs = Math.min(this.#timing.absentEveryMs, absentMs);
    await this.#wait((pauseMs * (1 + random())) / 2, true);
  }

  /**
   * Returns false if the wait was cut short.
   * @param isWakeable the wait may end early: the outage may be over, and the server named no time.
   */
  async #wait(delayMs: number, isWakeable: boolean, waitedMs = 0): Promise<boolean> {
    if (this.#stop.signal.aborted) return false;
    this.#phase = 'waiting';
    this.#isWakeable = isWakeable;
    this.#call = new AbortController();
    const { signal } = this.#call;
    await pause(this.#options.clock, delayMs, signal);
    this.#isWakeable = false;
    this.#failures = { ...this.#failures, waitedMs: signal.aborted ? 0 : waitedMs + delayMs };
    return !signal.aborted;
  }

  #wake(): void {
    if (this.#isWakeable) this.#call.abort();
  }

  #arm(delayMs: number, work: () => void): void {
    this.#timers.push(this.#options.clock.schedule(delayMs, work));
  }

  #disarm(): void {
    for (const disarm of this.#timers.splice(0)) disarm();
  }

  #watchPath(from: string | undefined): string {
    const { least, most } = watchSeconds;
    return this.#pathOf({
      watch: 'true',
      allowWatchBookmarks: 'true',
      // Without a version, the stream begins with the newest state.
      ...(from === undefined
        ? { sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' }
        : { resourceVersion: from }),
      timeoutSeconds: String(Math.round(least + this.#options.random() * (most - least))),
    });
  }

  #pathOf(search: Readonly<Record<string, string>>): string {
    const { path, query } = this.#options;
    return `${path}?${new URLSearchParams({ ...query, ...search }).toString()}`;
  }
}

function openDecoder<T extends ObjectRef>(options: ReflectorOptions<T>): Decoder {
  const { name: resource, clock, log } = options;
  const further = 'further unusable objects ignored';
  const skips = new LogBudget({
    clock,
    onOthers: (count) => log.warn({ resource, count }, further),
  });
  return createDecoder({
    ...options,
    onSkip: (ref, reason) => {
      const { namespace } = ref ?? {};
      const reportMore = (count: number): void => log.warn({ resource, namespace, count }, further);
      if (!skips.allows(namespace ?? '', maxSkipLines, reportMore)) return;
      log.warn({ resource, object: ref, reason }, 'unusable object ignored');
    },
  });
}

function overlong(): KubeError {
  return new KubeError('MALFORMED', 'an event that is too long to be read names no object');
}

/** The status is 422 if the feature is off or unknown. */
function refusesStream(error: unknown): error is KubeError {
  return error instanceof KubeError && (error.status === 422 || error.status === 400);
}

/** Versions of one server are numbers that grow. */
function isBefore(one: string, other: string): boolean {
  return /^\d+$/.test(one) && /^\d+$/.test(other) && BigInt(one) < BigInt(other);
}
