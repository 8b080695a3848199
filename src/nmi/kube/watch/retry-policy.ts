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
   * Spread of relists after an expired version, so that a whole cluster does not relist at once.
   */
  readonly relistJitterMs: number;
}

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
  /** The wait may end early: the outage may be over, and the server named no time. */
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

/** `triedMs`: how long the attempt waited to reach the server. `chance`: from 0 up to 1. */
export function retryAfterFailure(
  error: unknown,
  before: Failures,
  timing: RetryTiming,
  triedMs: number,
  chance: number,
): Retry {
  const { code = 'INTERNAL', status, retryAfterMs } = error instanceof KubeError ? error : {};
  // 400: the server cannot parse the version; only a list returns another.
  const kind = status === 400 ? 'refusal' : kinds[code];
  const isRelist = status === 400 || ['GONE', 'MALFORMED', 'INTERNAL'].includes(code);
  const count = kind === before.kind ? before.count + 1 : 1;
  const isWakeable = kind === 'outage' && retryAfterMs === undefined;
  let delayMs = backoffMs(
    timing[kind === 'outage' ? kind : 'backoff'],
    count,
    chance,
    retryAfterMs,
  );
  if (isWakeable) delayMs = Math.max(0, delayMs - triedMs);
  // Nodes that have waited are already spread.
  if (kind === 'expiry' && count === 1) {
    delayMs = Math.max(0, chance * timing.relistJitterMs - before.waitedMs);
  }
  return { code, failures: { ...before, kind, count }, isRelist, delayMs, isWakeable };
}

/**
 * The delay after `closes` watches that the server closed cleanly since one was healthy: it must
 * not get requests in a tight loop.
 */
export function closeDelayMs({ backoff }: RetryTiming, closes: number, chance: number): number {
  if (closes <= 2) return 0;
  return backoffMs({ ...backoff, capMs: Math.min(1000, backoff.capMs) }, closes - 2, chance);
}
