/**
 * Parts of the real metadata service that are no tokens: relayed to the caller under a policy.
 *
 * The path sent upstream is the one the route decided on, not the caller's spelling; of the
 * caller's headers only harmless ones go along, and no identifying header is added. Answers are
 * streamed within a time limit.
 */
import type { IncomingMessage } from 'node:http';
import { addAbortSignal } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Pool } from 'undici';
import { refuse, type Answer } from '../base/answers.ts';
import { relayed, type Handled, type HttpExchange } from './request.ts';
import { networkCode } from '../base/network-code.ts';
import type { PassthroughArea, Route } from './route.ts';

export interface PassthroughPolicy {
  readonly blockInstanceMetadata: boolean;
  /** Areas beyond `instance` and `versions` that are let through. */
  readonly allowedAreas: readonly PassthroughArea[];
  /** False where the node has no metadata service of its own. */
  readonly hasImds: boolean;
}

export interface PassthroughOptions {
  /** Base URL of the real service. */
  readonly endpoint: string;
  readonly timeoutMs: number;
  readonly policy: PassthroughPolicy;
}

export interface Passthrough extends AsyncDisposable {
  /** Why this area is refused to everybody, or undefined when it is not. Pure. */
  refusal(route: PassthroughRoute): Answer | undefined;
  relay(exchange: HttpExchange, route: PassthroughRoute): Promise<Handled>;
}

export type PassthroughRoute = Extract<Route, { kind: 'passthrough' }>;

/** Methods by area; only scheduled events can be acted on (a POST approves one). */
export function allowedMethods(area: PassthroughArea): readonly string[] {
  return area === 'scheduledevents' ? ['GET', 'POST'] : ['GET'];
}

const sentHeaders = ['accept', 'content-type', 'user-agent', 'x-ms-client-request-id'];

/** RFC 9110 7.6.1, and those that name the connection's own framing. */
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

export function openPassthrough(options: PassthroughOptions): Passthrough {
  const pool = new Pool(options.endpoint, {
    connections: 4,
    pipelining: 1,
    connect: { timeout: Math.min(2_000, options.timeoutMs) },
    headersTimeout: options.timeoutMs,
    bodyTimeout: options.timeoutMs,
  });

  async function relay(exchange: HttpExchange, route: PassthroughRoute): Promise<Handled> {
    const { request, response } = exchange;
    const leave = new AbortController();
    response.once('close', () => leave.abort());
    const signal = AbortSignal.any([leave.signal, AbortSignal.timeout(options.timeoutMs)]);
    // Read before a connection upstream is taken: a body that never comes must not hold one.
    const body = await readBody(request, exchange.method, signal);
    if (body === undefined) {
      return refuse('request_malformed', 'The request body is not acceptable here.', {
        close: true,
      });
    }
    try {
      const upstream = await pool.request({
        method: exchange.method === 'POST' ? 'POST' : 'GET',
        path: route.query === '' ? route.path : `${route.path}?${route.query}`,
        headers: requestHeaders(exchange),
        body: body.byteLength === 0 ? null : body,
        signal,
      });
      response.writeHead(upstream.statusCode, responseHeaders(upstream.headers));
      await pipeline(upstream.body, response);
      return relayed;
    } catch (error) {
      if (leave.signal.aborted && !response.writableEnded) return relayed;
      if (!response.headersSent) {
        return refuse(
          'upstream_down',
          `The instance metadata service did not answer (${networkCode(error)}).`,
        );
      }
      // Half an answer is out: the only honest end is a cut connection.
      response.destroy();
      return relayed;
    }
  }

  return {
    refusal: (route) => policyRefusal(route.area, options.policy),
    relay,
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
}

/**
 * The body of a POST, or nothing; undefined when it is too large, does not come, or stands where
 * none belongs. A body on a GET is never forwarded: a server that ignores it would read it as the
 * next request, with the node's identity behind it.
 */
async function readBody(
  request: IncomingMessage,
  method: string,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = request.headers;
  if (encoding !== undefined || Number(length) > maxRequestBytes) return undefined;
  if (Number(length) === 0) return Buffer.alloc(0);
  if (method !== 'POST') return undefined;
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of addAbortSignal(signal, request)) {
      if (Buffer.isBuffer(chunk)) chunks.push(chunk);
    }
  } catch {
    return undefined;
  }
  return Buffer.concat(chunks);
}

function policyRefusal(area: PassthroughArea, policy: PassthroughPolicy): Answer | undefined {
  if (!policy.hasImds) {
    return refuse(
      'not_found',
      'This node has no instance metadata service; tokens are all there is.',
    );
  }
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

function requestHeaders(exchange: HttpExchange): Record<string, string> {
  const headers: Record<string, string> = { metadata: 'true' };
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
