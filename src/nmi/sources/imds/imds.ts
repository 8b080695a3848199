/**
 * Tokens of the identities that are assigned to the node, from the real instance metadata service.
 * The agent's own call is not redirected: iptables redirects forwarded traffic only, and the eBPF
 * programs exempt the agent's cgroup. IMDS serves at most 5 identity requests at once and 20 per
 * second for a whole node, so at most 4 run here and the others wait. No proxy is ever used. Only
 * resource and identity of the pod's request are sent upstream.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../../../base/time/clock.ts';
import { normaliseClientId, normaliseResourceId } from '../../../cache/index/identifiers.ts';
import { loopError } from '../../base/answers.ts';
import { parseRecord, stringAt } from '../../../base/json-value.ts';
import { correlationHeader } from './loop-detection.ts';
import { networkCode } from '../../../base/network-code.ts';
import { parseRetryAfter } from '../../../base/retry-after.ts';
import { failed } from '../source.ts';
import type { MayRetry, NodeIdentity, SourceResult, TokenRequest, TokenSource } from '../source.ts';
import { classifyEntraError } from '../entra/aadsts.ts';
import { openImdsConnections, type ImdsConnections } from './imds-connections.ts';
import { identityOf, parseImdsToken } from '../token-fields.ts';
import { clockAheadMs } from '../clock-skew.ts';
import { sendBuffered } from '../buffered-request.ts';

const apiVersion = '2018-02-01';
const maxBodyBytes = 64 * 1024;
/** Before the second and third try. IMDS is a local service, so longer pauses do not help. */
const retryDelaysMs = [100, 400];
/** How long a refusal of the upstream is cached: it does not change within seconds. */
const refusalCooldownMs = 5_000;
/** A single bad header must not block a key for days. */
const maxRetryAfterS = 120;

