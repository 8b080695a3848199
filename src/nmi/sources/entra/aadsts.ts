/**
 * The meaning of an error of Entra ID: by its code, else its OAuth error, else its status. Pure.
 */
import type { EntraErrorDetails } from '../../base/answers.ts';
import { parseRecord, stringAt, type JsonRecord } from '../../../base/json-value.ts';
import type { FailureReason, SourceFailure } from '../source.ts';

export const entraId = 'Entra ID';

export interface EntraAnswer {
  /** Who answered. Default: Entra ID itself. */
  readonly server?: string;
  readonly status: number;
  readonly body: string;
  readonly retryAfterS: number | undefined;
  readonly clockAheadMs?: number;
}

export type EntraReason = Exclude<
  FailureReason,
  'identity_not_assigned' | 'credential_missing' | 'credential_invalid' | 'federation_pending'
>;

interface ReasonRow {
  /** How long a repeated request is useless. */
  readonly cooldownMs: number;
  /** OAuth errors that are relayed unchanged; the first, if any, replaces all others. */
  readonly errors: readonly string[];
}

const reasons = {
  resource_refused: { cooldownMs: 45_000, errors: ['invalid_resource', 'invalid_scope'] },
  identity_refused: { cooldownMs: 45_000, errors: ['unauthorized_client', 'invalid_request'] },
  credential_refused: { cooldownMs: 5_000, errors: ['invalid_client'] },
  // Refused by mistake now and then: grows while it lasts.
  federation_refused: { cooldownMs: 250, errors: ['invalid_client', 'invalid_request'] },
  policy_refused: { cooldownMs: 45_000, errors: ['access_denied'] },
  upstream_refused: { cooldownMs: 5_000, errors: ['invalid_request'] },
  upstream_throttled: { cooldownMs: 10_000, errors: [] },
  upstream_down: { cooldownMs: 250, errors: [] },
} as const satisfies Record<EntraReason, ReasonRow>;

interface CodeRow {
  readonly reason: EntraReason;
  /** Used if Entra ID's own OAuth error is not one of the reason's. */
  readonly error: string | undefined;
}

const table: readonly (readonly [EntraReason, string | undefined, readonly number[]])[] = [
  ['resource_refused', 'invalid_resource', [500011, 50001, 500014, 650057, 90009, 901002]],
  ['resource_refused', 'invalid_scope', [70011, 28002, 700022, 700023]],
  ['identity_refused', 'unauthorized_client', [700016, 70001, 7000112, 7000229]],
  ['identity_refused', 'invalid_request', [90002, 90038, 900023, 900382, 900432]],
  [
    'credential_refused',
    'invalid_client',
    [
      7000215, 7000222, 70002, 7000218, 700027, 700030, 50012, 700024, 50013, 700229, 700231,
      700236,
    ],
  ],
  // 70025 and 7002138: no federated credential at all; a subject that differs in letter case.
  ['federation_refused', 'invalid_client', [70021, 70025, 700211, 700212, 700213, 7002138]],
  ['policy_refused', 'access_denied', [53003, 53004, 53011, 530032, 530034, 530035, 50005, 65001]],
  ['upstream_throttled', undefined, [50196, 90055]],
  ['upstream_down', undefined, [90033, 90006, 90012, 90024, 90090, 90091, 50000, 90061]],
];

export const aadstsCodes: ReadonlyMap<number, CodeRow> = new Map(
  table.flatMap(([reason, error, codes]) =>
    codes.map((code) => [code, { reason, error }] as const),
  ),
);

const oauthErrors: ReadonlyMap<string, EntraReason> = new Map([
  ['invalid_resource', 'resource_refused'],
  ['invalid_scope', 'resource_refused'],
  ['invalid_target', 'resource_refused'],
  ['unauthorized_client', 'identity_refused'],
  ['invalid_client', 'credential_refused'],
  ['access_denied', 'policy_refused'],
  ['consent_required', 'policy_refused'],
  ['interaction_required', 'policy_refused'],
  ['server_error', 'upstream_down'],
  ['temporarily_unavailable', 'upstream_down'],
]);

const relayed = [
  'error',
  'error_description',
  // Of a Kubernetes API server.
  'message',
  'timestamp',
  'trace_id',
  'correlation_id',
] as const;

const maxDescription = 2000;
/** A signed token: an assertion of an earlier attempt, or one sent as a resource. */
const jwt = /eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}/;
const maxDetail = 100;
const maxCodes = 20;

/**
 * @param secrets the credential that was sent; no part of it is in the failure, whatever Entra ID,
 * or a server that impersonates it, puts into its answer.
 */
export function classifyEntraError(answer: EntraAnswer, secrets: readonly string[]): SourceFailure {
  const fields = parseRecord(answer.body);
  const details = detailsOf(fields);
  const oauthError = stringAt(fields, 'error').slice(0, maxDetail);
  const row = classify(answer, fields, details.errorCodes, oauthError);
  const failure = {
    ...toFailure(answer, row, oauthError),
    description: describe(answer, fields, oauthError),
    ...(fields === undefined || isEmpty(details) ? {} : { details }),
  };
  if (!tellsAny(fields, secrets)) return failure;
  return {
    ...toFailure(answer, row, ''),
    description: `${answered(answer)}; its text is withheld`,
  };
}

