/**
 * Relays requests other than token requests to the real metadata service, under a policy.
 *
 * The path sent upstream is the normalized one of the route, not the caller's spelling. Only
 * harmless headers of the caller are forwarded, and no identifying header is added. An answer is
 * buffered before it is written: a pod that does not read blocks no connection that other pods
 * need.
 */
import { addAbortSignal } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { Clock } from '../../base/time/clock.ts';
import type { Pod } from '../../cache/index/objects.ts';
import { refusals, refuse, type Answer } from '../base/answers.ts';
import { limitKeyOf, partyOf } from '../callers/caller.ts';
import { openImdsConnections } from '../sources/imds/imds-connections.ts';
import { correlationHeader, type LoopDetection } from '../sources/imds/loop-detection.ts';
import type { CallerLimits } from './caller-limits.ts';
import { MetadataCalls, NoTurnError, type MetadataAnswer } from './metadata-calls.ts';
import { relayed, type Handled, type HttpExchange } from './request.ts';
import { readBody } from '../../base/read-body.ts';
import { networkCode } from '../../base/network-code.ts';
import type { PassthroughArea, Route } from './route.ts';

export interface PassthroughPolicy {
  readonly blockInstanceMetadata: boolean;
  /** Areas besides `instance` and `versions` that are allowed. */
  readonly allowedAreas: readonly PassthroughArea[];
}

export interface PassthroughOptions {
  /** Base URL of the real service. */
  readonly endpoint: string;
  /** For one answer, including the wait for its turn. */
  readonly timeoutMs: number;
  readonly policy: PassthroughPolicy;
  readonly limits: CallerLimits;
  readonly loopDetection: LoopDetection;
  readonly clock: Clock;
}

export interface Passthrough extends AsyncDisposable {
  /** The refusal if policy closes this area to all pods, else undefined. Pure. */
  refusal(route: PassthroughRoute): Answer | undefined;
  relay(exchange: HttpExchange, route: PassthroughRoute, pod: Pod): Promise<Handled>;
}

export type PassthroughRoute = Extract<Route, { kind: 'passthrough' }>;

/** Methods by area; only scheduled events can be acted on (a POST approves one). */
export function allowedMethods(area: PassthroughArea): readonly string[] {
  return area === 'scheduledevents' ? ['GET', 'POST'] : ['GET'];
}

/** Callers whose GETs send the same of these share the answer, so none identifies the client. */
const sentHeaders = ['accept', 'content-type'];

/** RFC 9110 7.6.1, and the headers of the connection's own framing. */
const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

const maxRequestBytes = 64 * 1024;
/** The largest answer is an instance document with 64 KB of user data. */
const maxAnswerBytes = 256 * 1024;

export function openPassthrough(options: PassthroughOptions): Passthrough {
  const { timeoutMs, loopDetection, clock } = options;
  const connections = openImdsConnections(options);
  const calls = new MetadataCalls(clock, timeoutMs);

  async function send(request: Dispatcher.RequestOptions): Promise<MetadataAnswer> {
    const sent = await connections.pool.request(request);
    if (sent.statusCode !== refusals.loop_detected.status) return readAnswer(sent);
    connections.reopen();
    throw new LoopError();
  }

  async function relay(
    exchange: HttpExchange,
    route: PassthroughRoute,
    pod: Pod,
  ): Promise<Handled> {
    const { response } = exchange;
    // Read before the wait for a turn: a body that never arrives must not occupy one.
    const body = await readRequestBody(exchange, timeoutMs);
    if (body === undefined) {
      return refuse('request_malformed', 'The request body is not acceptable here.', {
        close: true,
      });
    }
    const path = route.query === '' ? route.path : `${route.path}?${route.query}`;
    const headers = requestHeaders(exchange);
    const sharedKey = exchange.method === 'GET' ? JSON.stringify([path, headers]) : undefined;
    const endCall = options.limits.beginFetch(
      limitKeyOf(pod),
      `metadata ${sharedKey ?? exchange.requestId}`,
    );
    if (endCall === undefined) {
      return refuse('caller_throttled', 'This pod waits for too much metadata at once. Retry.');
    }
    try {
      const answer = await calls.make({
        sharedKey,
        isKept: route.area === 'instance' || route.area === 'versions',
        party: partyOf(pod),
        send: (callSignal) =>
          send({
            method: exchange.method === 'POST' ? 'POST' : 'GET',
            path,
            headers: { ...headers, [correlationHeader]: loopDetection.next() },
            body: body.byteLength === 0 ? null : body,
            signal: callSignal,
          }),
      });
      if (exchange.isGone) return relayed;
      response.writeHead(answer.status, [...answer.headers]);
      response.end(answer.body);
      return relayed;
    } catch (error) {
      return refusalOf(error);
    } finally {
      endCall();
    }
  }

  return {
    refusal: (route) => policyRefusal(route.area, options.policy),
    relay,
    [Symbol.asyncDispose]: () => {
      calls[Symbol.dispose]();
      return connections[Symbol.asyncDispose]();
    },
  };
}