export interface ImdsSourceOptions {
  /** Base URL, for instance `http://169.254.169.254`. */
  readonly endpoint: string;
  readonly userAgent: string;
  /** For one fetch, including all its tries and the wait for a free connection. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

type NodeRequest = TokenRequest<NodeIdentity>;

export function openImdsSource(
  options: ImdsSourceOptions,
): TokenSource<NodeIdentity> & AsyncDisposable {
  const connections = openImdsConnections(options);
  return {
    fetch: (request, mayRetry) => fetchToken(connections, request, mayRetry, options),
    [Symbol.asyncDispose]: () => connections[Symbol.asyncDispose](),
  };
}

async function fetchToken(
  connections: ImdsConnections,
  request: NodeRequest,
  mayRetry: MayRetry,
  options: ImdsSourceOptions,
): Promise<SourceResult> {
  const deadlineMs = options.clock.monotonicMs() + options.timeoutMs;
  let result = await tryOnce(connections, request, options, deadlineMs);
  for (const pauseMs of retryDelaysMs) {
    const leftMs = deadlineMs - options.clock.monotonicMs();
    if (result.ok || result.failure.reason !== 'upstream_down' || leftMs < 2 * pauseMs) break;
    // The upstream sent `Retry-After`, which is at least one second.
    if (result.failure.retryAfterS !== undefined) break;
    await delay(pauseMs);
    if (!mayRetry()) break;
    result = await tryOnce(connections, request, options, deadlineMs);
  }
  return result;
}

async function tryOnce(
  connections: ImdsConnections,
  request: NodeRequest,
  options: ImdsSourceOptions,
  deadlineMs: number,
): Promise<SourceResult> {
  const leftMs = Math.max(1, Math.ceil(deadlineMs - options.clock.monotonicMs()));
  try {
    const { status, headers, body } = await sendBuffered(
      connections.pool,
      {
        method: 'GET',
        path: renderPath(request),
        headers: {
          metadata: 'true',
          accept: 'application/json',
          'user-agent': options.userAgent,
          [correlationHeader]: request.correlationId,
        },
      },
      { clock: options.clock, timeoutMs: leftMs, maxBodyBytes },
    );
    if (isLoop(status, body)) connections.reopen();
    const { date, 'retry-after': retryAfter } = headers;
    const nowWallMs = options.clock.wallMs();
    const aheadMs = clockAheadMs(date, nowWallMs);
    const retryAfterS = parseRetryAfter(retryAfter, nowWallMs, maxRetryAfterS);
    return classifyAnswer(request, status, body, retryAfterS, nowWallMs, aheadMs);
  } catch (error) {
    return down(`the instance metadata service did not answer (${networkCode(error)})`);
  }
}

/** One upstream answer as a result. Exported for its tests: no I/O. */
export function classifyAnswer(
  request: NodeRequest,
  status: number,
  body: string,
  retryAfterS: number | undefined,
  nowWallMs: number,
  aheadMs = 0,
): SourceResult {
  if (status === 200) {
    return checkToken(request, body, nowWallMs, aheadMs);
  }
  if (status === 429) {
    return failed({
      reason: 'upstream_throttled',
      description: 'The instance metadata service throttles this node. Retry later.',
      retryAfterS: retryAfterS ?? 5,
      cooldownMs: (retryAfterS ?? 5) * 1000,
    });
  }
  if (isLoop(status, body)) {
    return down(
      'the instance metadata endpoint is this agent itself; --metadata-ip and --metadata-port must name the real one, and no redirect may catch the agent: programs of an earlier one that are still pinned on the node are taken away by nmi redirect remove',
    );
  }
  // 404 and 410 mean "being updated" on this protocol, not "no such thing".
  if (status === 404 || status === 410 || status >= 500 || status < 400) {
    return down(`the instance metadata service answered status ${status}`, retryAfterS);
  }
  // An error of Entra ID that IMDS passes on is classified as Entra ID's own.
  if (body.includes('AADSTS')) return failed(classifyEntraError({ status, body, retryAfterS }, []));
  return refused(request, status, body);
}

function isLoop(status: number, body: string): boolean {
  return status !== 200 && parseImdsError(body).error === loopError;
}

function checkToken(
  request: NodeRequest,
  body: string,
  nowWallMs: number,
  aheadMs: number,
): SourceResult {
  const parsed = parseImdsToken(body, request.resource, nowWallMs, aheadMs);
  if (!parsed.ok) return down(`the instance metadata service answered ${parsed.problem}`);
  const { identity } = request;
  if (identity.kind === 'unnamed') return parsed;
  // A token of another identity than the requested one must not be relayed.
  const reported = identityOf(parsed.token)[identity.kind];
  if (reported !== undefined && reported !== normalisers[identity.kind](identity.value)) {
    return down(
      'the instance metadata service returned a token of another identity than requested',
    );
  }
  const { clientId } = parsed.token;
  const known = identity.kind === 'client_id' && clientId === '' ? identity.value : clientId;
  return { ok: true, token: { ...parsed.token, clientId: known } };
}

function refused(request: NodeRequest, status: number, body: string): SourceResult {
  const { error, description } = parseImdsError(body);
  // For a request that names an identity, this can only mean that it is not assigned to this node.
  if (error === 'invalid_request' && request.identity.kind !== 'unnamed') {
    return failed({ reason: 'identity_not_assigned', description, cooldownMs: refusalCooldownMs });
  }
  return failed({
    reason: 'upstream_refused',
    error: error === '' ? 'invalid_request' : error,
    description: description === '' ? `the upstream answered status ${status}` : description,
    cooldownMs: refusalCooldownMs,
  });
}

const normalisers = {
  client_id: normaliseClientId,
  object_id: normaliseClientId,
  resource_id: normaliseResourceId,
} as const;

const selectorNames = {
  client_id: 'client_id',
  object_id: 'object_id',
  resource_id: 'msi_res_id',
} as const;

function renderPath({ identity, resource, bypassCache }: NodeRequest): string {
  const named =
    identity.kind === 'unnamed'
      ? ''
      : `&${selectorNames[identity.kind]}=${encodeURIComponent(identity.value)}`;
  return (
    `/metadata/identity/oauth2/token?api-version=${apiVersion}&resource=${encodeURIComponent(resource)}${named}` +
    (bypassCache === true ? '&bypass_cache=true' : '')
  );
}

function down(description: string, retryAfterS?: number): SourceResult {
  // Cached for a moment, so that a stampede on a dead upstream is one call and not a thousand.
  return failed({
    reason: 'upstream_down',
    description,
    cooldownMs: 250,
    ...(retryAfterS === undefined ? {} : { retryAfterS: Math.min(retryAfterS, 10) }),
  });
}

function parseImdsError(body: string): { error: string; description: string } {
  // A body that is not a JSON object is not shown.
  const fields = parseRecord(body);
  return {
    error: stringAt(fields, 'error').slice(0, 100),
    description: stringAt(fields, 'error_description').slice(0, 2000),
  };
}
