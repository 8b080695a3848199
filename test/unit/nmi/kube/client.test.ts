import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { Pool } from 'undici';
import { createLabAuthority } from '../../../../lab/fakes/authority.ts';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { OwnTime } from '../../../../lab/pods/own-time.ts';
import { asRecord } from '../../../../src/base/json-value.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import {
  openKubeClient,
  type KubeCalls,
  type KubeClient,
} from '../../../../src/nmi/kube/api/client.ts';
import { createConnector } from '../../../../src/nmi/kube/api/connector.ts';
import { loadCredentials } from '../../../../src/nmi/kube/api/credentials.ts';
import { OverlongLine } from '../../../../src/nmi/kube/api/json-lines.ts';
import { KubeError, kubeErrorOfFailure } from '../../../../src/nmi/kube/api/kube-error.ts';
import { NodeImpersonation } from '../../../../src/nmi/kube/api/node-impersonation.ts';
import { readServerNames } from '../../../../src/nmi/kube/api/server-certificate.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { json, openTokenServer } from '../sources/entra/token-server.ts';
import {
  clientBy,
  clientOf,
  countingClock,
  eventually,
  itOnKube,
  keptLog,
  kubeconfigOf,
  rawPod,
  temporaryDir,
} from './kube-test-bed.ts';

const silenceMs = 5_000;
const pods = '/api/v1/pods';
const watchPath = `${pods}?watch=1`;

async function readAll(events: AsyncIterable<unknown>, into: unknown[] = []): Promise<unknown[]> {
  for await (const event of events) into.push(event);
  return into;
}

async function firstOf(events: AsyncIterable<unknown>): Promise<unknown> {
  for await (const event of events) return event;
  return undefined;
}

function typeOf(event: unknown): unknown {
  return asRecord(event)?.['type'];
}

/** A server that answers each request in one way, and a client of it. */
async function openServer(answer: (response: ServerResponse, request: IncomingMessage) => void) {
  const server = createServer((request, response) => answer(response, request));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = await clientBy(kubeconfigOf(`http://127.0.0.1:${port}`));
  return {
    client,
    connections: () =>
      new Promise<number>((resolve) => server.getConnections((_, count) => resolve(count))),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await client[Symbol.asyncDispose]();
    },
  };
}

const openCompressing = (end: (response: ServerResponse) => void) =>
  openServer((response) => {
    response.setHeader('content-encoding', 'gzip');
    end(response);
  });

