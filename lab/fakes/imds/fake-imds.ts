/**
 * The instance metadata service of a lab. It has the node's own identity and the identities
 * assigned to the node, answers every client, as the real one does, and records the clients: a
 * token sent to any address but the node's is a leak. Faults can be switched on while it runs.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';

import { systemClock, type Clock } from '../../../src/base/time/clock.ts';
import {
  answerImds,
  isTokenPath,
  jsonType,
  textType,
  type ImdsAnswer,
  type ImdsFacts,
  type ImdsToken,
  type TokenFreshness,
} from './answers.ts';
import { parseImdsTarget } from './target.ts';
import { labTenantId } from '../identity.ts';
import { createTokenSigner, decodeLabToken, type LabIdentity } from '../token.ts';

const dayMs = 24 * 3600 * 1000;
const defaultRecordLimit = 20_000;
const serverName = 'IMDS/150.870.65.1854';

export interface FakeImdsOptions {
  readonly host: string;
  /** 0 chooses one. */
  readonly port: number;
  /** The node's own addresses; a token sent to any other address is a leak. */
  readonly nodeIps: readonly string[];
  /** Undefined: the node has none. */
  readonly systemAssigned: LabIdentity | undefined;
  readonly userAssigned?: readonly LabIdentity[];
  /** Default 24 h. */
  readonly tokenLifetimeMs?: number;
  /**
   * `reuse` (default): one token for each identity and resource until it expires, as the real
   * service does. `always-new`: a new token for each request.
   */
  readonly tokens?: 'reuse' | 'always-new';
  /** The real limits are 20 requests per second and 5 concurrent. Default: none. */
  readonly tokenLimits?: { readonly perSec: number; readonly concurrent: number };
  /** Maximum number of recorded requests. Default 20,000. */
  readonly recordLimit?: number;
  readonly clock?: Clock;
}

/** All of these at once; absent faults are off. */
export interface ImdsFaults {
  readonly delayMs?: number;
  /** Answer the first `times` requests, or all, with this status. */
  readonly fail?: {
    readonly status: number;
    readonly times?: number;
    /** The `Retry-After` header. Default: no header, as in most answers of the real service. */
    readonly retryAfterSec?: number;
  };
  /** Accept requests and never answer. */
  readonly hang?: boolean;
  /** Refuse connections, and cut open ones. */
  readonly closed?: boolean;
  /** The requests that `delayMs`, `fail` and `hang` apply to. Default `all`. */
  readonly paths?: 'all' | 'token';
}

export interface ImdsRequest {
  readonly atWallMs: number;
  readonly from: string;
  readonly method: string;
  /** As received. */
  readonly target: string;
  /** Names in lower case; credentials are left out. */
  readonly headers: Readonly<Record<string, string>>;
  /** {@link LabIdentity.name} of the token in the answer. */
  readonly identity: string | undefined;
  /** Undefined while the answer is outstanding, or if there was none. */
  readonly status: number | undefined;
  /** A token was sent to an address that is not the node's. */
  readonly leaked: boolean;
}

export interface FakeImds extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Assigns an identity to the node, replacing one with the same client ID. */
  assign(identity: LabIdentity): void;
  unassign(clientId: string): void;
  setSystemAssigned(identity: LabIdentity | undefined): void;
  /** For tokens issued from now on; earlier ones are not reused. */
  setTokenLifetime(lifetimeMs: number): void;
  /** Replaces the faults; `{}` ends all of them. Requests that already hang are not answered. */
  setFaults(faults: ImdsFaults): Promise<void>;
  /** The latest requests, oldest first. */
  requests(): readonly ImdsRequest[];
  /** Forgets the requests and the high-water mark; the count of leaks is kept. */
  clear(): void;
  /** Until disposed, tokens for this address are not leaks: its pod may request them directly. */
  allowFrom(address: string): Disposable;
  /** Tokens sent to addresses other than the node's, since the start. */
  leaks(): number;
  /** Every token it issued, oldest first; only the latest ones in a long run. */
  issuedTokens(): readonly string[];
  /** The maximum number of concurrent token requests. */
  peakTokenConcurrency(): number;
}

type OpenRecord = { -readonly [K in keyof ImdsRequest]: ImdsRequest[K] };

