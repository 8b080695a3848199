/**
 * All answers of the metadata address, from one closed table. A reason determines the status, the
 * OAuth error code and `Retry-After`; the same word is the metric label and the log field.
 *
 * The statuses are chosen for the behavior of real clients:
 * - 400 is permanent: no client retries it and credential chains move on, so never for a transient
 *   state.
 * - 503 and 429 are retried by every client that retries at all, and by Azure SDKs only with
 *   `Retry-After`, so they always carry it. No other status does: MSAL replays any answer that has
 *   it.
 * - never 410 (some clients wait 70 s), never 404 for identity state, and never the word
 *   "unreachable" in a 403, which clients take for "no managed identity here".
 * - every error is JSON: MSAL for Node fails without retry on anything else.
 */

interface Row {
  readonly status: number;
  readonly error: string;
  /** Seconds; present exactly on 429 and 503. */
  readonly retryAfterS?: number;
}

/** Error code that identifies the agent's own answer when its request returned to it. */
export const loopError = 'loop_detected';

const invalid = { status: 400, error: 'invalid_request' } as const;
const denied = { status: 403, error: 'access_denied' } as const;

export const refusals = {
  metadata_header_missing: invalid,
  forwarded: invalid,
  path_invalid: invalid,
  request_malformed: invalid,
  parameter_missing: invalid,
  parameter_duplicate: invalid,
  parameter_invalid: invalid,
  selector_conflict: invalid,
  not_found: { status: 404, error: 'not_found' },
  method_not_allowed: { status: 405, error: 'method_not_allowed' },
  request_timeout: { status: 408, error: 'request_timeout' },
  headers_too_large: { status: 431, error: 'request_header_fields_too_large' },
  metadata_blocked: denied,
  host_only: denied,
  host_network_refused: denied,
  caller_unattested: denied,
  agent_not_synced: { status: 503, error: 'temporarily_unavailable', retryAfterS: 1 },
  pod_unknown: { status: 503, error: 'temporarily_unavailable', retryAfterS: 1 },
  pod_ambiguous: { status: 503, error: 'temporarily_unavailable', retryAfterS: 1 },
  connection_outlived_pod: { status: 503, error: 'temporarily_unavailable', retryAfterS: 1 },
  no_binding_label: invalid,
  binding_missing: invalid,
  binding_pending: { status: 503, error: 'temporarily_unavailable', retryAfterS: 2 },
  identity_missing: invalid,
  identity_pending: { status: 503, error: 'temporarily_unavailable', retryAfterS: 2 },
  identity_invalid: invalid,
  identity_unsupported: invalid,
  selector_not_bound: invalid,
  identity_ambiguous: invalid,
  identity_not_owned: invalid,
  identity_not_assigned: invalid,
  resource_not_allowed: { status: 400, error: 'invalid_resource' },
  upstream_refused: invalid,
  resource_refused: { status: 400, error: 'invalid_resource' },
  identity_refused: { status: 400, error: 'unauthorized_client' },
  credential_refused: { status: 400, error: 'invalid_client' },
  credential_invalid: { status: 400, error: 'invalid_client' },
  credential_missing: { status: 400, error: 'invalid_client' },
  credential_pending: { status: 503, error: 'temporarily_unavailable', retryAfterS: 2 },
  federation_refused: { status: 400, error: 'invalid_client' },
  federation_pending: { status: 503, error: 'temporarily_unavailable', retryAfterS: 5 },
  policy_refused: denied,
  upstream_throttled: { status: 429, error: 'too_many_requests', retryAfterS: 5 },
  upstream_down: { status: 503, error: 'temporarily_unavailable', retryAfterS: 2 },
  loop_detected: { status: 508, error: loopError },
  caller_throttled: { status: 429, error: 'too_many_requests', retryAfterS: 1 },
  internal_error: { status: 500, error: 'server_error' },
} as const satisfies Record<string, Row>;

export type RefusalReason = keyof typeof refusals;
/** Outcome of a request; `ok` is a token or a relayed answer. */
export type Reason = RefusalReason | 'ok';

/** All reasons except the one whose body is IMDS's own. */
export type DescribedReason = Exclude<RefusalReason, 'metadata_header_missing'>;

export interface Answer {
  readonly reason: Reason;
  readonly status: number;
  readonly body: string;
  readonly retryAfterS?: number;
  /** The `Allow` header of a 405. */
  readonly allow?: string;
  /** The connection must not be used again. */
  readonly close?: boolean;
}

/** IMDS's own 88 bytes, which several SDKs probe for. */
export const metadataHeaderMissing: Answer = {
  reason: 'metadata_header_missing',
  status: 400,
  body: '{"error":"invalid_request","error_description":"Required metadata header not specified"}',
};

/**
 * Replaces "unreachable" in a 403, which clients look for: a policy's text or a pod's name may
 * contain it.
 */
const gone = 'un-reachable';

/** Fields of Entra ID's error besides error and description; relayed unchanged. */
export interface EntraErrorDetails {
  readonly errorCodes: readonly number[];
  readonly timestamp: string;
  readonly traceId: string;
  readonly correlationId: string;
}

export interface RefusalExtra extends Pick<Answer, 'allow' | 'close'> {
  /** The upstream's own error code instead of the table's. */
  readonly error?: string;
  /** A longer wait than the table's, in seconds. Only on reasons that have one. */
  readonly retryAfterS?: number;
  /** Further fields of Entra ID's error. */
  readonly details?: EntraErrorDetails;
}

/** @param description text for the caller: the problem and its remedy. */
export function refuse(
  reason: DescribedReason,
  description: string,
  extra: RefusalExtra = {},
): Answer {
  const row: Row = refusals[reason];
  const text = row.status === 403 ? description.replaceAll(/unreachable/gi, gone) : description;
  const body = JSON.stringify({
    error: extra.error ?? row.error,
    // The reason is at the end, since clients look for phrases of the service at the beginning.
    error_description: `${text} (${reason})`,
    ...(extra.details === undefined ? {} : renderDetails(extra.details)),
  });
  return {
    reason,
    status: row.status,
    body,
    ...(row.retryAfterS === undefined
      ? {}
      : { retryAfterS: Math.max(row.retryAfterS, extra.retryAfterS ?? 0) }),
    ...(extra.allow === undefined ? {} : { allow: extra.allow }),
    ...(extra.close === undefined ? {} : { close: extra.close }),
  };
}

/** Under Entra ID's own names, which clients read. */
function renderDetails(details: EntraErrorDetails): Readonly<Record<string, unknown>> {
  return {
    error_codes: details.errorCodes,
    timestamp: details.timestamp,
    trace_id: details.traceId,
    correlation_id: details.correlationId,
  };
}

export function answerToken(body: string): Answer {
  return { reason: 'ok', status: 200, body };
}