describe('a request of the Kubernetes client', () => {
  itOnKube('gets and posts JSON, identifies itself, and keeps its connections', async (kube) => {
    const { fake, client } = kube;
    await client.postJson('/api/v1/namespaces/default/pods', rawPod('one'));
    const pod = asRecord(await client.getJson('/api/v1/namespaces/default/pods/one'));
    assert.equal(asRecord(pod?.['metadata'])?.['name'], 'one');
    const agents = fake.requests.map(({ method, userAgent }) => `${method} ${userAgent}`);
    assert.deepEqual(agents, ['POST nmi-test/1', 'GET nmi-test/1']);
    for (let round = 0; round < 20; round += 1) await client.getJson(pods);
    assert.equal(fake.connections, 1);
  });

  it('may look up the name of the server for 10 s, and try each address for 700 ms', async () => {
    const delays: number[] = [];
    await using fake = await openFakeKube();
    await using client = await clientOf(fake, {
      ...systemClock,
      schedule(delayMs, work) {
        delays.push(delayMs);
        return systemClock.schedule(delayMs, work);
      },
    });
    await client.getJson(pods);
    for (const delayMs of [10_000, 700]) assert.ok(delays.includes(delayMs), `${delayMs}`);
  });

  it('names the type of a body that it sends, and wants what it reads compressed', async () => {
    const types: unknown[] = [];
    await using server = await openServer((response, { headers }) => {
      types.push([headers['content-type'], headers['accept-encoding']]);
      response.end('{}');
    });
    await server.client.postJson('/x', {});
    await server.client.getJson('/x');
    await server.client.patchJson('/x', []);
    assert.deepEqual(types, [
      ['application/json', undefined],
      [undefined, 'gzip'],
      ['application/json-patch+json', undefined],
    ]);
  });

  const asNode = (client: KubeClient): KubeCalls =>
    client.as(new NodeImpersonation({ node: 'node-a', purpose: 'pods', log: keptLog() }));
  const usersOf = ({ requests }: FakeKube) => requests.map(({ asUser }) => asUser);
  const nodeUser = 'system:node:node-a';

  itOnKube('names the node as which it is made, and no group', async ({ fake, client }) => {
    const calls = asNode(client);
    await calls.postJson('/api/v1/namespaces/default/pods', rawPod('one'));
    await calls.getJson(pods);
    await firstOf(calls.watch(`${pods}?watch=true`, { silenceMs }));
    await client.getJson(pods);
    assert.deepEqual(usersOf(fake), [nodeUser, nodeUser, nodeUser, undefined]);
  });

  itOnKube(
    'is made again as the account, watches too, if the server refuses that',
    async (kube) => {
      const { fake, client } = kube;
      fake.apply(rawPod('one'));
      const message = `users "${nodeUser}" is forbidden: User "u" cannot impersonate resource "users"`;
      for (const open of [
        (calls: KubeCalls) => calls.getJson('/api/v1/namespaces/default/pods/one'),
        (calls: KubeCalls) => firstOf(calls.watch(`${pods}?watch=true`, { silenceMs })),
      ]) {
        fake.faults.failNext(1, 403, { message });
        assert.ok((await open(asNode(client))) !== undefined);
        assert.deepEqual(usersOf(fake).slice(-2), [nodeUser, undefined]);
      }
    },
  );

  itOnKube('fails with a code, and what the server says in bounds', async ({ fake, client }) => {
    const rows: readonly [status: number, code: string, message?: string][] = [
      [400, 'SERVER'],
      [401, 'UNAUTHORIZED'],
      [403, 'FORBIDDEN'],
      [404, 'NOT_FOUND'],
      [410, 'GONE'],
      [429, 'THROTTLED'],
      [500, 'SERVER'],
      [503, 'SERVER'],
      [302, 'SERVER', ''],
      [503, 'SERVER', ''],
      [500, 'SERVER', 'x'.repeat(64 * 1024)],
    ];
    for (const [status, code, said] of rows) {
      const options = said === undefined ? { retryAfterSec: 7 } : { message: said };
      fake.faults.failNext(1, status, options);
      const expected =
        said === undefined
          ? { message: 'failed on purpose', retryAfterMs: 7000 }
          : { message: `the API server answered ${status}`, retryAfterMs: undefined };
      await assert.rejects(client.getJson(pods), { name: 'KubeError', code, status, ...expected });
    }
  });

  itOnKube('waits for one of 16 connections', async ({ fake, client }) => {
    fake.faults.hang = true;
    const stop = new AbortController();
    const calls = Array.from({ length: 20 }, () => client.getJson(pods, { signal: stop.signal }));
    await eventually('16 came in', () => fake.requests.length === 16);
    stop.abort();
    await Promise.allSettled(calls);
    assert.equal(fake.requests.length, 16);
  });

  it('is made by no client without credentials', async () => {
    const inCluster = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: '1' };
    for (const environment of [{}, inCluster]) {
      const opening = openKubeClient({ environment, serviceAccountDir: '/none', userAgent: 'x' });
      await assert.rejects(opening, { code: 'CONFIG' });
    }
    await assert.rejects(clientBy(kubeconfigOf('no URL')), { code: 'CONFIG' });
  });

  it('times out on a server that does not answer, and leaves no timer', async () => {
    await using fake = await openFakeKube();
    const clock = countingClock();
    await using client = await clientOf(fake, clock);
    fake.faults.hang = true;
    await assert.rejects(client.getJson(pods, { timeoutMs: 20 }), { code: 'TIMEOUT' });
    // The connection may not be there yet, which has a timer of its own.
    await eventually('no timer is left', () => clock.armed === 0);
  });

  itOnKube("rejects with the caller's reason when the caller aborts", async ({ fake, client }) => {
    fake.faults.hang = true;
    const stop = new AbortController();
    const call = client.getJson(pods, { signal: stop.signal });
    await eventually('the request came in', () => fake.requests.length === 1);
    stop.abort(new Error('enough'));
    await assert.rejects(call, /^Error: enough$/);
    await assert.rejects(client.getJson('/', { signal: stop.signal }), /^Error: enough$/);
  });

  itOnKube('reports a refused and a broken connection as NETWORK', async ({ fake, client }) => {
    fake.faults.hang = true;
    const call = client.getJson(pods);
    await eventually('the request came in', () => fake.requests.length === 1);
    fake.cutConnections();
    await assert.rejects(call, { code: 'NETWORK' });
    await fake[Symbol.asyncDispose]();
    await assert.rejects(client.getJson(pods), { code: 'NETWORK' });
  });

  itOnKube('reads an answer up to the limit of its call', async ({ fake, client }) => {
    for (const name of ['one', 'two']) fake.apply(rawPod(name));
    const { length } = JSON.stringify(await client.getJson(pods));
    await client.getJson(pods, { maxBytes: length + 1_000 });
    const call = client.getJson(pods, { maxBytes: length - 100 });
    await assert.rejects(call, { code: 'TOO_LARGE' });
    await client.getJson(pods);
  });
});