/** @throws the error of `listen`, for example `EADDRINUSE`. */
export async function openFakeImds(options: FakeImdsOptions): Promise<FakeImds> {
  const clock = options.clock ?? systemClock;
  const recordLimit = options.recordLimit ?? defaultRecordLimit;
  const nodeIps = new Set(options.nodeIps);
  const userAssigned = new Map<string, LabIdentity>();
  for (const identity of options.userAssigned ?? []) {
    userAssigned.set(identity.clientId.toLowerCase(), identity);
  }
  let systemAssigned = options.systemAssigned;
  const tokens = createTokenShelf(options, clock);
  const limiter = createLimiter(options.tokenLimits, clock);
  let faults: ImdsFaults = {};
  let failuresLeft = 0;
  let records: OpenRecord[] = [];
  const allowed = new Set<string>();
  let leaks = 0;

  const facts = (): ImdsFacts => ({
    tenantId: labTenantId,
    systemAssigned,
    userAssigned: [...userAssigned.values()],
    token: tokens.take,
  });

  const decide = (request: IncomingMessage, affected: boolean, throttled: boolean): ImdsAnswer => {
    if (affected && faults.fail !== undefined && failuresLeft > 0) {
      failuresLeft -= 1;
      return renderFailure(faults.fail.status, faults.fail.retryAfterSec);
    }
    if (throttled) return renderFailure(429);
    return answerImds(
      {
        method: request.method ?? '',
        target: parseImdsTarget(request.url ?? ''),
        metadata: joinHeader(request, 'metadata'),
        forwardedFor: joinHeader(request, 'x-forwarded-for'),
      },
      facts(),
    );
  };

  const send = (
    { socket }: IncomingMessage,
    response: ServerResponse,
    record: OpenRecord,
    answer: ImdsAnswer,
  ): void => {
    // The client has disconnected: no answer, no leak. A pipelined request has no socket yet.
    if (response.destroyed || socket.destroyed) return;
    record.status = answer.status;
    record.identity = answer.identity?.name;
    record.leaked =
      answer.identity !== undefined && !nodeIps.has(record.from) && !allowed.has(record.from);
    if (record.leaked) leaks += 1;
    response.writeHead(answer.status, {
      Date: new Date(clock.wallMs()).toUTCString(),
      'Content-Type': answer.contentType,
      'Content-Length': Buffer.byteLength(answer.body),
      // While the service restarts, the wire server answers instead, with another `Server` header.
      Server: answer.status === 500 ? 'Microsoft-IIS/10.0' : serverName,
      'x-ms-request-id': randomUUID(),
      ...(answer.allow === undefined ? {} : { Allow: answer.allow }),
      ...(answer.retryAfterSec === undefined ? {} : { 'Retry-After': answer.retryAfterSec }),
    });
    response.end(answer.body);
  };

  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const record = createRecord(request, clock);
    records.push(record);
    // Cut by half at a time, so that a long run does not shift the whole array at each request.
    if (records.length >= recordLimit * 2) records = records.slice(-recordLimit);
    request.resume();
    const isToken = isTokenPath(parseImdsTarget(record.target).path);
    const affected = faults.paths !== 'token' || isToken;
    const permit = isToken ? limiter.enter() : undefined;
    response.once('close', () => permit?.leave());
    if (affected && faults.hang === true) return;
    const answer = (): void => {
      send(request, response, record, decide(request, affected, permit?.throttled === true));
    };
    if (affected && faults.delayMs !== undefined) setTimeout(answer, faults.delayMs).unref();
    else answer();
  };

  const door = await openDoor(options.host, options.port, serve);

  return {
    host: options.host,
    port: door.port,
    assign: (identity) => {
      userAssigned.set(identity.clientId.toLowerCase(), identity);
    },
    unassign: (clientId) => {
      userAssigned.delete(clientId.toLowerCase());
    },
    setSystemAssigned: (identity) => {
      systemAssigned = identity;
    },
    setTokenLifetime: tokens.setLifetime,
    setFaults: async (next) => {
      faults = next;
      failuresLeft = next.fail === undefined ? 0 : (next.fail.times ?? Infinity);
      await (next.closed === true ? door.shut() : door.open());
    },
    requests: () => records.slice(-recordLimit).map((record) => ({ ...record })),
    clear: () => {
      records = [];
      limiter.resetPeak();
    },
    allowFrom: (address) => {
      allowed.add(address);
      return { [Symbol.dispose]: () => void allowed.delete(address) };
    },
    leaks: () => leaks,
    issuedTokens: tokens.issued,
    peakTokenConcurrency: () => limiter.peak(),
    [Symbol.asyncDispose]: () => door.shut(),
  };
}

function createRecord(request: IncomingMessage, clock: Clock): OpenRecord {
  const headers: Record<string, string> = {};
  for (const [name, values] of Object.entries(request.headersDistinct)) {
    if (name === 'authorization' || name === 'cookie' || values === undefined) continue;
    headers[name] = values.join(', ');
  }
  return {
    atWallMs: clock.wallMs(),
    from: (request.socket.remoteAddress ?? '').replace(/^::ffff:/, ''),
    method: request.method ?? '',
    target: request.url ?? '',
    headers,
    identity: undefined,
    status: undefined,
    leaked: false,
  };
}

function joinHeader(request: IncomingMessage, name: string): string | undefined {
  return request.headersDistinct[name]?.join(', ');
}