export function entraDown(
  description: string,
  cooldownMs: number = reasons.upstream_down.cooldownMs,
): SourceFailure {
  return { reason: 'upstream_down', description, cooldownMs };
}

function classify(
  answer: EntraAnswer,
  fields: JsonRecord | undefined,
  codes: readonly number[],
  oauthError: string,
): CodeRow {
  const known = codes
    .concat(codesIn(stringAt(fields, 'error_description')))
    .map((code) => aadstsCodes.get(code))
    .find((row) => row !== undefined);
  const byStatus = reasonOfStatus(answer.status, fields);
  // An overloaded or failing server gives nothing else that is a reason to give up.
  if (byStatus === 'upstream_throttled') return { reason: byStatus, error: undefined };
  if (byStatus === 'upstream_down' && answer.status >= 500) {
    return known?.reason === 'upstream_throttled' ? known : { reason: byStatus, error: undefined };
  }
  return known ?? { reason: oauthErrors.get(oauthError) ?? byStatus, error: undefined };
}

function reasonOfStatus(status: number, fields: JsonRecord | undefined): EntraReason {
  if (status === 429) return 'upstream_throttled';
  // Without JSON the answer did not come from Entra ID, but from something on the path to it.
  const isDown = status >= 500 || status < 400 || status === 408 || fields === undefined;
  return isDown ? 'upstream_down' : 'upstream_refused';
}

function toFailure(
  { retryAfterS }: EntraAnswer,
  { reason, error }: CodeRow,
  oauthError: string,
): Omit<SourceFailure, 'description' | 'details'> {
  const { cooldownMs, errors }: ReasonRow = reasons[reason];
  if (reason === 'upstream_throttled') {
    const waitS = Math.max(1, retryAfterS ?? cooldownMs / 1000);
    return { reason, retryAfterS: waitS, cooldownMs: waitS * 1000 };
  }
  if (reason === 'upstream_down') {
    if (retryAfterS === undefined) return { reason, cooldownMs };
    return { reason, retryAfterS: Math.min(Math.max(1, retryAfterS), 10), cooldownMs: 1_000 };
  }
  const isOwn =
    reason === 'upstream_refused' ? isOauthError(oauthError) : errors.includes(oauthError);
  const shown = isOwn ? oauthError : (error ?? errors[0]);
  return shown === undefined ? { reason, cooldownMs } : { reason, error: shown, cooldownMs };
}

function describe(answer: EntraAnswer, fields: JsonRecord | undefined, oauthError: string): string {
  const description = oneLine(stringAt(fields, 'error_description'), maxDescription);
  if (description !== '') return description;
  if (isOauthError(oauthError)) return `${answered(answer)} (${oauthError})`;
  const message = oneLine(stringAt(fields, 'message'), maxDescription);
  if (message !== '') return `${answered(answer)}: ${message}`;
  return fields === undefined ? `${answered(answer)} without JSON` : answered(answer);
}

function answered({ status, server = entraId }: EntraAnswer): string {
  return `${server} answered status ${status}`;
}

function detailsOf(fields: JsonRecord | undefined): EntraErrorDetails {
  const codes = fields?.['error_codes'];
  return {
    errorCodes: Array.isArray(codes) ? codes.filter(isCode).slice(0, maxCodes) : [],
    timestamp: oneLine(stringAt(fields, 'timestamp'), maxDetail),
    traceId: oneLine(stringAt(fields, 'trace_id'), maxDetail),
    correlationId: oneLine(stringAt(fields, 'correlation_id'), maxDetail),
  };
}

function isEmpty({ errorCodes, timestamp, traceId, correlationId }: EntraErrorDetails): boolean {
  return errorCodes.length === 0 && timestamp + traceId + correlationId === '';
}

function isCode(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value);
}

function codesIn(description: string): readonly number[] {
  return Array.from(description.matchAll(/AADSTS(\d{1,9})/g), ([, digits]) => Number(digits));
}

function isOauthError(text: string): boolean {
  return /^[a-z][a-z0-9_]{2,63}$/.test(text);
}

function oneLine(text: string, maxLength: number): string {
  const line = text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim();
  return line.length > maxLength ? `${line.slice(0, maxLength - 3)}...` : line;
}

/** Whether any relayed field contains a secret, even if it is broken over lines or cut later. */
function tellsAny(fields: JsonRecord | undefined, secrets: readonly string[]): boolean {
  const texts = relayed.map((name) => withoutSpace(stringAt(fields, name)));
  if (texts.some((text) => jwt.test(text))) return true;
  return secrets
    .flatMap(tellingParts)
    .some((part) => part !== '' && texts.some((text) => text.includes(part)));
}

/** A secret in all spellings in which it may be returned, and the signature of a JWT alone. */
function tellingParts(secret: string): readonly string[] {
  const signature = /^[\w-]+\.[\w-]+\.([\w-]{16,})$/.exec(secret)?.[1] ?? '';
  const form = new URLSearchParams({ '': secret }).toString().slice(1);
  return [withoutSpace(secret), encodeURIComponent(secret), form, signature];
}

function withoutSpace(text: string): string {
  return text.replaceAll(/\s+/g, '');
}