describe('a watch of the Kubernetes client', () => {
  itOnKube('yields events as they arrive and ends with the stream', async ({ fake, client }) => {
    const opened = Promise.withResolvers<void>();
    const events: unknown[] = [];
    const watch = client.watch(watchPath, { silenceMs, onOpen: opened.resolve });
    const watching = readAll(watch, events);
    await opened.promise;
    fake.apply(rawPod('one'));
    await eventually('an event', () => events.length === 1);
    fake.delete({ kind: 'Pod', name: 'one' });
    await eventually('another event', () => events.length === 2);
    fake.closeWatches();
    await watching;
    assert.deepEqual(events.map(typeOf), ['ADDED', 'DELETED']);
  });

  itOnKube('fails with TIMEOUT when it is silent from the first byte on', async ({ client }) => {
    let isOpen = false;
    const onOpen = () => (isOpen = true);
    await assert.rejects(firstOf(client.watch(watchPath, { silenceMs: 300, onOpen })), {
      code: 'TIMEOUT',
    });
    assert.ok(isOpen);
  });

  it('fails with TIMEOUT when it is silent for too long', async () => {
    await using fake = await openFakeKube({ bookmarkEveryMs: 10 });
    const clock = new HandClock();
    await using client = await clientOf(fake, clock);
    let bookmarks = 0;
    const watching = (async () => {
      const watch = client.watch(`${watchPath}&allowWatchBookmarks=true`, { silenceMs: 500 });
      for await (const event of watch) {
        assert.equal(typeOf(event), 'BOOKMARK');
        bookmarks += 1;
        clock.advance(10);
        // By then it has been open longer than the deadline.
        if (bookmarks === 60) fake.goSilent();
      }
    })();
    const ended = assert.rejects(watching, { code: 'TIMEOUT' });
    await eventually('it is silent', () => bookmarks >= 60);
    clock.advance(500);
    await ended;
    assert.deepEqual(clock.armed, []);
    await eventually('the connection is closed', () => fake.connections === 0);
  });

  const broken = new Error('on purpose');
  const endings: readonly [
    what: string,
    watch: (kube: { fake: FakeKube; client: KubeClient }) => Promise<unknown>,
    failure?: object,
  ][] = [
    [
      'its loop',
      ({ fake, client }) => {
        // A list as a stream, of which most is unread.
        for (let index = 0; index < 500; index += 1) fake.apply(rawPod(`pod-${index}`));
        return firstOf(client.watch(`${watchPath}&sendInitialEvents=true`, { silenceMs }));
      },
    ],
    [
      'its signal',
      async ({ fake, client }) => {
        const stop = new AbortController();
        const watching = readAll(client.watch(watchPath, { silenceMs, signal: stop.signal }));
        await eventually('a watch', () => fake.watches() === 1);
        stop.abort(broken);
        await watching;
      },
      broken,
    ],
    [
      'an exception of the listener',
      ({ client }) => {
        const onOpen = (): void => {
          throw broken;
        };
        return firstOf(client.watch(watchPath, { silenceMs, onOpen }));
      },
      { message: 'on purpose' },
    ],
    [
      'its client',
      ({ client }) => {
        const onOpen = () => void client[Symbol.asyncDispose]();
        return firstOf(client.watch(watchPath, { silenceMs, onOpen }));
      },
      { code: 'NETWORK' },
    ],
    [
      'its connection within an event',
      ({ fake, client }) => {
        fake.apply(rawPod('one'));
        fake.faults.cutNextWatchAfterBytes = 20;
        return firstOf(client.watch(watchPath, { silenceMs }));
      },
      { code: 'NETWORK' },
    ],
    [
      'the stream within an event, in good order',
      ({ fake, client }) => {
        const onOpen = (): void => {
          fake.injectIntoWatches('{"type":');
          fake.closeWatches();
        };
        return firstOf(client.watch(watchPath, { silenceMs, onOpen }));
      },
      { code: 'NETWORK' },
    ],
  ];
  for (const [what, watch, failure] of endings) {
    itOnKube(`leaves no connection when ${what} ends`, async (kube) => {
      if (failure === undefined) await watch(kube);
      else await assert.rejects(watch(kube), failure);
      await eventually('no connection is left', () => kube.fake.connections === 0);
    });
  }
});

