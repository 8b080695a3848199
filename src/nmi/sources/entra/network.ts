/** HTTP to Entra ID, by its proxies, and forms that are posted elsewhere in the same way. No redirect is followed: the form has a credential. */
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import { Agent, EnvHttpProxyAgent, Pool, type Dispatcher } from 'undici';
import type { Clock } from '../../../base/time/clock.ts';
import type { SourceFailure } from '../source.ts';
import { readBody } from '../../../base/read-body.ts';
import { parseRetryAfter } from '../../../base/retry-after.ts';
import { networkCode } from '../../../base/network-code.ts';
import { clockAheadMs } from '../clock-skew.ts';
import { entraId, type EntraAnswer } from './aadsts.ts';
import { hostOf } from './entra-identity.ts';
import { parseProxy, type Environment } from './proxy.ts';

/** The only error of this file. Messages contain neither a credential nor a proxy's URL. */
export class EntraNetworkError extends Error {
  /** If it is more than that the server does not answer. */
  readonly failure: SourceFailure | undefined;

  constructor(message: string, options: { cause?: unknown; failure?: SourceFailure } = {}) {
    super(message, { cause: options.cause });
    this.failure = options.failure;
  }
}

export interface EntraNetwork extends AsyncDisposable {
  /** Rejects with `EntraNetworkError`, or with the signal's reason; not for an error status. */
  postForm(
    url: string,
    form: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<EntraAnswer>;
}

export interface EntraNetworkOptions {
  /** For connecting, for the head and between two parts of the body; callers pass a signal. */
  readonly timeoutMs: number;
  readonly userAgent: string;
  /** PEM of authorities to trust beside those of the system. */
  readonly caPem?: string | undefined;
  readonly environment: Environment;
  readonly clock: Clock;
}

const maxBodyBytes = 64 * 1024;
/** Per authority. Only a restart of a full node needs more than a few. */
const maxConnections = 16;
/** A single bad header must not block a key for days. */
const maxRetryAfterS = 3600;

/** Opens no connection yet. @throws StartError `CONFIG` for a proxy that cannot be used. */
export function openEntraNetwork(options: EntraNetworkOptions): EntraNetwork {
  const dispatcher = openDispatcher(options);
  return {
    postForm: posterOf(dispatcher, entraId, options, wayOf(options.environment)),
    [Symbol.asyncDispose]: () => dispatcher.destroy(),
  };
}

/** @param server who answers, as the subject of a sentence. @param way to it, if it is not the usual one. */
export function posterOf(
  dispatcher: Dispatcher,
  server: string,
  { userAgent, clock }: Pick<EntraNetworkOptions, 'userAgent' | 'clock'>,
  way = '',
): EntraNetwork['postForm'] {
  const tooLong = () =>
    new EntraNetworkError(`the answer of ${server} has more than ${maxBodyBytes} bytes`);
  return async (url, form, headers, signal) => {
    const { origin, pathname, search } = new URL(url);
    try {
      const response = await dispatcher.request({
        method: 'POST',
        origin,
        path: pathname + search,
        headers: { ...headers, accept: 'application/json', 'user-agent': userAgent },
        body: form,
        signal,
      });
      const { date, 'retry-after': retryAfter } = response.headers;
      const nowWallMs = clock.wallMs();
      return {
        server,
        status: response.statusCode,
        body: String(await readBody(response.body, maxBodyBytes, tooLong)),
        clockAheadMs: clockAheadMs(date, nowWallMs),
        retryAfterS: parseRetryAfter(retryAfter, nowWallMs, maxRetryAfterS),
      };
    } catch (error) {
      signal.throwIfAborted();
      throw networkErrorOf(error, {
        server,
        host: server === entraId ? hostOf(origin) : undefined,
        way,
      });
    }
  };
}

/** Limits of a connection pool. */
export function poolOptionsOf(timeoutMs: number) {
  return {
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    connections: maxConnections,
    pipelining: 1,
    // Over HTTP/2 one broken connection fails every request on it.
    allowH2: false,
    maxHeaderSize: 16 * 1024,
  };
}

/** A proxy that is down looks like a server that is. Its host may be a secret; the variable has it. */
function wayOf(environment: Environment): string {
  return parseProxy(environment) === undefined ? '' : ' through the proxy of https_proxy';
}

function openDispatcher({ timeoutMs, caPem, environment }: EntraNetworkOptions): Dispatcher {
  const proxy = parseProxy(environment);
  const connect = { rejectUnauthorized: true, timeout: timeoutMs, ...trustOf(caPem) };
  const agent = { ...poolOptionsOf(timeoutMs), connect };
  if (proxy === undefined) return new Agent(agent);
  return new EnvHttpProxyAgent({
    ...agent,
    httpsProxy: proxy.url,
    // Empty, since undici would otherwise read it from the environment.
    httpProxy: '',
    noProxy: proxy.noProxy,
    requestTls: connect,
    proxyTls: connect,
    // Without this, a proxy that does not answer CONNECT blocks the request for five minutes.
    clientFactory: (origin, poolOptions) =>
      new Pool(origin, { ...poolOptions, headersTimeout: timeoutMs, bodyTimeout: timeoutMs }),
  });
}

/** One context for all connections: reading the system's 150 authorities takes milliseconds. */
function trustOf(caPem: string | undefined): { readonly secureContext?: SecureContext } {
  if (caPem === undefined) return {};
  return { secureContext: createSecureContext({ ca: [...getCACertificates('default'), caPem] }) };
}

interface Answerer {
  readonly server: string;
  /** With the port; undefined if the name of the server says where it is. */
  readonly host: string | undefined;
  readonly way: string;
}

/** Codes of OpenSSL, and one of Node for a certificate of another name. */
const isUntrusted = /^(?:CERT_|DEPTH_ZERO_|ERR_TLS_CERT_|SELF_SIGNED_|UNABLE_TO_)/;

const proxyCodes: ReadonlySet<string> = new Set([
  // A status other than 200 to CONNECT: the request itself was not aborted.
  'UND_ERR_ABORTED',
  'UND_ERR_PRX_CONN',
  'UND_ERR_PRX_TLS',
]);

/** What such a failure usually is, for whom it concerns. */
const causes: readonly (readonly [RegExp, string])[] = [
  [/^(?:ENOTFOUND|EAI_)/, 'the name does not resolve'],
  [/^ECONNREFUSED$/, 'the connection was refused'],
  [/^(?:ECONNRESET|EPIPE|UND_ERR_SOCKET)$/, 'the connection was cut'],
  [/^(?:E(?:HOST|NET)UNREACH|ETIMEDOUT|UND_ERR_\w+_TIMEOUT)$/, 'no answer, as behind a firewall'],
  [/^(?:ERR_SSL_|EPROTO$)/, 'what answers does not speak TLS'],
];

function networkErrorOf(error: unknown, { server, host, way }: Answerer): EntraNetworkError {
  if (error instanceof EntraNetworkError) return error;
  const word = networkCode(error);
  const at = host === undefined ? server : `${server} (${host})`;
  const [, cause] = causes.find(([code]) => code.test(word)) ?? [];
  const hint = server === entraId ? '; --entra-ca-file adds an authority' : '';
  const what = isUntrusted.test(word)
    ? `the certificate of ${at} is not trusted${hint}`
    : proxyCodes.has(word)
      ? `the proxy refused the tunnel to ${at}${statusOfProxy(error)}`
      : `${at} did not answer${way}${cause === undefined ? '' : `: ${cause}`}`;
  return new EntraNetworkError(`${what} (${word})`, { cause: error });
}

/** undici has the status in the message alone. */
function statusOfProxy(error: unknown): string {
  const [status] = /\b[1-5]\d\d\b/.exec(error instanceof Error ? error.message : '') ?? [];
  return status === undefined ? '' : ` with HTTP ${status}`;
}
