/** Failures of a call for one object of the API server, as values for the caller to act on. */
import { KubeError } from './kube-error.ts';

export interface Forbidden {
  readonly kind: 'forbidden';
  /** The API server's own message, which names the missing permission or the policy. */
  readonly said: string;
}

/** Transient. */
export interface Unavailable {
  readonly kind: 'unavailable';
  /** A short word: an error code, or `status 500`. */
  readonly problem: string;
  /** `Retry-After` of the server, in milliseconds. */
  readonly retryAfterMs: number | undefined;
}

/** @throws any error other than `KubeError`: the reason of an aborted signal, or a bug. */
export function outcomeOfFailure(failure: unknown): Forbidden | Unavailable {
  if (!(failure instanceof KubeError)) throw failure;
  if (failure.code === 'FORBIDDEN') return { kind: 'forbidden', said: failure.message };
  const problem = failure.code === 'SERVER' ? `status ${failure.status ?? 0}` : failure.code;
  return { kind: 'unavailable', problem, retryAfterMs: failure.retryAfterMs };
}

/** The answer does not conform to the API. */
export const malformed: Unavailable = {
  kind: 'unavailable',
  problem: 'MALFORMED',
  retryAfterMs: undefined,
};
