/**
 * Failures of calls of the Kubernetes API, as codes. Only this file translates HTTP status, errno
 * and library exceptions; no other code reads message texts.
 */
import { CodedError } from '../../../base/coded-error.ts';
import { networkCode } from '../../../base/network-code.ts';

export type KubeErrorCode =
  /** 404: the object, or the whole resource type, does not exist. */
  | 'NOT_FOUND'
  /** 410: the resourceVersion or continue token is older than the server's history. */
  | 'GONE'
  | 'UNAUTHORIZED'
  | 'FORBIDDEN'
  /** 403: the user may not make this call in the name of another. */
  | 'IMPERSONATION'
  /** 429; `retryAfterMs` if the server sent `Retry-After`. */
  | 'THROTTLED'
  /** Any other status that is not a success, mostly 5xx; and a 403 that passes by itself. */
  | 'SERVER'
  /** No connection, or it broke. */
  | 'NETWORK'
  /** A timeout of the agent or the kernel. */
  | 'TIMEOUT'
  /** The answer does not conform to the API (bad JSON, missing fields). */
  | 'MALFORMED'
  /** The answer is longer than the call allows. */
  | 'TOO_LARGE'
  /** Credentials or addresses on this side are missing or unusable. */
  | 'CONFIG';

export interface KubeErrorDetails {
  /** HTTP status, if there was an answer. */
  readonly status?: number | undefined;
  /** `Retry-After` of the server, in milliseconds. */
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/** The only error of this folder. Messages contain no credential. */
export class KubeError extends CodedError<KubeErrorCode> {
  readonly status: number | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(code: KubeErrorCode, message: string, details: KubeErrorDetails = {}) {
    super(code, message, details.cause);
    this.status = details.status;
    this.retryAfterMs = details.retryAfterMs;
  }
}

const codesByStatus: ReadonlyMap<number, KubeErrorCode> = new Map([
  [401, 'UNAUTHORIZED'],
  [403, 'FORBIDDEN'],
  [404, 'NOT_FOUND'],
  [410, 'GONE'],
  [429, 'THROTTLED'],
]);

/** By the texts of the API server: it has one status for all refusals. Names have no blanks. */
const codesByRefusal: readonly (readonly [text: RegExp, code: KubeErrorCode])[] = [
  [/" cannot impersonate[ :-]/, 'IMPERSONATION'],
  // To a node: what the server knows of a pod is older than what the caller knows, or newer.
  [/: no relationship found between node /, 'SERVER'],
  [/ does not match the UID in record/, 'SERVER'],
];

/** An answer that is not a success, as an error. `message` is the `Status` object's own. */
export function kubeErrorOfStatus(
  status: number,
  message: string,
  retryAfterMs?: number,
): KubeError {
  const code = codesByStatus.get(status) ?? 'SERVER';
  const [, refusal] = codesByRefusal.find(([text]) => text.test(message)) ?? [];
  return new KubeError(code === 'FORBIDDEN' ? (refusal ?? code) : code, message.slice(0, 512), {
    status,
    retryAfterMs,
  });
}

const timeoutErrnos: ReadonlySet<string> = new Set([
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
]);

const codesByErrno: ReadonlyMap<string, KubeErrorCode> = new Map([
  // A header value undici refuses: an Authorization with control characters.
  ['UND_ERR_INVALID_ARG', 'CONFIG'],
  ['UND_ERR_RES_EXCEEDED_MAX_SIZE', 'MALFORMED'],
  // Not gzip. A compressed answer that was cut is Z_BUF_ERROR, and as any other NETWORK.
  ['Z_DATA_ERROR', 'MALFORMED'],
]);

/** A thrown value of the HTTP client, as an error; a `KubeError` passes unchanged. */
export function kubeErrorOfFailure(failure: unknown): KubeError {
  if (failure instanceof KubeError) return failure;
  const word = networkCode(failure);
  const code = timeoutErrnos.has(word) ? 'TIMEOUT' : (codesByErrno.get(word) ?? 'NETWORK');
  const text = failure instanceof Error ? failure.message : String(failure);
  return new KubeError(code, text === '' ? word : text, { cause: failure });
}
