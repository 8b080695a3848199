/**
 * The Kubernetes API over one undici pool: get, post, watch. It handles HTTP and credentials, but
 * not lists or objects. Proxy variables of the environment are ignored: like every node agent, it
 * connects to the API server directly.
 */
import { pipeline, type Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createGunzip, gunzipSync } from 'node:zlib';
import { Pool, type Dispatcher } from 'undici';
import { systemClock, type Clock } from '../../../base/time/clock.ts';
import { createConnector } from './connector.ts';
import {
  loadCredentials,
  type Access,
  type AccessTls,
  type CredentialOptions,
} from './credentials.ts';
import { openDeadline, untilAborted, type Deadline } from '../../../base/time/deadline.ts';
import { parseRecord, stringAt } from '../../../base/json-value.ts';
import { readBody } from '../../../base/read-body.ts';
import { networkCode } from '../../../base/network-code.ts';
import { parseRetryAfter } from '../../../base/retry-after.ts';
import type { NodeImpersonation } from './node-impersonation.ts';
import { KubeError, kubeErrorOfFailure, kubeErrorOfStatus } from './kube-error.ts';
import { flatten, readWatchChunks } from './watch-stream.ts';

export interface RequestOptions {
  /** Ends the call; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** For the whole call, credentials and body included. Default 30 s. */
  readonly timeoutMs?: number;
  /** Most bytes of an answer. Default 4 MiB: one object is at most about 1.5 MiB in etcd. */
  readonly maxBytes?: number;
  /** The accepted media type, a form of JSON. Default: application/json. */
  readonly accept?: string;
}

export interface WatchOptions {
  readonly signal?: AbortSignal;
  /** Longest time without a byte; then the watch fails with TIMEOUT. */
  readonly silenceMs: number;
  /** Called when the server has accepted the watch, before any event. */
  readonly onOpen?: () => void;
}

export interface JsonReader {
  getJson(path: string, options?: RequestOptions): Promise<unknown>;
}

/**
 * Every method rejects with `KubeError`, or with the signal's reason after an abort by the caller.
 * `path` is absolute and includes the query.
 */
export interface KubeCalls extends JsonReader {
  postJson(path: string, body: unknown, options?: RequestOptions): Promise<unknown>;
  /** A JSON patch (RFC 6902). */
  patchJson(path: string, patch: readonly unknown[], options?: RequestOptions): Promise<unknown>;
  /**
   * The events of a watch as parsed JSON. Ends when the server closes the stream cleanly between
   * two events. Leaving the loop closes the connection.
   */
  watch(path: string, options: WatchOptions): AsyncIterableIterator<unknown, void>;
}

/** Without a credential. */
export interface ApiServer extends Pick<Access, 'origin' | 'fingerprint'> {
  readonly tls: Pick<AccessTls, 'ca' | 'servername'>;
}

export interface KubeClient extends KubeCalls, AsyncDisposable {
  /** Where the API server is, and by which authorities it is verified. */
  server(): Promise<ApiServer>;
  /** The same calls, as the node where that is possible. */
  as(node: NodeImpersonation): KubeCalls;
}

/** The default environment is that of the process. */
export interface KubeClientOptions extends Partial<CredentialOptions> {
  readonly userAgent: string;
  readonly clock?: Clock;
}

export const connectTimeouts = {
  // Even a slow network of a node answers within a fraction of this time.
  tcpTimeoutMs: 700,
  connectTimeoutMs: 10_000,
};
/** From sending a request to the head of its answer; also the default of `timeoutMs`. */
const headersTimeoutMs = 30_000;
/** Each watch uses one for its whole life. */
const maxConnections = 16;
const maxErrorBytes = 64 * 1024;
const maxAnswerBytes = 4 * 1024 * 1024;
/** Decompressed at a time. Of a watch, each piece is a task of the thread pool: with 16 KiB it takes longer. */
const pieceBytes = 64 * 1024;

/**
 * Loads the credentials; opens no connection yet.
 * Rejects with `KubeError` CONFIG when they are missing or unusable.
 */
