/**
 * The decisions of a reflector as a state machine. Pure: no I/O, no timer, no clock, no randomness.
 * `next` is the only writer of the state. The reflector performs the action of the phase, reports
 * results as events, and carries out the effects.
 *
 *     listing → watching              a streamed list continues as the watch
 *     listing → opening → watching    a paged list does not
 *     watching → opening              the server closed the watch
 *     watching → checking → opening or listing    the watch was silent for too long
 *     any → waiting → opening or listing          a failure
 *     any → waiting → listing         the collection does not exist
 *
 * 1. Without a version to watch from, only a list can follow.
 * 2. After a failure the watch resumes from the last version, unless that is unusable: expired, or
 *    followed by an invalid line or an exception in the store.
 * 3. A silent watch may be dead, and the next one no better: a server that was restored from a
 *    backup accepts a watch from a version that it has not reached, and sends nothing until it has.
 *    So after each silence the server's version is requested; if it is below ours, everything is
 *    listed again.
 */
import type { Log, LogFields } from '../../../base/log.ts';
import { KubeError } from '../api/kube-error.ts';
import {
  closeDelayMs,
  noErrors,
  noFailures,
  retryAfterFailure,
  type ErrorCounts,
  type Failures,
  type ReflectorErrorCode,
  type RetryTiming,
} from './retry-policy.ts';

export interface ReflectorTiming extends RetryTiming {
  /** A watch that was open this long ends a series of failures. */
  readonly healthyMs: number;
  /** Longest time without a byte on an open watch; up to a quarter of it is added at random. */
  readonly silenceMs: number;
  /** A watch under check is replaced unless it receives something within this time. */
  readonly checkGraceMs: number;
  /** Requests for a check sooner after the last one are ignored. */
  readonly checkEveryMs: number;
  /** Longest time between two requests for a collection that the server does not have. */
  readonly absentEveryMs: number;
}

export const defaultTiming: ReflectorTiming = {
  backoff: { baseMs: 200, capMs: 10_000 },
  outage: { baseMs: 200, capMs: 10_000 },
  relistJitterMs: 2_000,
  healthyMs: 1000,
  // Measured: bookmarks come 60 s apart, up to 75 s by the server's source. But none comes while
  // the server's version of the resource equals the one at which the watch began: in a quiet
  // cluster where etcd does not report progress, silence is healthy, and must cost no list.
  silenceMs: 80_000,
  // Events arrive within some milliseconds of the change, on a loaded server within tens.
  checkGraceMs: 300,
  checkEveryMs: 5_000,
  // One small request a minute from each node, until the kind is installed.
  absentEveryMs: 60_000,
};

export type Phase = Readonly<
  | { kind: 'listing'; by: 'pages' | 'stream' }
  /** `checking`: a list of one object, to get the server's version. */
  | { kind: 'opening' | 'watching' | 'checking' }
  /** `code` of the failure, if there was one. */
  | { kind: 'waiting'; code?: ReflectorErrorCode; delayMs: number; isWakeable: boolean }
>;

/** The failure that has lasted since `sinceMs`; of several failures the last one. */
export interface WatchFailure {
  readonly code: ReflectorErrorCode;
  readonly message: string;
  /** Monotonic. */
  readonly sinceMs: number;
  /**
   * The server has no such collection: this is not a failure, and the collection counts as empty.
   */
  readonly isAbsence: boolean;
}

export interface ReflectorState {
  readonly phase: Phase;
  readonly sinceMs: number;
  /** The version to watch from; `undefined` requires a list. */
  readonly version: string | undefined;
  /** The snapshot of a paged list expired: the next list requests everything at once. */
  readonly isUnpaged: boolean;
  /** Malformed streamed lists in a row. After two, lists are paged. */
  readonly malformedLists: number;
  /** Complete lists, opened watches, and watches that were silent until their time limit. */
  readonly lists: number;
  readonly watches: number;
  readonly silences: number;
  readonly errors: ErrorCounts;
  /** -Infinity before the first contact. */
  readonly contactAtMs: number;
  /** When the store was last known to be current. */
  readonly provenAtMs: number;
  /** When the last check was requested that was not ignored. */
  readonly checkAtMs: number;
  readonly failures: Failures;
  /** The failure last logged, while it lasts: until a watch is healthy again. */
  readonly failing: WatchFailure | undefined;
  /** The server could not be reached or was failing at the last request. */
  readonly isAway: boolean;
  /** Watches that the server closed cleanly since one was healthy. */
  readonly closes: number;
  /** What the reflector has to do after the last event. */
  readonly effects: readonly Effect[];
}