function renderFailure(status: number, retryAfterSec?: number): ImdsAnswer {
  const wait = retryAfterSec === undefined ? {} : { retryAfterSec };
  if (status === 429) {
    const body = 'Temporarily throttled, too many requests';
    return { status, contentType: textType, body, ...wait };
  }
  if (status === 500) return { status, contentType: textType, body: 'Internal error', ...wait };
  const body = JSON.stringify({ error: 'service_unavailable', error_description: 'Lab fault' });
  return { status, contentType: jsonType, body, ...wait };
}

interface TokenShelf {
  readonly take: (identity: LabIdentity, resource: string, freshness: TokenFreshness) => ImdsToken;
  readonly setLifetime: (lifetimeMs: number) => void;
  readonly issued: () => readonly string[];
}

function createTokenShelf(options: FakeImdsOptions, clock: Clock): TokenShelf {
  const sign = createTokenSigner();
  const shelf = new Map<string, Omit<ImdsToken, 'expiresInSec'>>();
  let lifetimeMs = options.tokenLifetimeMs ?? dayMs;
  let issued: string[] = [];

  const issue = (identity: LabIdentity, resource: string): Omit<ImdsToken, 'expiresInSec'> => {
    const text = sign({
      identity,
      audience: resource,
      tenantId: labTenantId,
      issuedAtWallMs: clock.wallMs(),
      lifetimeMs,
    });
    issued.push(text);
    if (issued.length >= defaultRecordLimit * 2) issued = issued.slice(-defaultRecordLimit);
    const claims = decodeLabToken(text);
    return { text, notBeforeSec: claims?.nbf ?? 0, expiresOnSec: claims?.exp ?? 0 };
  };

  return {
    take: (identity, resource, freshness) => {
      const key = JSON.stringify([identity, resource]);
      const nowSec = Math.floor(clock.wallMs() / 1000);
      const kept = options.tokens === 'always-new' ? undefined : shelf.get(key);
      const token =
        freshness === 'new' || kept === undefined || kept.expiresOnSec <= nowSec
          ? issue(identity, resource)
          : kept;
      shelf.set(key, token);
      return { ...token, expiresInSec: token.expiresOnSec - nowSec };
    },
    setLifetime: (next) => {
      lifetimeMs = next;
      shelf.clear();
    },
    issued: () => issued,
  };
}

interface Permit {
  readonly throttled: boolean;
  leave(): void;
}

interface Limiter {
  enter(): Permit;
  peak(): number;
  resetPeak(): void;
}

function createLimiter(limits: FakeImdsOptions['tokenLimits'], clock: Clock): Limiter {
  let open = 0;
  let peak = 0;
  let recentMs: number[] = [];
  return {
    enter: () => {
      open += 1;
      peak = Math.max(peak, open);
      let throttled = false;
      if (limits !== undefined) {
        const nowMs = clock.monotonicMs();
        recentMs = recentMs.filter((atMs) => atMs > nowMs - 1000);
        throttled = open > limits.concurrent || recentMs.length >= limits.perSec;
        if (!throttled) recentMs.push(nowMs);
      }
      return {
        throttled,
        leave: () => {
          open -= 1;
        },
      };
    },
    peak: () => peak,
    resetPeak: () => {
      peak = open;
    },
  };
}

interface Door {
  readonly port: number;
  open(): Promise<void>;
  shut(): Promise<void>;
}

/** A listener that can be closed and reopened on the same port. */
async function openDoor(
  host: string,
  port: number,
  serve: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Door> {
  let server: Server | undefined = await listen(host, port, serve);
  const address = server.address();
  const bound = typeof address === 'object' && address !== null ? address.port : port;
  const close = async (closing: Server): Promise<void> => {
    const closed = once(closing, 'close');
    closing.close();
    closing.closeAllConnections();
    await closed;
  };
  // It may be opened or shut again before it has finished with the last time.
  let isWanted = true;
  let isBusy = false;
  let done = Promise.resolve();
  const settle = async (): Promise<void> => {
    isBusy = true;
    try {
      while (isWanted !== (server !== undefined)) {
        if (server === undefined) server = await listen(host, bound, serve);
        else {
          const closing = server;
          server = undefined;
          await close(closing);
        }
      }
    } finally {
      isBusy = false;
    }
  };
  const want = (isOpen: boolean): Promise<void> => {
    isWanted = isOpen;
    if (!isBusy) done = settle();
    return done;
  };
  return { port: bound, open: () => want(true), shut: () => want(false) };
}

async function listen(
  host: string,
  port: number,
  serve: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Server> {
  // The server's own timeouts must not end requests that hang on purpose.
  const server = createServer({ requestTimeout: 0, keepAliveTimeout: 120_000 }, serve);
  server.listen(port, host);
  await once(server, 'listening');
  return server;
}
