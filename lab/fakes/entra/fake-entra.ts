/**
 * The Entra ID of a lab: the v2 token endpoint over TLS, with applications that authenticate by
 * secret, certificate or federated assertion. It verifies credentials, returns the real service's
 * errors, and records each client with its kind of credential (never the credential). Faults can be
 * switched on while it runs.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { isIPv6 } from 'node:net';
import { systemClock, type Clock } from '../../../src/base/time/clock.ts';
import { answerEntra, readCredential, type CredentialKind, type EntraQuestion } from './answers.ts';
import { createEntraDirectory, type EntraApplication } from './applications.ts';
import type { PublishedKey } from './assertions.ts';
import { renderRefusal, type EntraCode, type EntraDetails } from './errors.ts';
import type { ServerCertificate } from '../authority.ts';
import { agentSubject, exchangeKeys, isExchangeIssuer } from '../exchange-tokens.ts';
import { createTokenSigner, decodeLabToken } from '../token.ts';

export interface FakeEntraOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** 0, the default, selects a free port. */
  readonly port?: number;
  readonly tls: ServerCertificate;
  readonly applications?: readonly EntraApplication[];
  /** Default: one second less than an hour. From two hours on, answers have `refresh_in`. */
  readonly tokenLifetimeMs?: number;
  /** Maximum number of recorded requests. Default 20,000. */
  readonly recordLimit?: number;
  readonly clock?: Clock;
}

/** All of these at once; absent faults are off. */
export interface EntraFaults {
  readonly delayMs?: number;
  /** Accept requests and never answer. */
  readonly hang?: boolean;
  /** Cut the connection instead of answering. */
  readonly reset?: boolean;
  /** Answer the first `times` requests, or all, in this way. */
  readonly fail?: {
    readonly status: number;
    readonly times?: number;
    readonly retryAfterSec?: number;
    /** Default: an HTML page, as from the proxies in front of the real service. */
    readonly body?: { readonly type: string; readonly text: string };
  };
  /** Refuse the first `times` requests, or all, or the first of every `oneOf`, with this code. */
  readonly refuse?: {
    readonly code: EntraCode;
    readonly times?: number;
    readonly oneOf?: number;
    readonly retryAfterSec?: number;
  };
}

/** A request of the token endpoint. It contains no credential. */
export interface EntraRequest {
  readonly atWallMs: number;
  readonly from: string;
  /** As in the path. */
  readonly tenantId: string;
  readonly clientId: string;
  readonly scope: string;
  /** The agent identity that the token is to be the assertion of. */
  readonly fmiPath: string | undefined;
  readonly credential: CredentialKind;
  /** The algorithm of an assertion, and its subject when another issuer signed it. */
  readonly algorithm: string | undefined;
  readonly subject: string | undefined;
  readonly userAgent: string;
  /** Undefined while the answer is outstanding, or if there was none. */
  readonly status: number | undefined;
  /** The AADSTS number of a refusal. */
  readonly code: number | undefined;
  /** The name of the application that got a token. */
  readonly identity: string | undefined;
}

export interface FakeEntra extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Origin, for instance `https://127.0.0.1:8443`: the `adEndpoint` of an identity. */
  readonly authority: string;
  /** Replaces an application with the same tenant and client ID. */
  register(application: EntraApplication): void;
  unregister(application: Pick<EntraApplication, 'tenantId' | 'clientId'>): void;
  /**
   * Looks up the keys of an issuer of federated assertions, at each assertion. A rejected promise
   * means that the issuer is unreachable, as are all issuers not registered here.
   */
  trustIssuer(issuer: string, keys: () => Promise<readonly PublishedKey[]>): void;
  /** For tokens issued from now on. */
  setTokenLifetime(lifetimeMs: number): void;
  /**
   * Replaces the faults of one application, or the default faults of all others; `{}` ends them.
   * Requests that already hang are not answered.
   */
  setFaults(faults: EntraFaults, clientId?: string): void;
  /**
   * Applies to new connections. Idle ones are cut; a client that is about to use one gets a
   * connection error. Without an argument: the server's original certificate.
   */
  presentCertificate(certificate?: ServerCertificate): void;
  /** Requests of the token endpoint, the latest ones, oldest first. */
  requests(): readonly EntraRequest[];
  /** Paths of all other requests, mainly discovery documents. */
  otherRequests(): readonly string[];
  /** The maximum number of concurrent token requests. */
  peakConcurrency(): number;
  /** Forgets the requests and the high-water mark. */
  clear(): void;
  /** Forgets requests, applications, issuers and faults, and presents the original certificate. */
  reset(): void;
  /** Every token it issued, oldest first; only the latest ones in a long run. */
  issuedTokens(): readonly string[];
}