export type ReflectorEvent = Readonly<
  /** A part of an incomplete list arrived. */
  | { kind: 'heard' }
  /** The server accepted the watch; ended it cleanly; did not mark the end of its list. */
  | { kind: 'opened' | 'ended' | 'unmarked' }
  /**
   * The store contains the complete list; an event or bookmark of the watch; the server's version.
   */
  | { kind: 'listed' | 'changed' | 'checked'; version: string }
  | { kind: 'failed'; error: unknown }
  /** The collection does not exist; the store is empty. */
  | { kind: 'absent'; error: KubeError }
  /** The wait is over; another reflector found that the server has recovered. */
  | { kind: 'waited' | 'recovered' }
  /** An object is missing; `checkGraceMs` after that. The watch has been open for `healthyMs`. */
  | { kind: 'check-requested' | 'check-due' | 'healthy' }
>;

export type Effect = Readonly<
  | { kind: 'log'; level: keyof Log; message: string; fields: LogFields }
  /** Reports the event after a while, unless the running call has ended by then. */
  | { kind: 'arm'; delayMs: number; event: ReflectorEvent }
  | { kind: 'synced' | 'refuse-streams' | 'notify-recovery' }
>;

export interface Services {
  readonly timing: ReflectorTiming;
  readonly nowMs: number;
  /** From 0 up to 1. */
  readonly chance: number;
  /** The server is not known to refuse lists as streams. */
  readonly streamsLists: boolean;
}

type Draft = { -readonly [Field in keyof ReflectorState]: ReflectorState[Field] } & {
  effects: Effect[];
};

export function initialState(nowMs: number, streamsLists: boolean): ReflectorState {
  return {
    phase: { kind: 'listing', by: streamsLists ? 'stream' : 'pages' },
    sinceMs: nowMs,
    version: undefined,
    isUnpaged: false,
    malformedLists: 0,
    lists: 0,
    watches: 0,
    silences: 0,
    errors: noErrors,
    contactAtMs: -Infinity,
    provenAtMs: nowMs,
    checkAtMs: -Infinity,
    failures: noFailures,
    failing: undefined,
    isAway: false,
    closes: 0,
    effects: [],
  };
}

/** An event that does not fit the phase is late, and changes nothing. */
export function next(
  before: ReflectorState,
  event: ReflectorEvent,
  around: Services,
): ReflectorState {
  const { phase } = before;
  const state: Draft = { ...before, effects: [] };
  switch (event.kind) {
    case 'heard':
    case 'opened':
      state.contactAtMs = around.nowMs;
      if (event.kind === 'opened' && phase.kind === 'opening') watch(state, around);
      break;
    case 'listed':
      if (phase.kind === 'listing') listed(state, phase.by, event.version, around);
      break;
    case 'changed':
      if (phase.kind === 'watching') prove(state, event.version, around);
      break;
    case 'unmarked':
      if (phase.kind === 'listing') refuseStreams(state, 'the list has no end mark', around);
      break;
    case 'ended':
      if (phase.kind !== 'waiting' && phase.kind !== 'checking') ended(state, around);
      break;
    case 'failed':
      if (phase.kind !== 'waiting') failed(state, event.error, around);
      break;
    case 'absent':
      if (phase.kind !== 'waiting') absent(state, event.error, around);
      break;
    case 'healthy':
      if (phase.kind === 'watching') healthy(state, around);
      break;
    case 'waited':
      if (phase.kind === 'waiting') proceed(state, around, phase.delayMs);
      break;
    case 'recovered':
      wake(state, around);
      break;
    case 'check-requested':
      requestCheck(state, around);
      break;
    case 'check-due':
      if (phase.kind === 'watching' && state.contactAtMs <= state.checkAtMs) check(state, around);
      break;
    case 'checked':
      if (phase.kind === 'checking') checked(state, event.version, around);
  }
  return state;
}