describe('compressed answers of the API server', () => {
  itOnKube('are read, those of a stream event by event', async ({ fake, client }) => {
    const events: unknown[] = [];
    const path = `${watchPath}&sendInitialEvents=true`;
    fake.apply(rawPod('first'));
    const watching = readAll(client.watch(path, { silenceMs }), events);
    await eventually('the list', () => events.length === 2);
    for (let index = 0; index < 20; index += 1) {
      fake.apply(rawPod(`pod-${index}`));
      await eventually('an event', () => events.length === 3 + index);
    }
    const list = asRecord(await client.getJson(pods, { maxBytes: 1 << 30 }));
    assert.ok(Array.isArray(list?.['items']) && list['items'].length === 21);
    assert.ok(fake.requests.every(({ acceptEncoding }) => acceptEncoding === 'gzip'));
    fake.closeWatches();
    await watching;
  });

  it('are limited by their decompressed size, and the rest is not read', async () => {
    // 256 MiB in 256 KiB.
    const bomb = gzipSync(Buffer.alloc(256 << 20, ' '));
    await using server = await openCompressing((response) => response.end(bomb));
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(server.client.getJson(pods), { code: 'TOO_LARGE' });
    assert.ok(process.memoryUsage().arrayBuffers - before < 32 << 20);
    while ((await server.connections()) > 0) await new Promise(setImmediate);
  });

  it('with an event that is too long name it and go on', async () => {
    const event = (name: string, text: string) =>
      JSON.stringify({ type: 'ADDED', object: { metadata: { name }, text } });
    const lines = gzipSync(`${event('a', 'x'.repeat(64 << 20))}\n${event('b', 'x')}\n`);
    await using server = await openCompressing((response) => response.end(lines));
    const [first, second, ...none] = await readAll(server.client.watch('/w', { silenceMs }));
    assert.ok(first instanceof OverlongLine && first.beginning.includes('"a"'));
    assert.ok(JSON.stringify(second).includes('"b"'));
    assert.deepEqual(none, []);
  });

  it('fail with NETWORK if they are cut, with MALFORMED if not gzip, and with their reason', async () => {
    const whole = gzipSync('{"items":[]}');
    for (const [bytes, code] of [
      [whole.subarray(0, 20), 'NETWORK'],
      [Buffer.from('{"items":[]}'), 'MALFORMED'],
      [Buffer.concat([whole, Buffer.from('{}')]), 'MALFORMED'],
    ] as const) {
      await using server = await openCompressing((response) => response.end(bytes));
      await assert.rejects(server.client.getJson(pods), { code });
      await assert.rejects(readAll(server.client.watch('/w', { silenceMs })), { code });
    }
    const body = gzipSync(JSON.stringify({ kind: 'Status', message: 'no, because' }));
    await using server = await openCompressing((response) => response.writeHead(403).end(body));
    await assert.rejects(server.client.getJson(pods), /no, because/);
  });
});