export async function openKubeClient(options: KubeClientOptions): Promise<KubeClient> {
  const { clock = systemClock, environment = process.env } = options;
  const credentials = loadCredentials({ ...options, environment });
  await credentials.current();

  const pools = new Pools(clock);

  async function attempt(
    access: Access,
    request: KubeRequest,
    user: string | undefined,
    signal: AbortSignal,
  ): Promise<Answer> {
    const { statusCode, headers, body } = await pools.of(access).request({
      method: request.method,
      path: access.pathPrefix + request.path,
      headers: {
        ...access.headers,
        accept: request.accept ?? 'application/json',
        'user-agent': options.userAgent,
        ...(request.method === 'GET' ? { 'accept-encoding': 'gzip' } : {}),
        ...(request.body === undefined
          ? {}
          : { 'content-type': request.contentType ?? 'application/json' }),
        ...(user === undefined ? {} : { 'impersonate-user': user }),
      },
      body: request.body ?? null,
      signal,
    });
    const answer = { statusCode, headers, body };
    if (statusCode >= 200 && statusCode < 300) return answer;
    throw await statusError(answer, clock);
  }

  /** After a 401 the credential is read again; if it differs, the request is repeated once. */
  async function sendAs(
    user: string | undefined,
    request: KubeRequest,
    signal: AbortSignal,
  ): Promise<Answer> {
    const access = await untilAborted(signal, credentials.current());
    try {
      return await attempt(access, request, user, signal);
    } catch (error) {
      if (!(error instanceof KubeError) || error.code !== 'UNAUTHORIZED') throw error;
      credentials.forget();
      const renewed = await untilAborted(signal, credentials.current());
      if (sameIdentity(access, renewed)) throw error;
      return attempt(renewed, request, user, signal);
    }
  }

  return {
    ...createCalls(clock, (request, signal) => sendAs(undefined, request, signal)),
    async server() {
      const { origin, fingerprint, tls } = await credentials.current();
      return { origin, fingerprint, tls: { ca: tls.ca, servername: tls.servername } };
    },
    as: (node) =>
      createCalls(clock, (request, signal) => node.call((user) => sendAs(user, request, signal))),
    [Symbol.asyncDispose]: () => pools[Symbol.asyncDispose](),
  };
}

type Send = (request: KubeRequest, signal: AbortSignal) => Promise<Answer>;

function createCalls(clock: Clock, send: Send): KubeCalls {
  async function exchange(request: KubeRequest, call: RequestOptions = {}): Promise<unknown> {
    const timeoutMs = call.timeoutMs ?? headersTimeoutMs;
    using deadline = openDeadline(clock, timeoutMs, call.signal);
    try {
      const response = await send(request, deadline.signal);
      const text = await readText(response, call.maxBytes ?? maxAnswerBytes);
      // The pool knows only then that the connection is free. Else the next call opens another, and
      // this one stays idle: if the network drops it silently, a later call waits for its timeout.
      await nextTurn();
      return parseBody(text);
    } catch (error) {
      throw translate(error, deadline, call.signal, `no answer within ${timeoutMs} ms`);
    }
  }

  async function* watchChunks(
    path: string,
    { signal, silenceMs, onOpen }: WatchOptions,
  ): AsyncGenerator<Generator<unknown, void>, void> {
    using deadline = openDeadline(clock, headersTimeoutMs, signal);
    let content: Readable | undefined;
    try {
      content = contentOf(await send({ method: 'GET', path }, deadline.signal));
      deadline.restart(silenceMs);
      onOpen?.();
      yield* readWatchChunks(content, () => deadline.restart(silenceMs));
    } catch (error) {
      throw translate(error, deadline, signal, `no byte within ${silenceMs} ms`);
    } finally {
      content?.destroy();
    }
  }

  return {
    getJson: (path, call) => exchange({ method: 'GET', path, accept: call?.accept }, call),
    postJson: (path, body, call) =>
      exchange({ method: 'POST', path, body: JSON.stringify(body) }, call),
    patchJson: (path, patch, call) =>
      exchange(
        { method: 'PATCH', path, body: JSON.stringify(patch), contentType: jsonPatch },
        call,
      ),
    watch: (path, call) => flatten(watchChunks(path, call)),
  };
}

