/**
 * A Kubernetes API server for the lab and the tests: lists, watches and writes over real HTTP, with
 * the semantics a watching client depends on (versions, resume, 410, bookmarks, paging, selectors),
 * service account tokens that verify, and deliberate faults. It has no authorization, no admission
 * and no schemas; a status is part of its object, and deletions are immediate.
 */
import { randomBytes } from 'node:crypto';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer, Server as HttpsServer } from 'node:https';
import { isIPv6, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { systemClock, type Clock } from '../../../src/base/time/clock.ts';
import { asRecord, stringAt } from '../../../src/base/json-value.ts';
import { createFaultPlan, type FakeKubeFaults } from './faults.ts';
import {
  createIdentityBindings,
  type IdentityBindingOptions,
  type IdentityBindings,
} from './identity-bindings.ts';
import { createLateView, type LateView } from './late-view.ts';
import { jsonPatch, mergePatch } from './patches.ts';
import {
  badRequest,
  expiredContinue,
  failure,
  notAllowed,
  notFound,
  renderRefusal,
  tooLargeVersion,
  unrecognized,
  wrongPatchType,
  type Refusal,
} from './refusals.ts';
import {
  apiVersionOf,
  routeOf,
  type FakeObject,
  type FakeRef,
  type FakeResource,
  type FakeRoute,
} from './resources.ts';
import { parseFieldSelector, parseLabelSelector, type SelectorResult } from './selectors.ts';
import {
  createFakeKubeStore,
  type FakeKubeStore,
  type FakeView,
  type WriteResult,
} from './store.ts';
import {
  createTokenIssuer,
  describeIssuer,
  reviewUser,
  type FakeUser,
  type SigningKeys,
} from './tokens.ts';
import { openFakeWatch, type FakeWatch } from './watch.ts';

export interface FakeKubeOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** 0, the default, selects a free port. */
  readonly port?: number;
  readonly clock?: Clock;
  /** Default 15 s; a real server sends a bookmark about every minute. */
  readonly bookmarkEveryMs?: number;
  /** PEM; serves https. Without a CA, the kubeconfig has the certificate as its own. */
  readonly tls?: { readonly key: string; readonly cert: string; readonly ca?: string };
}

/** A received request. The last 1000 are kept, in order of arrival. */
export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly userAgent: string;
  /** In whose name; everybody may act in every name. */
  readonly asUser: string | undefined;
  readonly authorization: string;
  readonly acceptEncoding: string;
}

export interface FakeKube extends AsyncDisposable {
  /** Without a trailing slash. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly store: FakeKubeStore;
  readonly faults: FakeKubeFaults;
  readonly requests: readonly SeenRequest[];
  /** The user in answers to SelfSubjectReview; an administrator until it is set. */
  user: FakeUser;
  /** Exchanges tokens under another TLS name, as AKS does. Only once, and only with TLS. */
  serveIdentityBindings(options: IdentityBindingOptions): IdentityBindings;
  /** Keys to verify the service account tokens it issues. */
  signingKeys(): Promise<SigningKeys>;
  /** Open sockets. */
  readonly connections: number;
  /** Text of a kubeconfig for this server, with the required token if one is set. */
  kubeconfig(): string;
  /** Creates or replaces; keeps an existing uid. Throws a TypeError for an invalid object. */
  apply(object: unknown): FakeObject;
  /** JSON merge patch. Throws a TypeError when there is no such object. */
  patch(ref: FakeRef, patch: unknown): FakeObject;
  /** False when there was no such object. */
  delete(ref: FakeRef): boolean;
  get(ref: FakeRef): FakeObject | undefined;
  /** Forgets the history: watches that resume from an older version get 410. */
  compact(): void;
  /** @returns how the server is restored from this backup: all connections are cut, and versions go back. */
  backUp(): () => void;
  /** Open watches, of one resource (plural name) or all. */
  watches(plural?: string): number;
  /** Ends all watches cleanly. */
  closeWatches(): void;
  /** Writes raw text into all watches. */
  injectIntoWatches(text: string): void;
  /** Watches that are open now send nothing more and are not closed. */
  goSilent(): void;
  /** Destroys all sockets. */
  cutConnections(): void;
}

