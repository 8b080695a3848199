/** What follows on each kind of failure of a list or watch. Pure. */
import type { KubeError, KubeErrorCode } from '../api/kube-error.ts';

/** `INTERNAL`: an exception in the store or in a listener, contained by the reflector. */
export type ReflectorErrorCode = KubeErrorCode | 'INTERNAL';

export interface Remedy {
  /** Whether the version to go on from is still good. */
  readonly way: 'resume' | 'relist';
  /**
   * - `outage`: it may be over at any moment, and new pods wait for that.
   * - `refusal`: an answer that comes again until somebody changes something.
   * - `expiry`: nothing is wrong, but a whole cluster may have met it at once.
   */
  readonly pace: 'outage' | 'refusal' | 'expiry';
}

const remedies = {
  NETWORK: { way: 'resume', pace: 'outage' },
  TIMEOUT: { way: 'resume', pace: 'outage' },
  SERVER: { way: 'resume', pace: 'outage' },
  THROTTLED: { way: 'resume', pace: 'refusal' },
  GONE: { way: 'relist', pace: 'expiry' },
  UNAUTHORIZED: { way: 'resume', pace: 'refusal' },
  FORBIDDEN: { way: 'resume', pace: 'refusal' },
  NOT_FOUND: { way: 'resume', pace: 'refusal' },
  CONFIG: { way: 'resume', pace: 'refusal' },
  MALFORMED: { way: 'relist', pace: 'refusal' },
  INTERNAL: { way: 'relist', pace: 'refusal' },
} as const satisfies Record<ReflectorErrorCode, Remedy>;

export function remedyOf(code: ReflectorErrorCode, error: KubeError | undefined): Remedy {
  // A version that the server cannot read; only a list gives another.
  if (error?.status === 400) return { way: 'relist', pace: 'refusal' };
  return remedies[code];
}

export function noErrors(): Record<ReflectorErrorCode, number> {
  return {
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
}

/** The paces, and apart from them what is a bug of ours. */
export type ErrorKind = Remedy['pace'] | 'exception';

/** Few enough to be the labels of a metric. */
export function errorsByKind(
  errors: Readonly<Record<ReflectorErrorCode, number>>,
): Readonly<Record<ErrorKind, number>> {
  const { NETWORK, TIMEOUT, SERVER, THROTTLED, GONE, MALFORMED, INTERNAL } = errors;
  const { UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFIG } = errors;
  return {
    outage: NETWORK + TIMEOUT + SERVER,
    refusal: UNAUTHORIZED + FORBIDDEN + NOT_FOUND + THROTTLED + CONFIG + MALFORMED,
    expiry: GONE,
    exception: INTERNAL,
  };
}
