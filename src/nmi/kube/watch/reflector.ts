/**
 * Keeps one store equal to one collection of the Kubernetes API: list, then watch, forever.
 *
 * 1. One loop: at most one list or watch is open at any time, and only a dispose ends the loop.
 *    reflector-state.ts and retry-policy.ts decide the next step; this file does the I/O.
 * 2. A relist is one `store.replace`; until then the store keeps its content, however long the
 *    server is unavailable.
 * 3. A list is a stream that continues as the watch, one object in memory at a time; if the server
 *    has no such streams, it is paged.
 * 4. A watch without a byte for `silenceMs` is replaced, since it may be dead. Bookmarks, one a
 *    minute, keep most watches from being silent. A waiter for an object may cause an earlier
 *    check.
 * 5. Failures are logged when they begin, change and end, and always counted.
 */
import type { Clock } from '../../../base/time/clock.ts';
import type { ObjectRef, ObjectStore } from '../../../cache/index/objects.ts';
import { asRecord } from '../../../base/json-value.ts';
import type { Log } from '../../../base/log.ts';
import { LogBudget } from '../../../base/lines/log-budget.ts';
import {
  createApiServerCapabilities,
  type ApiServerCapabilities,
} from './api-server-capabilities.ts';
import type { WatchOptions } from '../api/client.ts';
import { KubeError } from '../api/kube-error.ts';
import { pause } from '../../../base/time/deadline.ts';
import { createDecoder, type Decoder } from './decoder.ts';
import { listPages, type JsonReader } from '../api/list-pages.ts';
import type { Parse } from './parse.ts';
import {
  defaultTiming,
  initialState,
  next,
  type Effect,
  type ReflectorEvent,
  type ReflectorState,
  type ReflectorTiming,
  type WatchFailure,
} from './reflector-state.ts';
import { errorsByKind, type ErrorKind } from './retry-policy.ts';
import { readWatchEvent, versionOf } from '../api/watch-event.ts';

/** The methods of the client that are used here. */
export interface KubeReader extends JsonReader {
  watch(path: string, options: WatchOptions): AsyncIterable<unknown>;
}

/**
 * Log lines of one namespace in the first minute; if skips go on, each later minute gets one
 * report.
 */
const maxSkipLines = 50;
/** Including the pauses between them, 3 to 6 s. */
const failuresBeforeAbsence = 5;
const listTimeoutMs = 60_000;
/** For one object. If the server takes longer, the watch is opened all the same. */
const checkTimeoutMs = 5_000;
/** Range of the watch timeouts that are requested from the server, in seconds. */
const watchSeconds = { least: 240, most: 480 };

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
  readonly log: Log;
  readonly timing?: Partial<ReflectorTiming>;
  /** Items per page of a list that is not a stream. */
  readonly pageSize?: number;
  /**
   * The first paged list comes from the server's memory and in one piece: for pods of one node an
   * indexed lookup instead of a scan of the cluster's pods.
   */
  readonly listsFromMemory?: boolean;
  /**
   * The cluster may lack the kind, or the agent the permission for it: then the collection is
   * empty, and is requested again once a minute.
   */
  readonly mayBeAbsent?: boolean;
  /** Shared by all reflectors of one server; by default not shared. */
  readonly server?: ApiServerCapabilities;
}

