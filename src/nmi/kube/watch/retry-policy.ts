/**
 * What is retried after a failure of a list or watch, and when. Pure; randomness is a parameter.
 */
import { backoffMs, type Backoff } from '../api/backoff.ts';
import { KubeError, type KubeErrorCode } from '../api/kube-error.ts';

/** `INTERNAL`: an exception in the store, contained by the reflector. */
export type ReflectorErrorCode = KubeErrorCode | 'INTERNAL';

/**
 * Few enough to be the labels of a metric.
 * - `outage`: may end at any moment, and new pods wait for that.
 * - `refusal`: repeats until something is changed.
 * - `expiry`: not an error, but a whole cluster may have it at once.
 * - `exception`: a bug of the agent.
 */
export type ErrorKind = 'outage' | 'refusal' | 'expiry' | 'exception';

export interface RetryTiming {
  readonly backoff: Backoff;
  readonly outage: Backoff;
  /**
   * Spread of relists after an expired version, so that a whole cluster does not relist at once: so
   * much, and so much for each object of the list, since the server pays for each.
   */
  readonly relistJitterMs: number;
  readonly relistJitterPerObjectMs: number;
}

/** What failed. */
export interface Attempt {
  /** How long it waited to reach the server. */
  readonly triedMs: number;
  /** Time without an answer of the server, since the first failure. */
  readonly awayForMs: number;
  /** In the store. */
  readonly objects: number;
  /** From 0 up to 1. */
  readonly chance: number;
}

/** 20,000 objects of 5,000 nodes are 100 million, which cost servers some 1,000 s of processor. */
const maxRelistJitterMs = 60_000;
/** In a long outage the waits grow to this share of it, so that its end is seen that late at most. */
const shareOfOutage = 1 / 20;
const maxOutageWaitMs = 30_000;

/** Consecutive failures of one kind. */
export interface Failures {
  readonly kind: ErrorKind | undefined;
  readonly count: number;
  /** The last wait, 0 if it was cut short. It was random, too. */
  readonly waitedMs: number;
}

export const noFailures: Failures = { kind: undefined, count: 0, waitedMs: 0 };

export interface Retry {
  readonly code: ReflectorErrorCode;
  readonly failures: Failures & { readonly kind: ErrorKind };
  /** The version to watch from cannot be used any more. */
  readonly isRelist: boolean;
  readonly delayMs: number;
  /** Further wait, which a waiting request ends. */
  readonly idleMs: number;
  /** The waits may end early: the outage may be over, and the server named no time. */
  readonly isWakeable: boolean;
}

const kinds: Readonly<Record<ReflectorErrorCode, ErrorKind>> = {
  NETWORK: 'outage',
  TIMEOUT: 'outage',
  SERVER: 'outage',
  THROTTLED: 'refusal',
  UNAUTHORIZED: 'refusal',
  FORBIDDEN: 'refusal',
  IMPERSONATION: 'refusal',
  NOT_FOUND: 'refusal',
  CONFIG: 'refusal',
  MALFORMED: 'refusal',
  TOO_LARGE: 'refusal',
  GONE: 'expiry',
  INTERNAL: 'exception',
};

export function retryAfterFailure(
  error: unknown,
  before: Failures,
  timing: RetryTiming,
  { triedMs, awayForMs, objects, chance }: Attempt,
): Retry {
  const { code = 'INTERNAL', status, retryAfterMs } = error instanceof KubeError ? error : {};
  // 400: the server cannot parse the version; only a list returns another.
  const kind = status === 400 ? 'refusal' : kinds[code];
  const isRelist = status === 400 || ['GONE', 'MALFORMED', 'INTERNAL'].includes(code);
  const count = kind === before.kind ? before.count + 1 : 1;
  const isWakeable = kind === 'outage' && retryAfterMs === undefined;
  const backoff = timing[kind === 'outage' ? kind : 'backoff'];
  let delayMs = backoffMs(backoff, count, chance, retryAfterMs);
  let idleMs = 0;
  if (isWakeable) {
    delayMs = Math.max(0, delayMs - triedMs);
    const capMs = Math.min(maxOutageWaitMs, awayForMs * shareOfOutage);
    idleMs = Math.max(0, backoffMs({ ...backoff, capMs }, count, chance) - triedMs - delayMs);
  }
  // Nodes that have waited are already spread.
  if (kind === 'expiry' && count === 1) {
    const { relistJitterMs, relistJitterPerObjectMs } = timing;
    const perObjectMs = Math.min(maxRelistJitterMs, objects * relistJitterPerObjectMs);
    delayMs = Math.max(0, chance * relistJitterMs - before.waitedMs);
    idleMs = Math.max(0, chance * (relistJitterMs + perObjectMs) - before.waitedMs - delayMs);
  }
  return { code, failures: { ...before, kind, count }, isRelist, delayMs, idleMs, isWakeable };
}

/**
 * The delay after `closes` watches that the server closed cleanly since one was healthy: it must
 * not get requests in a tight loop.
 */
export function closeDelayMs({ backoff }: RetryTiming, closes: number, chance: number): number {
  if (closes <= 2) return 0;
  return backoffMs({ ...backoff, capMs: Math.min(1000, backoff.capMs) }, closes - 2, chance);
}