const maxBodyBytes = 3 * 1024 * 1024;
const maxSeenRequests = 1000;
const maxSnapshots = 100;
/** The real server leaves smaller answers as they are. */
const leastCompressedBytes = 128 * 1024;
const keySetType = 'application/jwk-set+json';
const administrator: FakeUser = {
  username: 'kubernetes-admin',
  groups: ['system:masters', 'system:authenticated'],
};

/** Rejects with the error of `listen`. */
export async function openFakeKube(options: FakeKubeOptions = {}): Promise<FakeKube> {
  const { host = '127.0.0.1', clock = systemClock, bookmarkEveryMs = 15_000, tls } = options;
  const store = createFakeKubeStore(clock);
  const faults = createFaultPlan();
  const tokens = createTokenIssuer(store, clock);
  let user = administrator;
  const requests: SeenRequest[] = [];
  const sockets = new Set<Socket>();
  const watches = new Set<FakeWatch>();
  const snapshots = new Map<string, Snapshot>();
  let pages = 0;
  const lateView = createLateView(store, clock, () => faults.memoryLagMs);
  /** By connection: undefined for the server that is current. */
  const views = new WeakMap<Socket, LateView | undefined>();
  let isNextLate = true;

  function lateViewOf({ socket }: IncomingMessage): LateView | undefined {
    if (!views.has(socket)) {
      const isLate = faults.memoryLagMs > 0 && isNextLate;
      if (faults.memoryLagMs > 0) isNextLate = !isNextLate;
      views.set(socket, isLate ? lateView : undefined);
    }
    return views.get(socket);
  }

  const onRequest: RequestListener = (request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (!response.headersSent) refuse(response, failure(500, String(error)));
      else response.destroy();
    });
  };
  const server: Server =
    tls === undefined ? createHttpServer(onRequest) : createHttpsServer(tls, onRequest);
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  let exchange: ReturnType<typeof createIdentityBindings> | undefined;
  const { promise: listening, resolve, reject } = Promise.withResolvers<undefined>();
  server.once('error', reject);
  server.listen(options.port ?? 0, host, () => {
    resolve(undefined);
  });
  await listening;
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const url = `${tls === undefined ? 'http' : 'https'}://${isIPv6(host) ? `[${host}]` : host}:${port}`;

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const target = request.url ?? '/';
    const method = request.method ?? 'GET';
    const { socket } = request;
    if (exchange !== undefined && socket instanceof TLSSocket) {
      const { bindings, answer } = exchange;
      if (socket.servername === bindings.serverName) {
        const { headers } = request;
        const body = await readText(request);
        const given = await answer({ method, path: target, headers, body: body ?? '' });
        if (given.retryAfter !== undefined) response.setHeader('retry-after', given.retryAfter);
        sendBytes(response, given.status, Buffer.from(given.body), given.type);
        return;
      }
    }
    const authorization = request.headers.authorization ?? '';
    requests.push({
      method,
      url: target,
      userAgent: request.headers['user-agent'] ?? '',
      asUser: request.headers['impersonate-user']?.toString(),
      authorization,
      acceptEncoding: request.headers['accept-encoding']?.toString() ?? '',
    });
    if (requests.length > maxSeenRequests) requests.shift();
    if (faults.hang) return;
    if (faults.requiredToken !== undefined && authorization !== `Bearer ${faults.requiredToken}`) {
      refuse(response, failure(401, 'Unauthorized'));
      return;
    }
    if (
      faults.throttledToken !== undefined &&
      authorization === `Bearer ${faults.throttledToken}`
    ) {
      // As in the real server's priority and fairness: no Status object.
      response.writeHead(429, { 'content-type': 'text/plain; charset=utf-8', 'retry-after': '1' });
      response.end('Too many requests, please try again later.\n');
      return;
    }
    const planned = faults.takeFailure(target);
    if (planned !== undefined) {
      if (planned.retryAfterSec !== undefined) {
        response.setHeader('retry-after', String(planned.retryAfterSec));
      }
      refuse(response, failure(planned.status, planned.message));
      return;
    }
    const parsed = new URL(target, url);
    const route = routeOf(decodeURIComponent(parsed.pathname));
    if (route.kind === 'none' || !isInstalled(route)) {
      // The real server's answer for a path without an API; it need not be JSON.
      response.writeHead(404, { 'content-type': 'text/plain; charset=utf-8' });
      response.end('404 page not found\n');
      return;
    }
    switch (route.kind) {
      case 'discovery':
        sendJson(response, 200, route.document);
        return;
      case 'issuer':
        if (route.document === 'keys') sendJson(response, 200, await tokens.keys(), keySetType);
        else sendJson(response, 200, describeIssuer());
        return;
      case 'token_request':
      case 'self_review':
        await serveReview(route, method, request, response);
        return;
      case 'object':
        await serveObject(route, method, request, response);
        return;
      case 'collection':
        if (method === 'GET') serveCollection(route, parsed.searchParams, request, response);
        else await serveCreate(route, method, request, response);
    }
  }

  /** Objects that exist only in the answer and are not stored. */
  async function serveReview(
    route: Extract<FakeRoute, { kind: 'token_request' | 'self_review' }>,
    method: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const body = await readBody(request);
    if (method !== 'POST') {
      refuse(response, notAllowed);
    } else if (route.kind === 'self_review') {
      sendJson(response, 201, reviewUser(user, clock.wallMs()));
    } else {
      const answer = await tokens.answer(route, body, faults.maxTokenSec);
      if (answer.ok) sendJson(response, 201, answer.review);
      else refuse(response, answer);
    }
  }

  function isInstalled(route: FakeRoute): boolean {
    return route.kind === 'collection' || route.kind === 'object'
      ? !faults.notInstalled.has(route.resource.plural)
      : true;
  }

  function serveCollection(
    { resource, namespace }: Extract<FakeRoute, { kind: 'collection' }>,
    query: URLSearchParams,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const mayCompress = request.headers['accept-encoding'] === 'gzip';
    const selector = selectorOf(resource, namespace, query);
    if (!selector.ok) {
      refuse(response, badRequest(selector.message));
      return;
    }
    const { matches } = selector;
    const late = lateViewOf(request);
    if (!isTrue(query.get('watch'))) {
      serveList(late ?? store, resource, matches, query, mayCompress, response);
      return;
    }
    const isCompressed = mayCompress && isTrue(query.get('sendInitialEvents'));
    const begin = (): void => {
      if (!response.destroyed)
        serveWatch(late ?? store, resource, matches, query, isCompressed, response);
    };
    // Without a version, the newest state is asked for, which a late server waits for.
    if (late === undefined || (query.get('resourceVersion') ?? '') !== '') begin();
    else late.whenCurrent(begin);
  }

  function serveList(
    memory: FakeView,
    resource: FakeResource,
    matches: (object: FakeObject) => boolean,
    query: URLSearchParams,
    mayCompress: boolean,
    response: ServerResponse,
  ): void {
    const token = query.get('continue') ?? '';
    const version = query.get('resourceVersion') ?? '';
    const problem = findListProblem(token, version, query.get('limit') ?? '');
    if (problem !== undefined) {
      refuse(response, badRequest(problem));
      return;
    }
    if (Number(version) > memory.version) {
      response.setHeader('retry-after', '1');
      refuse(response, tooLargeVersion(version, memory.version));
      return;
    }
    const from = version === '' ? store : memory;
    const snapshot: Snapshot | undefined =
      token === ''
        ? { version: from.version, items: from.list(resource).filter(matches) }
        : snapshots.get(token);
    if (snapshot === undefined || snapshot.version < store.oldestVersion) {
      refuse(response, expiredContinue);
      return;
    }
    // A list from memory (`resourceVersion=0`) is not paged, as in the real server.
    const asked = version === '0' ? 0 : Number(query.get('limit') ?? '0');
    const limit = asked > 0 ? asked : Infinity;
    const rest = snapshot.items.slice(limit);
    const metadata: Record<string, unknown> = { resourceVersion: String(snapshot.version) };
    if (rest.length > 0) {
      const next = `${snapshot.version}-${(pages += 1)}-${rest.length}-${resource.plural}`;
      const [oldest] = snapshots.keys();
      // Others are of lists that are being read.
      if (snapshots.size >= maxSnapshots && oldest !== undefined) snapshots.delete(oldest);
      snapshots.set(next, { version: snapshot.version, items: rest });
      metadata['continue'] = next;
      // The real server does not count the remaining matches of a selector.
      if (!isSelection(query)) metadata['remainingItemCount'] = rest.length;
    }
    const list = JSON.stringify({
      kind: `${resource.kind}List`,
      apiVersion: apiVersionOf(resource),
      metadata,
      items: snapshot.items.slice(0, limit),
    });
    if (mayCompress && list.length > leastCompressedBytes) {
      response.setHeader('content-encoding', 'gzip');
      sendBytes(response, 200, gzipSync(list, { level: 1 }));
    } else sendBytes(response, 200, Buffer.from(list));
  }

  function serveWatch(
    view: FakeView,
    resource: FakeResource,
    matches: (object: FakeObject) => boolean,
    query: URLSearchParams,
    isCompressed: boolean,
    response: ServerResponse,
  ): void {
    const text = query.get('resourceVersion') ?? '';
    if (!/^\d*$/.test(text)) {
      // Not a 400, as in the real server.
      refuse(response, { status: 500, message: unparsableVersion(text) });
      return;
    }
    const from = text === '' || text === '0' ? undefined : Number(text);
    const changes = from === undefined ? [] : view.since(from);
    if (changes === undefined) {
      serveGone(text, response);
      return;
    }
    const timeoutSec = Number(query.get('timeoutSeconds') ?? '0');
    const watch = openFakeWatch(
      {
        response,
        store: view,
        resource,
        matches,
        from,
        marksInitialEvents: isTrue(query.get('sendInitialEvents')),
        isCompressed,
        bookmarkEveryMs: isTrue(query.get('allowWatchBookmarks')) ? bookmarkEveryMs : undefined,
        timeoutMs: (timeoutSec > 0 ? timeoutSec : 1800) * 1000,
        clock,
        faults,
        onEnd: (ended) => {
          watches.delete(ended);
        },
      },
      changes,
    );
    // A planned cut may have ended it during its first events.
    if (!watch.ended) watches.add(watch);
  }

  function serveGone(version: string, response: ServerResponse): void {
    const gone = failure(410, `too old resource version: ${version} (${store.oldestVersion})`);
    if (faults.goneByStatus) {
      refuse(response, gone);
      return;
    }
    const object = renderRefusal(gone);
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(`${JSON.stringify({ type: 'ERROR', object })}\n`);
  }

  async function serveObject(
    route: Extract<FakeRoute, { kind: 'object' }>,
    method: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const { resource, namespace, name } = route;
    const ref: FakeRef = { kind: resource.kind, namespace, name };
    switch (method) {
      case 'GET': {
        const object = store.get(ref);
        if (object === undefined) refuse(response, notFound(resource, name));
        else sendJson(response, 200, asAccepted(object, request.headers.accept));
        return;
      }
      case 'DELETE':
        sendWrite(response, 200, store.delete(ref));
        return;
      case 'PUT': {
        const body = await readBody(request);
        const problem = findBodyProblem(body, resource);
        if (problem !== undefined) refuse(response, problem);
        else sendWrite(response, 200, store.replace(placed(body, resource, namespace, name)));
        return;
      }
      case 'PATCH': {
        const type = request.headers['content-type'] ?? '';
        if (type === 'application/json-patch+json') {
          const patch = await readBody(request);
          sendWrite(
            response,
            200,
            store.patch(ref, (previous) => jsonPatch(previous, patch)),
          );
          return;
        }
        // kubectl sends strategic patches for built-in types; without lists they are merge patches.
        if (!/^application\/(strategic-)?merge-patch\+json/.test(type)) {
          refuse(response, wrongPatchType());
          return;
        }
        const patch = await readBody(request);
        sendWrite(
          response,
          200,
          store.patch(ref, (previous) => mergePatch(previous, patch)),
        );
        return;
      }
      default:
        refuse(response, notAllowed);
    }
  }

  async function serveCreate(
    { resource, namespace }: Extract<FakeRoute, { kind: 'collection' }>,
    method: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    if (method !== 'POST') {
      refuse(response, notAllowed);
      return;
    }
    const body = await readBody(request);
    const problem = findBodyProblem(body, resource);
    if (problem !== undefined) refuse(response, problem);
    else sendWrite(response, 201, store.create(placed(body, resource, namespace, undefined)));
  }

  function cutConnections(): void {
    for (const socket of sockets) socket.destroy();
  }

  function kubeconfig(): string {
    const token = faults.requiredToken;
    const trust =
      tls === undefined
        ? 'insecure-skip-tls-verify: true'
        : `certificate-authority-data: ${Buffer.from(tls.ca ?? tls.cert).toString('base64')}`;
    return [
      'apiVersion: v1',
      'kind: Config',
      'clusters:',
      '- name: lab',
      '  cluster:',
      `    server: ${url}`,
      `    ${trust}`,
      'users:',
      '- name: lab',
      token === undefined ? '  user: {}' : `  user: { token: ${JSON.stringify(token)} }`,
      'contexts:',
      '- name: lab',
      '  context: { cluster: lab, user: lab }',
      'current-context: lab',
      '',
    ].join('\n');
  }

  return {
    url,
    host,
    port,
    store,
    faults,
    requests,
    get user() {
      return user;
    },
    set user(next) {
      user = next;
    },
    serveIdentityBindings(bindingOptions) {
      if (!(server instanceof HttpsServer)) throw new TypeError('without TLS there are no names');
      const facts = { store, clock, keys: () => tokens.keys() };
      exchange = createIdentityBindings(bindingOptions, facts, (name, certificate) => {
        server.addContext(name, certificate);
        // Like another server: a session with the one before is not resumed, which would present no certificate.
        server.setTicketKeys(randomBytes(48));
      });
      return exchange.bindings;
    },
    signingKeys: () => tokens.keys(),
    get connections() {
      return sockets.size;
    },
    kubeconfig,
    apply: (object) => written(store.apply(object)),
    patch: (ref, patch) => written(store.patch(ref, (previous) => mergePatch(previous, patch))),
    delete: (ref) => store.delete(ref).ok,
    get: (ref) => store.get(ref),
    compact: () => {
      lateView.catchUp();
      store.compact();
    },
    backUp() {
      const restore = store.save();
      return () => {
        lateView.catchUp();
        restore();
        snapshots.clear();
        cutConnections();
      };
    },
    watches: (plural) =>
      [...watches].filter((watch) => plural === undefined || watch.plural === plural).length,
    closeWatches() {
      for (const watch of [...watches]) watch.close();
    },
    injectIntoWatches(text) {
      for (const watch of [...watches]) watch.inject(text);
    },
    goSilent() {
      for (const watch of watches) watch.mute();
    },
    cutConnections,
    async [Symbol.asyncDispose]() {
      const { promise: closed, resolve: done } = Promise.withResolvers<undefined>();
      server.close(() => {
        done(undefined);
      });
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** An object, or the reduced form that the client accepts. */
function asAccepted(object: FakeObject, accept = ''): object {
  if (!accept.includes('as=PartialObjectMetadata')) return object;
  const { metadata } = object;
  return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata };
}

interface Snapshot {
  readonly version: number;
  readonly items: readonly FakeObject[];
}

function selectorOf(
  resource: FakeResource,
  namespace: string,
  query: URLSearchParams,
): SelectorResult {
  const fields = parseFieldSelector(query.get('fieldSelector') ?? '', resource);
  if (!fields.ok) return fields;
  const labels = parseLabelSelector(query.get('labelSelector') ?? '');
  if (!labels.ok) return labels;
  return {
    ok: true,
    matches: (object) =>
      (namespace === '' || object.metadata.namespace === namespace) &&
      fields.matches(object) &&
      labels.matches(object),
  };
}

function isTrue(value: string | null): boolean {
  return value === 'true' || value === '1';
}

function isSelection(query: URLSearchParams): boolean {
  return ['fieldSelector', 'labelSelector'].some((name) => (query.get(name) ?? '') !== '');
}

/** What is wrong with the parameters of a list, or undefined. */
function findListProblem(token: string, version: string, limit: string): string | undefined {
  if (!/^-?\d*$/.test(limit)) return `strconv.ParseInt: parsing "${limit}": invalid syntax`;
  if (token !== '' && version !== '') {
    return 'specifying resource version is not allowed when using continue';
  }
  if (token !== '' && !/^\d+-\d+-\d+-[a-z]+$/.test(token)) {
    return 'invalid continue token: continue key is not valid: illegal base64 data';
  }
  return /^\d*$/.test(version)
    ? undefined
    : `invalid resource version: ${unparsableVersion(version)}`;
}

function unparsableVersion(text: string): string {
  return `resourceVersion: Invalid value: "${text}": strconv.ParseUint: parsing "${text}": invalid syntax`;
}

/** Only built-in types have a default kind; a body of any other must name it. */
function findBodyProblem(body: unknown, { group, kind }: FakeResource): Refusal | undefined {
  const object = asRecord(body);
  if (object === undefined)
    return unrecognized(kind, "couldn't get version/kind; json parse error");
  if (group === '' || stringAt(object, 'kind') !== '') return undefined;
  return unrecognized(kind, "Object 'Kind' is missing");
}

/** The body as an object of this path, with fields from the path filled in. */
function placed(
  body: unknown,
  resource: FakeResource,
  namespace: string,
  name: string | undefined,
): unknown {
  if (typeof body !== 'object' || body === null) return body;
  const metadata = 'metadata' in body && typeof body.metadata === 'object' ? body.metadata : {};
  return {
    apiVersion: apiVersionOf(resource),
    kind: resource.kind,
    ...body,
    metadata: {
      ...metadata,
      ...(namespace === '' ? {} : { namespace }),
      ...(name === undefined ? {} : { name }),
    },
  };
}

async function readText(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBodyBytes) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  try {
    return JSON.parse((await readText(request)) ?? '');
  } catch {
    return undefined;
  }
}

function written(result: WriteResult): FakeObject {
  if (result.ok) return result.object;
  throw new TypeError(result.message);
}

function sendWrite(response: ServerResponse, status: number, result: WriteResult): void {
  if (result.ok) sendJson(response, status, result.object);
  else refuse(response, result);
}

function refuse(response: ServerResponse, refusal: Refusal): void {
  sendJson(response, refusal.status, renderRefusal(refusal));
}

function sendJson(
  response: ServerResponse,
  status: number,
  body: unknown,
  contentType = 'application/json',
): void {
  sendBytes(response, status, Buffer.from(JSON.stringify(body)), contentType);
}

function sendBytes(
  response: ServerResponse,
  status: number,
  bytes: Buffer,
  contentType = 'application/json',
): void {
  response.writeHead(status, { 'content-type': contentType, 'content-length': bytes.length });
  response.end(bytes);
}