function enter(state: Draft, phase: Phase, { nowMs }: Services): void {
  state.phase = phase;
  state.sinceMs = nowMs;
}

/** Continues with the next request. */
function proceed(state: Draft, around: Services, waitedMs = 0): void {
  state.failures = { ...state.failures, waitedMs };
  if (state.version !== undefined) enter(state, { kind: 'opening' }, around);
  else {
    const isStreamed = around.streamsLists && state.malformedLists < 2;
    enter(state, { kind: 'listing', by: isStreamed ? 'stream' : 'pages' }, around);
  }
}

/** The store is as new as the data just received. */
function prove(state: Draft, version: string, { nowMs }: Services): void {
  state.version = version;
  state.contactAtMs = nowMs;
  state.provenAtMs = nowMs;
}

function listed(state: Draft, by: 'pages' | 'stream', version: string, around: Services): void {
  prove(state, version, around);
  state.isUnpaged = false;
  state.lists += 1;
  if (state.lists === 1) state.effects.push({ kind: 'synced' });
  if (by === 'stream') {
    state.malformedLists = 0;
    watch(state, around);
  } else {
    proceed(state, around);
  }
  answered(state);
}

function watch(state: Draft, around: Services): void {
  enter(state, { kind: 'watching' }, around);
  state.watches += 1;
  const delayMs = around.timing.healthyMs;
  state.effects.push({ kind: 'arm', delayMs, event: { kind: 'healthy' } });
  answered(state);
}

function answered(state: Draft): void {
  if (state.isAway) state.effects.push({ kind: 'notify-recovery' });
  state.isAway = false;
}

/** A watch delivers missed changes first, so by now the store is current. */
function healthy(state: Draft, { nowMs }: Services): void {
  const { count } = state.failures;
  if (state.failing !== undefined) log(state, 'info', 'watch recovered', { failures: count });
  state.failures = noFailures;
  state.failing = undefined;
  state.closes = 0;
  state.provenAtMs = nowMs;
}

function ended(state: Draft, around: Services): void {
  const { version } = state;
  if (version === undefined) {
    failed(state, new KubeError('NETWORK', 'the list ended too early'), around);
    return;
  }
  prove(state, version, around);
  state.closes += 1;
  const delayMs = closeDelayMs(around.timing, state.closes, around.chance);
  if (delayMs === 0) proceed(state, around);
  else enter(state, { kind: 'waiting', delayMs, isWakeable: false }, around);
}

function failed(state: Draft, error: unknown, around: Services): void {
  const { phase, sinceMs, version } = state;
  const { timing, nowMs, chance } = around;
  const isReached = phase.kind === 'watching' || state.contactAtMs > sinceMs;
  if (phase.kind === 'watching' && error instanceof KubeError && error.code === 'TIMEOUT') {
    state.silences += 1;
    check(state, around);
    return;
  }
  if (phase.kind === 'listing' && phase.by === 'stream' && isRefusal(error, isReached)) {
    refuseStreams(state, error.message, around);
    return;
  }
  const triedMs = isReached ? 0 : nowMs - sinceMs;
  const isStream = phase.kind === 'listing' && phase.by === 'stream';
  if (isStream && error instanceof KubeError && error.code === 'MALFORMED') state.malformedLists++;
  const retry = retryAfterFailure(error, state.failures, timing, triedMs, chance);
  const { code, failures, isRelist, delayMs, isWakeable } = retry;
  enter(state, { kind: 'waiting', code, delayMs, isWakeable }, around);
  if (version === undefined) state.isUnpaged ||= code === 'GONE';
  if (isRelist) state.version = undefined;
  state.errors = { ...state.errors, [code]: state.errors[code] + 1 };
  state.failures = failures;
  state.isAway ||= failures.kind === 'outage';
  const retryInMs = Math.round(delayMs);
  // The stack of an internal exception is logged; failures of server or network have no useful
  // stack.
  const err = code === 'INTERNAL' || !(error instanceof Error) ? error : error.message;
  report(state, code, { code, err, failures: failures.count, retryInMs });
  const message = code !== 'INTERNAL' && error instanceof Error ? error.message : internalFailure;
  const before = state.failing?.isAbsence === false ? state.failing : undefined;
  state.failing = { code, message, sinceMs: before?.sinceMs ?? nowMs, isAbsence: false };
}