/** One for each server and identity of the credentials; only the newest gets further requests. */
class Pools implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #open = new Set<Pool>();
  #active: { readonly fingerprint: string; readonly pool: Pool } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  of(access: Access): Pool {
    const { origin, tls, fingerprint } = access;
    const previous = this.#active;
    if (previous?.fingerprint === fingerprint) return previous.pool;
    const pool = new Pool(origin, {
      connections: maxConnections,
      pipelining: 1,
      // Watches may be idle for long; the deadline of the call limits their silence.
      bodyTimeout: 0,
      headersTimeout: 0,
      // Long enough for the pages of a list. A network may drop an older one silently, and the call
      // that uses it would wait for its deadline.
      keepAliveTimeout: 500,
      connect: createConnector({ clock: this.#clock, tls, ...connectTimeouts }),
    });
    this.#open.add(pool);
    this.#active = { fingerprint, pool };
    if (previous !== undefined) this.#retire(previous.pool);
    return pool;
  }

  /** Running requests of the pool finish; watches end with their own timeout. */
  #retire(pool: Pool): void {
    const forget = (): void => void this.#open.delete(pool);
    void pool.close().then(forget, forget);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#open].map((pool) => pool.destroy()));
  }
}

const jsonPatch = 'application/json-patch+json';

interface Answer extends Pick<Dispatcher.ResponseData, 'statusCode' | 'headers'> {
  readonly body: Readable;
}

interface KubeRequest {
  readonly method: 'GET' | 'POST' | 'PATCH';
  readonly path: string;
  readonly body?: string;
  /** Of the body; default `application/json`. */
  readonly contentType?: string;
  readonly accept?: string | undefined;
}

function sameIdentity(one: Access, other: Access): boolean {
  return (
    one.fingerprint === other.fingerprint &&
    one.headers['authorization'] === other.headers['authorization']
  );
}

/** The error for the caller: the reason of its signal, a timeout, or a coded error. */
function translate(
  error: unknown,
  deadline: Deadline,
  caller: AbortSignal | undefined,
  late: string,
): unknown {
  if (caller?.aborted === true) return caller.reason;
  if (deadline.passed) return new KubeError('TIMEOUT', late, { cause: error });
  return kubeErrorOfFailure(error);
}

/**
 * Decompressed as it is read, so that the limits are those of the content. The server compresses a watch in
 * members, one for each time that it has nothing more to send; reading them is one stream.
 */
function contentOf({ headers, body }: Answer): Readable {
  if (!isCompressed(headers)) return body;
  // The reader gets the errors of both, and ends both.
  return pipeline(body, createGunzip({ chunkSize: pieceBytes }), () => undefined);
}

function isCompressed(headers: Answer['headers']): boolean {
  return headers['content-encoding'] === 'gzip';
}

async function statusError(response: Answer, clock: Clock): Promise<KubeError> {
  const status = response.statusCode;
  const text = await readText(response, maxErrorBytes).catch((error: unknown) => {
    if (error instanceof KubeError && error.code === 'TOO_LARGE') return '';
    throw error;
  });
  // A proxy answers with an HTML page; the status is enough.
  const message = stringAt(parseRecord(text), 'message');
  const retryAfterS = parseRetryAfter(response.headers['retry-after'], clock.wallMs());
  return kubeErrorOfStatus(
    status,
    message === '' ? `the API server answered ${status}` : message,
    retryAfterS === undefined ? undefined : retryAfterS * 1000,
  );
}

/**
 * Decompressed at once: a page of a list takes a millisecond, and as a stream twice the processor time. Rejects
 * with `KubeError` TOO_LARGE.
 */
async function readText({ headers, body }: Answer, maxBytes: number): Promise<string> {
  const tooLarge = () => new KubeError('TOO_LARGE', `the answer is longer than ${maxBytes} bytes`);
  const bytes = await readBody(body, maxBytes, tooLarge);
  if (!isCompressed(headers)) return String(bytes);
  try {
    return String(gunzipSync(bytes, { chunkSize: pieceBytes, maxOutputLength: maxBytes }));
  } catch (error) {
    throw networkCode(error) === 'ERR_BUFFER_TOO_LARGE' ? tooLarge() : error;
  }
}

function parseBody(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new KubeError('MALFORMED', 'the answer is not JSON', { cause });
  }
}