function tooLarge(): Error {
  return new Error('the body is too large');
}

async function readAnswer({
  statusCode,
  headers,
  body,
}: Dispatcher.ResponseData): Promise<MetadataAnswer> {
  const whole = await readBody(body, maxAnswerBytes, tooLarge);
  return { status: statusCode, headers: responseHeaders(headers), body: whole };
}

/** The endpoint that was called is this agent itself. */
class LoopError extends Error {}

function refusalOf(error: unknown): Answer {
  if (error instanceof LoopError) {
    return refuse('upstream_down', 'The instance metadata endpoint is this agent itself.');
  }
  if (error instanceof NoTurnError) {
    return refuse(
      'upstream_throttled',
      'Too many requests for metadata wait for their turn on this node. Retry later.',
    );
  }
  return refuse(
    'upstream_down',
    `The instance metadata service did not answer (${networkCode(error)}).`,
  );
}

/**
 * The body of a POST, or nothing; undefined when it is too large, does not arrive, or is sent where
 * none is allowed. A body on a GET is never forwarded: a server that ignores it would read it as
 * the next request, with the node's identity behind it.
 */
async function readRequestBody(
  { request, response, method }: HttpExchange,
  timeoutMs: number,
): Promise<Buffer | undefined> {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = request.headers;
  if (encoding !== undefined || Number(length) > maxRequestBytes) return undefined;
  if (Number(length) === 0) return Buffer.alloc(0);
  if (method !== 'POST') return undefined;
  const leave = new AbortController();
  response.once('close', () => leave.abort());
  const signal = AbortSignal.any([leave.signal, AbortSignal.timeout(timeoutMs)]);
  const body = addAbortSignal(signal, request);
  return readBody(body, maxRequestBytes, tooLarge).catch(() => undefined);
}

function policyRefusal(area: PassthroughArea, policy: PassthroughPolicy): Answer | undefined {
  if (area === 'versions') return undefined;
  if (area === 'instance') {
    if (!policy.blockInstanceMetadata) return undefined;
    return refuse('metadata_blocked', 'Request blocked: instance metadata is closed to pods here.');
  }
  if (policy.allowedAreas.includes(area)) return undefined;
  return refuse(
    'metadata_blocked',
    `Request blocked: /metadata/${area} is closed to pods here (--allow-metadata=${area} opens it).`,
  );
}

function requestHeaders(exchange: HttpExchange): Record<string, string | string[]> {
  // As the caller sent it: a header added by the agent would undo the service's protection against
  // forged requests (SSRF) if the agent is configured not to require the header.
  const metadata = [...exchange.headerValues('metadata')];
  const headers: ReturnType<typeof requestHeaders> = metadata.length === 0 ? {} : { metadata };
  for (const name of sentHeaders) {
    const [value] = exchange.headerValues(name);
    if (value !== undefined) headers[name] = value;
  }
  return headers;
}

/** @returns a flat list of names and values, as `writeHead` takes it. */
function responseHeaders(upstream: NodeJS.Dict<string | string[]>): string[] {
  const dropped = new Set(hopByHop);
  for (const name of listed(upstream['connection'])) dropped.add(name);
  const headers: string[] = [];
  for (const [name, value] of Object.entries(upstream)) {
    if (value === undefined || dropped.has(name)) continue;
    for (const each of Array.isArray(value) ? value : [value]) headers.push(name, each);
  }
  return headers;
}

function listed(value: string | string[] | undefined): readonly string[] {
  const text = Array.isArray(value) ? value.join(',') : (value ?? '');
  return text.split(',').map((name) => name.trim().toLowerCase());
}