type OpenRecord = { -readonly [K in keyof EntraRequest]: EntraRequest[K] };

interface ActiveFaults {
  readonly faults: EntraFaults;
  failuresLeft: number;
  refusalsLeft: number;
  /** Requests that `refuse` has seen. */
  asked: number;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly retryAfterSec?: number;
  readonly code?: number;
  readonly identity?: string;
}

const defaultRecordLimit = 20_000;
const defaultLifetimeMs = 3_599_000;
const refreshFromSec = 2 * 3600;
const maxBodyBytes = 1024 * 1024;
const jsonType = 'application/json; charset=utf-8';
const tokenPath = /^\/([^/]+)\/oauth2\/v2\.0\/token\/?$/;
const configurationPath = /^\/([^/]+)\/(?:v2\.0\/)?\.well-known\/openid-configuration$/;
const guidPattern = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** @throws the error of `listen`, for example `EADDRINUSE`. */
export async function openFakeEntra(options: FakeEntraOptions): Promise<FakeEntra> {
  const { host = '127.0.0.1', tls, clock = systemClock } = options;
  const recordLimit = options.recordLimit ?? defaultRecordLimit;
  const directory = createEntraDirectory();
  for (const application of options.applications ?? []) directory.register(application);
  const issuers = new Map<string, () => Promise<readonly PublishedKey[]>>();
  const sign = createTokenSigner();
  const ownFaults = new Map<string, ActiveFaults>();
  let commonFaults = activate({});
  let lifetimeMs = options.tokenLifetimeMs ?? defaultLifetimeMs;
  let records: OpenRecord[] = [];
  let others: string[] = [];
  let issued: string[] = [];
  let presented = tls;
  let openRequests = 0;
  let peak = 0;

  const keysOf = (issuer: string): Promise<readonly PublishedKey[]> => {
    if (isExchangeIssuer(issuer)) return Promise.resolve(exchangeKeys());
    const keys = issuers.get(issuer);
    return keys === undefined ? Promise.reject(new Error('no such issuer')) : keys();
  };

  const issueToken = (
    application: EntraApplication,
    audience: string,
    form: URLSearchParams,
  ): Answer => {
    const fmiPath = form.get('fmi_path') ?? '';
    const { tenantId, clientId } = application;
    const token = sign({
      ...(fmiPath === '' ? {} : { subject: agentSubject(tenantId, clientId, fmiPath) }),
      byFederation: readCredential(form).kind === 'federated',
      identity: application,
      audience,
      tenantId: application.tenantId,
      issuedAtWallMs: clock.wallMs(),
      lifetimeMs,
    });
    issued = remember(issued, token, defaultRecordLimit);
    const claims = decodeLabToken(token);
    const expiresIn = (claims?.exp ?? 0) - (claims?.iat ?? 0);
    const body = JSON.stringify({
      token_type: 'Bearer',
      expires_in: expiresIn,
      ext_expires_in: expiresIn,
      ...(expiresIn < refreshFromSec ? {} : { refresh_in: Math.floor(expiresIn / 2) }),
      access_token: token,
    });
    return { status: 200, type: jsonType, body, identity: application.name };
  };

  const decide = async (
    question: EntraQuestion,
    active: ActiveFaults,
    correlationId: string,
  ): Promise<Answer> => {
    const { fail, refuse } = active.faults;
    const answerRefusal = (code: EntraCode, details: EntraDetails, waitSec?: number): Answer => {
      const nowWallMs = clock.wallMs();
      const trace = { traceId: randomUUID(), correlationId, nowWallMs, host: question.host };
      const { status, body } = renderRefusal(code, details, trace);
      const wait = waitSec === undefined ? {} : { retryAfterSec: waitSec };
      return { status, type: jsonType, body, code, ...wait };
    };
    if (fail !== undefined && active.failuresLeft > 0) {
      active.failuresLeft -= 1;
      return renderFailure(fail);
    }
    if (refuse !== undefined && isRefused(active)) {
      const { tenant: tenantId, form } = question;
      const details = { tenantId, clientId: form.get('client_id') ?? '' };
      return answerRefusal(refuse.code, details, refuse.retryAfterSec);
    }
    const nowWallMs = clock.wallMs();
    const verdict = await answerEntra(question, { directory, keysOf, nowWallMs });
    return verdict.ok
      ? issueToken(verdict.application, verdict.audience, question.form)
      : answerRefusal(verdict.code, verdict.details);
  };

  const serveToken = async (
    request: IncomingMessage,
    response: ServerResponse,
    tenant: string,
    url: URL,
  ): Promise<void> => {
    openRequests += 1;
    peak = Math.max(peak, openRequests);
    response.once('close', () => {
      openRequests -= 1;
    });
    const form = new URLSearchParams(await readBody(request));
    const record = createRecord(request, tenant, form, clock);
    records = remember(records, record, recordLimit);
    const active = ownFaults.get(record.clientId.toLowerCase()) ?? commonFaults;
    const { hang, reset, delayMs } = active.faults;
    if (hang === true) return;
    if (delayMs !== undefined) await sleep(delayMs);
    if (reset === true) {
      request.socket.destroy();
      return;
    }
    const correlationId = [
      request.headersDistinct['client-request-id']?.[0],
      url.searchParams.get('client-request-id'),
      form.get('client-request-id'),
    ].find((id) => guidPattern.test(id ?? ''));
    const method = request.method ?? '';
    const question = { method, host: url.host, tenant, form };
    const answer = await decide(question, active, correlationId ?? randomUUID());
    // The client has disconnected.
    if (response.destroyed || response.socket?.destroyed !== false) return;
    record.status = answer.status;
    record.code = answer.code;
    record.identity = answer.identity;
    send(response, answer, clock);
  };

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', `https://${request.headers.host ?? host}`);
    const tenant = tokenPath.exec(url.pathname)?.[1];
    if (tenant !== undefined) {
      await serveToken(request, response, decodeURIComponent(tenant), url);
      return;
    }
    request.resume();
    others = remember(others, url.pathname, recordLimit);
    const described = configurationPath.exec(url.pathname)?.[1];
    if (described !== undefined) send(response, describeAuthority(url.host, described), clock);
    else send(response, { status: 404, type: jsonType, body: '{"error":"not_found"}' }, clock);
  };

  const server = createServer({ ...tls, requestTimeout: 0 }, (request, response) => {
    // A bad request, for example an unfinished body, ends only its own connection.
    serve(request, response).catch(() => {
      response.destroy();
    });
  });
  const port = await listen(server, host, options.port ?? 0);

  const presentCertificate = (certificate: ServerCertificate = tls): void => {
    if (certificate === presented) return;
    presented = certificate;
    server.setSecureContext(certificate);
    server.closeIdleConnections();
  };
  const clear = (): void => {
    records = [];
    others = [];
    peak = openRequests;
  };

  return {
    host,
    port,
    authority: `https://${isIPv6(host) ? `[${host}]` : host}:${port}`,
    register: (application) => {
      directory.register(application);
    },
    unregister: ({ tenantId, clientId }) => {
      directory.unregister(tenantId, clientId);
    },
    trustIssuer: (issuer, keys) => {
      issuers.set(issuer, keys);
    },
    setTokenLifetime: (next) => {
      lifetimeMs = next;
    },
    setFaults: (faults, clientId) => {
      const key = clientId?.toLowerCase();
      if (key === undefined) commonFaults = activate(faults);
      else if (Object.keys(faults).length === 0) ownFaults.delete(key);
      else ownFaults.set(key, activate(faults));
    },
    presentCertificate,
    requests: () => records.slice(-recordLimit).map((record) => ({ ...record })),
    otherRequests: () => others.slice(-recordLimit),
    peakConcurrency: () => peak,
    clear,
    reset: () => {
      clear();
      directory.clear();
      issuers.clear();
      ownFaults.clear();
      commonFaults = activate({});
      lifetimeMs = options.tokenLifetimeMs ?? defaultLifetimeMs;
      presentCertificate();
    },
    issuedTokens: () => issued.slice(-defaultRecordLimit),
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function activate(faults: EntraFaults): ActiveFaults {
  return {
    faults,
    failuresLeft: faults.fail === undefined ? 0 : (faults.fail.times ?? Infinity),
    refusalsLeft: faults.refuse === undefined ? 0 : (faults.refuse.times ?? Infinity),
    asked: 0,
  };
}

function isRefused(active: ActiveFaults): boolean {
  const { oneOf = 1 } = active.faults.refuse ?? {};
  const isTurn = active.asked++ % oneOf === 0;
  return isTurn && active.refusalsLeft-- > 0;
}

/** Cut by half at a time, so that a long run does not shift the whole array at each entry. */
function remember<T>(entries: T[], entry: T, limit: number): T[] {
  entries.push(entry);
  return entries.length >= limit * 2 ? entries.slice(-limit) : entries;
}

function createRecord(
  request: IncomingMessage,
  tenantId: string,
  form: URLSearchParams,
  clock: Clock,
): OpenRecord {
  const { kind, algorithm, subject } = readCredential(form);
  return {
    atWallMs: clock.wallMs(),
    from: (request.socket.remoteAddress ?? '').replace(/^::ffff:/, ''),
    tenantId,
    clientId: form.get('client_id') ?? '',
    scope: form.get('scope') ?? '',
    fmiPath: form.get('fmi_path') ?? undefined,
    credential: kind,
    algorithm,
    subject,
    userAgent: request.headers['user-agent'] ?? '',
    status: undefined,
    code: undefined,
    identity: undefined,
  };
}

function renderFailure({ status, body, retryAfterSec }: NonNullable<EntraFaults['fail']>): Answer {
  return {
    status,
    type: body?.type ?? 'text/html',
    body: body?.text ?? `<html><head><title>${status}</title></head><body>Lab fault</body></html>`,
    ...(retryAfterSec === undefined ? {} : { retryAfterSec }),
  };
}

function describeAuthority(host: string, tenant: string): Answer {
  const base = `https://${host}/${tenant}`;
  const body = JSON.stringify({
    token_endpoint: `${base}/oauth2/v2.0/token`,
    token_endpoint_auth_methods_supported: ['client_secret_post', 'private_key_jwt'],
    jwks_uri: `${base}/discovery/v2.0/keys`,
    issuer: `${base}/v2.0`,
    authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
  });
  return { status: 200, type: jsonType, body };
}

function send(response: ServerResponse, answer: Answer, clock: Clock): void {
  response.writeHead(answer.status, {
    Date: new Date(clock.wallMs()).toUTCString(),
    'Cache-Control': 'no-store, no-cache',
    Pragma: 'no-cache',
    'Content-Type': answer.type,
    'Content-Length': Buffer.byteLength(answer.body),
    'x-ms-request-id': randomUUID(),
    ...(answer.retryAfterSec === undefined ? {} : { 'Retry-After': answer.retryAfterSec }),
  });
  response.end(answer.body);
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBodyBytes) throw new RangeError('a body of more than 1 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}

async function listen(server: Server, host: string, port: number): Promise<number> {
  server.listen(port, host);
  await once(server, 'listening');
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : port;
}