describe('credentials that change', () => {
  it('are read again at a 401, in the same call; a repeated refusal is returned', async () => {
    await using fake = await openFakeKube();
    await using dir = await temporaryDir();
    const kubeconfigPath = join(dir.path, 'config');
    const demand = (token: string): Promise<void> => {
      fake.faults.requiredToken = token;
      return writeFile(kubeconfigPath, fake.kubeconfig());
    };
    await demand('old');
    await using client = await openKubeClient({ kubeconfigPath, userAgent: 'x' });
    await client.getJson(pods);
    await demand('new');
    await client.getJson(pods);
    const sent = fake.requests.map(({ authorization }) => authorization);
    assert.deepEqual(sent, ['Bearer old', 'Bearer old', 'Bearer new']);
    fake.faults.requiredToken = 'newest';
    await assert.rejects(client.getJson(pods), { code: 'UNAUTHORIZED', status: 401 });
    assert.equal(fake.requests.length, 4);
  });

  it('of TLS rebuild the pool when the CA file changes', async () => {
    const [authority, other] = [await createLabAuthority(), await createLabAuthority()];
    await using dir = await temporaryDir();
    const trust = (ca: string) => writeFile(join(dir.path, 'ca.crt'), ca);
    await trust(authority.certificatePem);
    await writeFile(join(dir.path, 'token'), 'token\n');
    await using fake = await openFakeKube({ tls: await authority.issueServer(['127.0.0.1']) });
    fake.faults.requiredToken = 'token';
    await using client = await openKubeClient({
      environment: { KUBERNETES_SERVICE_HOST: fake.host, KUBERNETES_SERVICE_PORT: `${fake.port}` },
      serviceAccountDir: dir.path,
      userAgent: 'x',
    });
    await client.getJson(pods);
    // Another CA must not affect existing connections, and must be used for new ones.
    await trust(other.certificatePem);
    await assert.rejects(client.getJson(pods), { code: 'NETWORK' });
    await trust(authority.certificatePem);
    await client.getJson(pods);
  });
});

/** Listens, and never accepts a connection: once its queue is full the kernel drops every SYN. */
const deafServer = `
const server = require('node:net').createServer();
server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
  require('node:fs').writeSync(1, server.address().port + '\\n');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});`;