export interface ReflectorStats
  extends
    Pick<ReflectorState, 'phase' | 'silences' | 'errors'>,
    Pick<Decoder, 'objects' | 'bytes' | 'rejected'> {
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

export interface FailureStats extends Omit<WatchFailure, 'sinceMs'> {
  readonly forMs: number;
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
  stats(): ReflectorStats;
}

function overlong(): KubeError {
  return new KubeError('MALFORMED', 'an event that is too long to be read names no object');
}

export function openReflector<T extends ObjectRef>(options: ReflectorOptions<T>): Reflector {
  return new ReflectorLoop(options);
}

class ReflectorLoop<T extends ObjectRef> implements Reflector {
  readonly #options: ReflectorOptions<T>;
  readonly #timing: ReflectorTiming;
  readonly #server: ApiServerCapabilities;
  readonly #intake: Decoder;
  readonly #synced = Promise.withResolvers<undefined>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #state: ReflectorState;
  #call = new AbortController();
  /** Timers of the running call. */
  readonly #timers: (() => void)[] = [];

  constructor(options: ReflectorOptions<T>) {
    const { name, clock, log, server = createApiServerCapabilities() } = options;
    this.#options = options;
    this.#timing = { ...defaultTiming, ...options.timing };
    this.#server = server;
    const skips = new LogBudget({
      clock,
      onOthers: (count) => log.warn({ resource: name, count }, 'further unusable objects ignored'),
    });
    this.#intake = createDecoder({
      parse: options.parse,
      store: options.store,
      onSkip: (ref, reason) => {
        const { namespace } = ref ?? {};
        const reportMore = (count: number): void =>
          log.warn({ resource: name, namespace, count }, 'further unusable objects ignored');
        if (!skips.allows(namespace ?? '', maxSkipLines, reportMore)) return;
        log.warn({ resource: name, object: ref, reason }, 'unusable object ignored');
      },
    });
    this.#state = initialState(clock.monotonicMs(), server.streamsLists);
    // It may have no waiter.
    this.#synced.promise.catch(() => undefined);
    this.#running = this.#run();
  }

  get synced(): boolean {
    return this.#state.lists > 0;
  }

  whenSynced(): Promise<void> {
    return this.#synced.promise;
  }

  checkNow(): void {
    this.#dispatch({ kind: 'check-requested' });
  }

  stats(): ReflectorStats {
    const { phase, lists, watches, silences, errors, contactAtMs, provenAtMs } = this.#state;
    const { failing } = this.#state;
    const nowMs = this.#options.clock.monotonicMs();
    return {
      phase,
      syncedOnce: lists > 0,
      lastContactAgeMs: contactAtMs === -Infinity ? undefined : nowMs - contactAtMs,
      stalenessMs: nowMs - provenAtMs,
      relists: Math.max(0, lists - 1),
      restarts: Math.max(0, watches - 1),
      silences,
      errors,
      errorsByKind: errorsByKind(errors),
      failure: failing === undefined ? undefined : failureStats(failing, nowMs),
      objects: this.#intake.objects,
      bytes: this.#intake.bytes,
      rejected: this.#intake.rejected,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { name } = this.#options;
    this.#stop.abort();
    this.#call.abort();
    this.#synced.reject(new DOMException(`the watch of ${name} was stopped`, 'AbortError'));
    await this.#running;
  }

  #dispatch(event: ReflectorEvent): void {
    if (this.#stop.signal.aborted) return;
    const { clock, random } = this.#options;
    const { streamsLists } = this.#server;
    const { phase } = this.#state;
    const around = { timing: this.#timing, nowMs: clock.monotonicMs(), chance: random() };
    this.#state = next(this.#state, event, { ...around, streamsLists });
    const { phase: after, effects } = this.#state;
    // A call ends with its phase, except for a watch, which continues after its opening or its
    // list.
    if (after !== phase && after.kind !== 'watching') this.#call.abort();
    for (const effect of effects) this.#carryOut(effect);
  }

  #report(event: ReflectorEvent): () => void {
    return () => this.#dispatch(event);
  }

  #carryOut(effect: Effect): void {
    const { name, clock, log } = this.#options;
    switch (effect.kind) {
      case 'log':
        log[effect.level]({ resource: name, ...effect.fields }, effect.message);
        break;
      case 'arm':
        this.#timers.push(clock.schedule(effect.delayMs, this.#report(effect.event)));
        break;
      case 'synced':
        log.info({ resource: name, objects: this.#intake.objects }, 'watch synced');
        this.#synced.resolve(undefined);
        break;
      case 'refuse-streams':
        this.#server.refuseStreams();
        break;
      case 'notify-recovery':
        this.#server.notifyRecovery();
    }
  }

  async #run(): Promise<void> {
    const unsubscribe = this.#server.onRecovery(this.#report({ kind: 'recovered' }));
    while (!this.#stop.signal.aborted) {
      this.#call = new AbortController();
      const { signal } = this.#call;
      try {
        await this.#perform(signal);
      } catch (error) {
        if (!signal.aborted) this.#fail(error);
      }
      for (const disarm of this.#timers.splice(0)) disarm();
    }
    unsubscribe();
  }

  #fail(error: unknown): void {
    const { mayBeAbsent = false } = this.#options;
    if (!mayBeAbsent || !isAbsence(error, this.#state)) {
      this.#dispatch({ kind: 'failed', error });
      return;
    }
    this.#intake.gather().commit();
    this.#dispatch({ kind: 'absent', error });
  }

  /** Performs the action of the phase; afterwards the phase is a different one. */
  async #perform(signal: AbortSignal): Promise<void> {
    const { phase, version } = this.#state;
    if (phase.kind === 'waiting') {
      await pause(this.#options.clock, phase.delayMs, signal);
      if (!signal.aborted) this.#dispatch({ kind: 'waited' });
    } else if (phase.kind === 'checking') {
      const call = { signal, timeoutMs: checkTimeoutMs };
      const list = await this.#options.client.getJson(this.#pathOf({ limit: '1' }), call);
      this.#dispatch({ kind: 'checked', version: versionOf(asRecord(list)) });
    } else if (phase.kind === 'listing' && phase.by === 'pages') {
      await this.#listPages(signal);
    } else {
      await this.#watch(version, signal);
    }
  }

  async #listPages(signal: AbortSignal): Promise<void> {
    const { client, path, query = {}, pageSize = 500, listsFromMemory = false } = this.#options;
    const { isUnpaged, lists } = this.#state;
    const gathering = this.#intake.gather();
    const request = {
      path,
      query,
      pageSize: isUnpaged ? 0 : pageSize,
      // A relist has to be newer than the expired version, and memory could be older.
      version: listsFromMemory && lists === 0 ? '0' : '',
    };
    const call = { signal, timeoutMs: listTimeoutMs };
    const version = await listPages(client, request, call, (page) => {
      this.#dispatch({ kind: 'heard' });
      for (const item of page) gathering.changed(item);
    });
    gathering.commit();
    this.#dispatch({ kind: 'listed', version });
  }

  /** Watches from a version. Without one, the stream begins with all objects, as a list. */
  async #watch(from: string | undefined, signal: AbortSignal): Promise<void> {
    const { client, random } = this.#options;
    let gathering = from === undefined ? this.#intake.gather() : undefined;
    const events = client.watch(this.#watchPath(from), {
      signal,
      silenceMs: this.#timing.silenceMs * (1 + random() / 4),
      onOpen: this.#report({ kind: 'opened' }),
    });
    for await (const raw of events) {
      const event = readWatchEvent(raw);
      if (event.kind === 'error') throw event.error;
      const { kind, version } = event;
      if (kind === 'overlong') {
        // What the unread change granted or revoked is unknown, so the collection is listed again.
        if (event.ref === undefined && gathering === undefined) throw overlong();
        (gathering ?? this.#intake).reject(event.ref, 'it is too long to be read');
      } else if (kind !== 'bookmark') {
        (gathering ?? this.#intake)[kind](event.object);
      } else if (gathering !== undefined && event.endsList) {
        gathering.commit();
        gathering = undefined;
        this.#dispatch({ kind: 'listed', version });
      } else if (gathering !== undefined) {
        // A server that streams lists sends no other bookmark before their end.
        this.#dispatch({ kind: 'unmarked' });
      }
      this.#dispatch(gathering === undefined ? { kind: 'changed', version } : { kind: 'heard' });
      if (signal.aborted) return;
    }
    this.#dispatch({ kind: 'ended' });
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

function failureStats({ sinceMs, ...failure }: WatchFailure, nowMs: number): FailureStats {
  return { ...failure, forMs: nowMs - sinceMs };
}

/**
 * Listed objects stay when the permission is lost, as after any other failure, and when a starting
 * server does not have the kind yet: only after some seconds of this answer is the kind absent.
 */
function isAbsence(error: unknown, { version, failures }: ReflectorState): error is KubeError {
  if (!(error instanceof KubeError)) return false;
  if (version === undefined) return error.code === 'NOT_FOUND' || error.code === 'FORBIDDEN';
  return error.code === 'NOT_FOUND' && failures.count >= failuresBeforeAbsence;
}