/** The message of an internal exception goes to the log only. */
const internalFailure = 'exception in a watch handler';

/** An absent collection counts as a list, and is requested again until the kind is installed. */
function absent(state: Draft, { code, message }: KubeError, around: Services): void {
  const { timing, nowMs, chance } = around;
  if (state.lists === 0) state.effects.push({ kind: 'synced' });
  state.lists = Math.max(1, state.lists);
  state.version = undefined;
  state.contactAtMs = nowMs;
  state.provenAtMs = nowMs;
  const delayMs = (timing.absentEveryMs * (1 + chance)) / 2;
  enter(state, { kind: 'waiting', code, delayMs, isWakeable: false }, around);
  const before = state.failing;
  if (before?.code !== code) {
    log(state, 'warn', 'resource type is not available, taken as empty', { code, err: message });
  }
  const sinceMs = before?.isAbsence === true ? before.sinceMs : nowMs;
  state.failing = { code, message, sinceMs, isAbsence: true };
  answered(state);
}

/** The status is 422 if the feature is off or unknown. */
function isRefusal(error: unknown, isReached: boolean): error is KubeError {
  if (!(error instanceof KubeError)) return false;
  return error.status === 422 || error.status === 400 || (isReached && error.code === 'TIMEOUT');
}

function refuseStreams(state: Draft, reason: string, around: Services): void {
  enter(state, { kind: 'listing', by: 'pages' }, around);
  state.effects.push({ kind: 'refuse-streams' });
  log(state, 'info', 'the server streams no lists, listing page by page', { reason });
}

function report(state: Draft, code: ReflectorErrorCode, fields: LogFields): void {
  if (state.failing?.code === code) log(state, 'debug', 'watch still failing', fields);
  else if (code === 'GONE') log(state, 'info', 'watch version expired, listing again', fields);
  else if (code === 'NOT_FOUND')
    log(state, 'error', 'resource type is not installed, retrying', fields);
  else if (code === 'INTERNAL')
    log(state, 'error', 'exception in a watch handler, listing again', fields);
  else log(state, 'warn', 'watch failed, retrying', fields);
}

/** Ends the wait for the end of an outage. */
function wake(state: Draft, around: Services): void {
  if (state.phase.kind === 'waiting' && state.phase.isWakeable) proceed(state, around);
}

function requestCheck(state: Draft, around: Services): void {
  const { timing, nowMs } = around;
  const { kind } = state.phase;
  if (kind !== 'watching' && kind !== 'waiting') return;
  if (nowMs - state.checkAtMs < timing.checkEveryMs) return;
  state.checkAtMs = nowMs;
  wake(state, around);
  if (kind === 'waiting') return;
  state.effects.push({ kind: 'arm', delayMs: timing.checkGraceMs, event: { kind: 'check-due' } });
}

function check(state: Draft, around: Services): void {
  enter(state, { kind: 'checking' }, around);
  log(state, 'debug', 'watch is silent, opening another', {});
}

function checked(state: Draft, newest: string, around: Services): void {
  const { version } = state;
  if (version !== undefined && isBefore(newest, version)) {
    state.version = undefined;
    const fields = { newest, version };
    log(state, 'warn', 'API server resourceVersion went backwards, listing again', fields);
  }
  state.contactAtMs = around.nowMs;
  proceed(state, around);
}

/** Versions of one server are numbers that grow. */
function isBefore(one: string, other: string): boolean {
  return /^\d+$/.test(one) && /^\d+$/.test(other) && BigInt(one) < BigInt(other);
}

function log(state: Draft, level: keyof Log, message: string, fields: LogFields): void {
  state.effects.push({ kind: 'log', level, message, fields });
}