async function openDeafServer() {
  const child = spawn(process.execPath, ['-e', deafServer], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const fillers: Socket[] = [];
  for (let at = 0; at < 2; at += 1) {
    const filler = connect(Number(line), '127.0.0.1');
    fillers.push(filler);
    await once(filler, 'connect');
  }
  return {
    origin: `http://127.0.0.1:${line}`,
    async [Symbol.asyncDispose]() {
      for (const filler of fillers) filler.destroy();
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

/** The outcome of a request on a new connection. */
async function codeOf(origin: string, tcpTimeoutMs: number, clock = systemClock): Promise<string> {
  const timeouts = { tcpTimeoutMs, connectTimeoutMs: 2000 };
  const pool = new Pool(origin, {
    connections: 1,
    connect: createConnector({ clock, tls: { rejectUnauthorized: false }, ...timeouts }),
  });
  try {
    const { body } = await pool.request({ method: 'GET', path: '/' });
    await body.dump();
    return 'answered';
  } catch (error) {
    return kubeErrorOfFailure(error).code;
  } finally {
    await pool.destroy();
  }
}

describe('a connection to the API server', () => {
  it('fails soon when the server does not answer the SYN', async () => {
    await using server = await openDeafServer();
    const clock = countingClock();
    using time = new OwnTime();
    const startMs = performance.now();
    assert.equal(await codeOf(server.origin, 150, clock), 'TIMEOUT');
    const [tookMs, ownMs] = [performance.now() - startMs, time.nowMs()];
    assert.ok(tookMs >= 140 && ownMs < 900, `${ownMs} ms, and the kernel repeats after 1000`);
    assert.equal(clock.armed, 0);
  });

  it('has much longer for TLS than for TCP, and fails at once if it is refused', async () => {
    const sockets = new Set<Socket>();
    const mute = createTcpServer((socket) => sockets.add(socket.on('error', () => undefined)));
    mute.listen(0, '127.0.0.1');
    await once(mute, 'listening');
    const { port } = mute.address() as AddressInfo;
    const startMs = performance.now();
    assert.equal(await codeOf(`https://127.0.0.1:${port}`, 1000), 'TIMEOUT');
    assert.ok(performance.now() - startMs >= 1900);
    for (const socket of sockets) socket.destroy();
    mute.close();
    await once(mute, 'close');
    const clock = countingClock();
    for (const protocol of ['http', 'https']) {
      assert.equal(await codeOf(`${protocol}://127.0.0.1:${port}`, 1000, clock), 'NETWORK');
    }
    assert.equal(clock.armed, 0);
  });

  it('is HTTP/1.1 even if the server offers HTTP/2', async () => {
    // This one offers it without supporting it.
    await using server = await openTokenServer();
    server.answerWith(json(200, {}));
    assert.equal(await codeOf(server.authority, 2000), 'answered');
  });

  it('goes to the usual port if the URL has none', async () => {
    const timeouts = { tcpTimeoutMs: 1_000, connectTimeoutMs: 1_000 };
    const connector = createConnector({ clock: systemClock, tls: {}, ...timeouts });
    const portFor = (protocol: string) =>
      new Promise((resolve) => {
        connector({ hostname: '127.83.4.9', host: '', protocol, port: '' }, (error, socket) => {
          // As a rule nobody listens there.
          resolve(socket?.remotePort ?? (error as { readonly port?: unknown }).port);
          socket?.destroy();
        });
      });
    assert.deepEqual([await portFor('https:'), await portFor('http:')], [443, 80]);
  });
});

const nowhere = { environment: {}, serviceAccountDir: '/nonexistent' };

function isConfigError(pattern: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof KubeError && error.code === 'CONFIG' && pattern.test(error.message);
}

describe('credentials inside a pod', () => {
  const inPod = { KUBERNETES_SERVICE_HOST: '10.0.0.1', KUBERNETES_SERVICE_PORT: '443' };

  async function inFolder(files: Readonly<Record<string, string>>) {
    const dir = await temporaryDir();
    const write = (name: string, text: string) => writeFile(join(dir.path, name), text);
    for (const [name, text] of Object.entries(files)) await write(name, text);
    const load = (environment = inPod) =>
      loadCredentials({ environment, serviceAccountDir: dir.path });
    return { load, write, [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose]() };
  }

  it('fail with a code when the variables or the service account are missing', async () => {
    const { KUBERNETES_SERVICE_HOST } = inPod;
    for (const [environment, pattern] of [
      [{}, /KUBERNETES_SERVICE_HOST/],
      [{ KUBERNETES_SERVICE_HOST }, /KUBERNETES_SERVICE_PORT/],
      [inPod, /nonexistent\/token/],
    ] as const) {
      assert.throws(() => loadCredentials({ ...nowhere, environment }), isConfigError(pattern));
    }
    await using folder = await inFolder({ token: 't' });
    assert.throws(folder.load, isConfigError(/ca\.crt/));
  });

  it('are the token, trimmed, and the CA; a forgotten token is read again', async () => {
    await using folder = await inFolder({ token: 'first\n', 'ca.crt': 'CA' });
    const credentials = folder.load();
    const before = await credentials.current();
    const { origin, headers, tls, fingerprint } = before;
    assert.deepEqual([origin, String(tls.ca)], ['https://10.0.0.1', 'CA']);
    assert.equal(headers['authorization'], 'Bearer first');
    assert.notEqual(tls.rejectUnauthorized, false, 'the server is verified');
    await folder.write('token', 'second');
    assert.equal((await credentials.current()).headers['authorization'], 'Bearer first');
    credentials.forget();
    const after = await credentials.current();
    assert.equal(after.headers['authorization'], 'Bearer second');
    assert.equal(after.fingerprint, fingerprint);
    await folder.write('ca.crt', 'new');
    assert.notEqual((await credentials.current()).fingerprint, fingerprint, 'without a reset');
  });

  it('put an IPv6 service address in brackets', async () => {
    await using folder = await inFolder({ token: 'x', 'ca.crt': 'x' });
    const access = await folder.load({ ...inPod, KUBERNETES_SERVICE_HOST: 'fd00::1' }).current();
    assert.equal(access.origin, 'https://[fd00::1]');
  });
});

describe('credentials from a kubeconfig', () => {
  const kubeconfig = (cluster: string, user = ''): string => `
apiVersion: v1
kind: Config
clusters: [{ name: c, cluster: { ${cluster} } }]
users: [{ name: u, user: { ${user} } }]
contexts: [{ name: x, context: { cluster: c, user: u } }]
current-context: x
`;

  async function load(text: string) {
    await using dir = await temporaryDir();
    const kubeconfigPath = join(dir.path, 'config');
    await writeFile(kubeconfigPath, text);
    return await loadCredentials({ ...nowhere, kubeconfigPath }).current();
  }

  it('contain server, path prefix, token and TLS settings', async () => {
    const { origin, pathPrefix, headers, tls } = await load(
      kubeconfig(
        'server: "https://api.example:6443/k8s/c1/", tls-server-name: other, insecure-skip-tls-verify: true',
        'token: " secret\\n", as: someone, client-certificate-data: Q0VSVA==, client-key-data: S0VZ',
      ),
    );
    assert.deepEqual([origin, pathPrefix], ['https://api.example:6443', '/k8s/c1']);
    assert.equal(headers['authorization'], 'Bearer  secret');
    assert.equal(headers['impersonate-user'], 'someone');
    assert.deepEqual([tls.servername, tls.rejectUnauthorized], ['other', false]);
    assert.deepEqual([String(tls.cert), String(tls.key)], ['CERT', 'KEY']);
  });

  it('verify the server unless configured otherwise, which plain http needs not', async () => {
    const access = await load(kubeconfig('server: "https://api.example"'));
    assert.equal(access.tls.rejectUnauthorized, undefined);
    assert.deepEqual([access.pathPrefix, access.headers], ['', {}]);
    const { origin, headers } = await load(
      kubeconfig('server: "http://127.0.0.1:8001"', 'username: a, password: b'),
    );
    assert.equal(origin, 'http://127.0.0.1:8001');
    assert.equal(headers['authorization'], 'Basic YTpi');
  });

  it('fail with a code for files that cannot be used', async () => {
    const gone = { ...nowhere, kubeconfigPath: '/nonexistent/config' };
    assert.throws(() => loadCredentials(gone), isConfigError(/nonexistent\/config/));
    const whole = kubeconfig('server: "https://a"');
    for (const [text, pattern] of [
      ['{}', /current context/],
      ['{', /cannot use/],
      [whole.replace('name: c,', 'name: other,'), /current context/],
      [whole.replace('name: u,', 'name: other,'), /current context/],
      [kubeconfig('server: "https://a", proxy-url: "http://p"'), /proxy-url/],
      [kubeconfig('server: "ftp://a"'), /http or https/],
      [kubeconfig('server: "https://a", certificate-authority: gone.crt'), /gone\.crt/],
    ] as const) {
      await assert.rejects(load(text), isConfigError(pattern));
    }
  });
});

describe('the names of the API server', () => {
  it('are the host names in its certificate, if that is trusted', async () => {
    const authority = await createLabAuthority();
    const names = ['127.0.0.1', 'kubernetes', 'hcp-kubernetes.c1.svc.cluster.local'];
    await using kube = await openFakeKube({ tls: await authority.issueServer(names) });
    const read = (ca: string | undefined, servername?: string, origin = kube.url) =>
      readServerNames({ origin, fingerprint: '', tls: { ca, servername } }, systemClock);
    const ca = authority.certificatePem;
    assert.deepEqual(await read(ca), names.slice(1));
    assert.deepEqual(await read(ca, 'kubernetes'), names.slice(1), 'by its name');
    await assert.rejects(read(ca, 'other'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    const other = (await createLabAuthority()).certificatePem;
    for (const untrusted of [other, undefined]) {
      await assert.rejects(read(untrusted), /certificate|self-signed|verify/i);
    }
    assert.deepEqual(kube.requests, []);
    const tls = await authority.issueServer(['::1', 'kubernetes']);
    await using sixth = await openFakeKube({ host: '::1', tls });
    assert.deepEqual(await read(ca, undefined, sixth.url), ['kubernetes']);
  });

  it('are unknown without TLS, and without a server', async () => {
    const kube = await openFakeKube();
    const server = { origin: kube.url, fingerprint: '', tls: {} };
    await assert.rejects(readServerNames(server, systemClock), { code: 'CONFIG' });
    await kube[Symbol.asyncDispose]();
    await assert.rejects(readServerNames(server, systemClock), { code: 'ECONNREFUSED' });
  });
});
