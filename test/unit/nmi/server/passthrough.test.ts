import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import type { Answer } from '../../../../src/nmi/base/answers.ts';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import { CallerLimits } from '../../../../src/nmi/server/caller-limits.ts';
import {
  allowedMethods,
  openPassthrough,
  type PassthroughPolicy,
  type PassthroughRoute,
} from '../../../../src/nmi/server/passthrough.ts';
import type { Exchange } from '../../../../src/nmi/server/request.ts';
import type { PassthroughArea } from '../../../../src/nmi/server/route.ts';
import { LoopDetection } from '../../../../src/nmi/sources/imds/loop-detection.ts';
import { openBareListener } from '../../../support/bare-listener.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createPod,
} from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { longLived } from '../../../support/token-fixture.ts';
import { world, type WorldGiven } from '../../../world.ts';

const open: PassthroughPolicy = {
  blockInstanceMetadata: false,
  allowedAreas: ['scheduledevents'],
};

function routeTo(area: PassthroughArea, query = 'api-version=2021-02-01'): PassthroughRoute {
  return { kind: 'passthrough', area, path: `/metadata/${area}`, query };
}

interface Seen {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

type Upstream = (request: IncomingMessage, response: ServerResponse) => void;

/** A listener that relays everything by `route` to a server that answers with `upstream`. */
async function openRelay(
  upstream: Upstream,
  {
    route = routeTo('instance'),
    timeoutMs = 5_000,
    endpoint = '',
    limits = new CallerLimits({ fetches: 2, waiting: 10, pendingObjects: 0 }),
    clock = systemClock,
  } = {},
) {
  const stack = new AsyncDisposableStack();
  const seen: Seen[] = [];
  const server = createServer((incoming, response) => {
    let body = '';
    incoming.on('data', (chunk) => (body += String(chunk)));
    incoming.on('end', () => {
      const { method, url, headers } = incoming;
      seen.push({ method, url, headers, body });
      upstream(incoming, response);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stack.defer(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  const passthrough = stack.use(
    openPassthrough({
      endpoint: endpoint === '' ? `http://127.0.0.1:${port}` : endpoint,
      timeoutMs,
      policy: open,
      limits,
      loopDetection: new LoopDetection(),
      clock,
    }),
  );
  const pod = createPod();
  const listener = stack.use(
    await openBareListener({ handle: (exchange) => passthrough.relay(exchange, route, pod) }),
  );

  function send(method = 'GET', headers: Record<string, string> = {}, body = '') {
    const sent = request({ port: listener.port, host: '127.0.0.1', method, headers });
    sent.end(body);
    return sent;
  }

  async function ask(method = 'GET', headers: Record<string, string> = {}, body = '') {
    const [response] = (await once(send(method, headers, body), 'response')) as [IncomingMessage];
    let text = '';
    for await (const chunk of response) text += String(chunk);
    return { status: response.statusCode, headers: response.headers, text };
  }

  return { seen, send, ask, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

describe('relaying to the metadata service', () => {
  it('sends the path of the route and harmless headers, and nothing that identifies the caller', async () => {
    await using relay = await openRelay((_request, response) => response.end('{}'));
    const answer = await relay.ask('GET', {
      Metadata: 'false',
      Accept: 'text/plain',
      'User-Agent': 'sdk/1',
      'X-Forwarded-For': '10.0.0.1',
      Authorization: 'Bearer x',
      Cookie: 'a=b',
    });
    assert.deepEqual([answer.status, answer.text], [200, '{}']);
    const [{ method, url, headers } = { headers: {} } as Seen] = relay.seen;
    assert.deepEqual([method, url], ['GET', '/metadata/instance?api-version=2021-02-01']);
    const {
      host: _host,
      connection: _connection,
      'x-ms-client-request-id': _correlationId,
      ...rest
    } = headers;
    assert.deepEqual(rest, { metadata: 'false', accept: 'text/plain' });
  });

  it('shares calls that are the same for all pods for a second, by what is sent, and no others', async () => {
    for (const [area, upstream] of [
      ['instance', 2],
      ['versions', 2],
      ['scheduledevents', 3],
    ] as const) {
      const route = routeTo(area, area === 'versions' ? '' : undefined);
      await using relay = await openRelay((_, response) => response.end('{}'), { route });
      for (const headers of [
        { 'User-Agent': 'sdk/1', Accept: '*/*' },
        { 'User-Agent': 'sdk/2', Accept: '*/*' },
        { 'Content-Type': 'text/plain', Accept: '*/*' },
      ]) {
        assert.equal((await relay.ask('GET', headers)).text, '{}');
      }
      assert.equal(relay.seen.length, upstream, area);
      const sent = relay.seen.map(({ headers: of }) => [of['user-agent'], of['content-type']]);
      assert.deepEqual(sent.at(-1), [undefined, 'text/plain']);
      const query = area === 'versions' ? '' : '?api-version=2021-02-01';
      assert.equal(relay.seen[0]?.url, `/metadata/${area}${query}`);
    }
  });

  it('has no timers after its end', async () => {
    const clock = new HandClock();
    const relay = await openRelay((_, response) => response.end('{}'), { clock });
    assert.equal((await relay.ask()).status, 200);
    assert.ok(clock.armed.length > 0, 'the answer is kept');
    await relay[Symbol.asyncDispose]();
    assert.deepEqual(clock.armed, []);
  });

  it('relays status, headers and body, but no headers of the connection', async () => {
    await using relay = await openRelay((_request, response) => {
      response.writeHead(410, {
        Connection: 'close, X-Hop ,x-Other',
        'Keep-Alive': 'timeout=999',
        'Proxy-Authenticate': 'Basic',
        'X-Hop': 'of this connection',
        'X-Other': 'of this connection',
        'Set-Cookie': ['a=1', 'b=2'],
      });
      response.end('gone');
    });
    const { status, headers, text } = await relay.ask();
    assert.deepEqual([status, text], [410, 'gone']);
    const names = ['x-hop', 'x-other', 'proxy-authenticate', 'set-cookie'];
    const found = names.map((name) => headers[name]);
    assert.deepEqual(found, [undefined, undefined, undefined, ['a=1', 'b=2']]);
    assert.notEqual(headers['keep-alive'], 'timeout=999');
  });

  it('sends the body of a POST, and refuses one that is too large', async () => {
    const route = routeTo('scheduledevents');
    await using relay = await openRelay((_request, response) => response.end(), { route });
    const headers = { 'Content-Type': 'application/json' };
    assert.equal((await relay.ask('POST', headers, '{"a":1}')).status, 200);
    assert.equal((await relay.ask('POST', headers, 'x'.repeat(64 * 1024))).status, 200);
    assert.equal((await relay.ask('POST', headers, 'x'.repeat(64 * 1024 + 1))).status, 400);
    assert.equal((await relay.ask('POST')).status, 200);
    assert.deepEqual(
      relay.seen.map(({ method, body }) => [method, body.length]),
      [
        ['POST', 7],
        ['POST', 64 * 1024],
        ['POST', 0],
      ],
    );
    assert.equal(relay.seen[0]?.headers['content-type'], 'application/json');
  });

  it('never sends the body of a GET, nor one of unknown length', async () => {
    await using relay = await openRelay((_request, response) => response.end());
    const hidden = 'GET /metadata/identity/oauth2/token HTTP/1.1\r\n\r\n';
    const answer = await relay.ask('GET', { 'Content-Length': String(hidden.length) }, hidden);
    assert.equal(answer.status, 400);
    assert.match(answer.text, /request body is not acceptable/);
    assert.equal(answer.headers.connection, 'close');
    const chunked = await relay.ask('POST', { 'Transfer-Encoding': 'chunked' }, hidden);
    assert.equal(chunked.status, 400);
    assert.deepEqual(relay.seen, []);
  });

  const cutOff: Upstream = (_request, response) => {
    response.writeHead(200, { 'Content-Length': '100' });
    response.write('half');
    setImmediate(() => response.destroy());
  };
  for (const [what, upstream, options, says] of [
    ['cannot be reached', () => undefined, { endpoint: 'http://127.0.0.1:1' }, /\(ECONNREFUSED\)/],
    ['is too slow', () => undefined, { timeoutMs: 100 }, /did not answer/],
    ['ends in the middle of an answer', cutOff, {}, /did not answer/],
    [
      'is this agent itself',
      (_request, response) => response.writeHead(508).end(),
      {},
      /The instance metadata endpoint is this agent itself\./,
    ],
  ] satisfies (readonly [string, Upstream, Parameters<typeof openRelay>[1], RegExp])[]) {
    it(`is answered with a reason when the service ${what}`, async () => {
      await using relay = await openRelay(upstream, options);
      const { status, text } = await relay.ask();
      assert.equal(status, 503);
      assert.match(text, says);
    });
  }

  it('ends a connection with a body that does not arrive in time, and sends no request upstream', async () => {
    const route = routeTo('scheduledevents');
    await using relay = await openRelay(() => undefined, { route, timeoutMs: 100 });
    const sent = relay.send('POST', { 'Content-Length': '9' }, 'half');
    await assert.rejects(once(sent, 'response'), /socket hang up/);
    assert.deepEqual(relay.seen, []);
  });

  it('refuses an answer of more than 256 KB', async () => {
    let bytes = 256 * 1024;
    await using relay = await openRelay((_request, response) => response.end('x'.repeat(bytes)));
    assert.equal((await relay.ask()).text.length, bytes);
    bytes += 1;
    // A different request, because the first answer is cached.
    assert.equal((await relay.ask('GET', { Accept: 'text/plain' })).status, 503);
  });

  it('counts a call for its pod until it ends, even if the client has disconnected', async () => {
    const limits = new CallerLimits({ fetches: 1, waiting: 10, pendingObjects: 0 });
    const answer = Promise.withResolvers<ServerResponse>();
    await using relay = await openRelay((_request, response) => answer.resolve(response), {
      limits,
    });
    const sent = relay.send();
    sent.on('error', () => undefined);
    const response = await answer.promise;
    sent.destroy();
    const other = { Accept: 'text/plain' };
    assert.equal((await relay.ask('GET', other)).status, 429);
    response.end('{}');
    await eventually(() => assert.ok(limits.beginFetch(`pod ${createPod().uid}`, 'x')));
  });
});

describe('the policy for relayed paths', () => {
  it('allows instance metadata and versions, and other areas when they are configured', () => {
    const blockInstanceMetadata = true;
    for (const [area, policy, reason] of [
      ['instance', {}, undefined],
      ['instance', { blockInstanceMetadata }, 'metadata_blocked'],
      ['versions', { blockInstanceMetadata }, undefined],
      ['scheduledevents', {}, undefined],
      ['attested', {}, 'metadata_blocked'],
      ['attested', { allowedAreas: ['attested'] }, undefined],
      ['loadbalancer', {}, 'metadata_blocked'],
    ] as const) {
      const passthrough = openPassthrough({
        endpoint: 'http://127.0.0.1:1',
        timeoutMs: 100,
        policy: { ...open, ...policy },
        limits: new CallerLimits({ fetches: 2, waiting: 10, pendingObjects: 0 }),
        loopDetection: new LoopDetection(),
        clock: systemClock,
      });
      const refusal = passthrough.refusal(routeTo(area));
      assert.equal(refusal?.reason, reason, area);
      const isNamed = refusal?.body.includes(`--allow-metadata=${area}`);
      assert.equal(isNamed, reason && area !== 'instance', area);
      assert.deepEqual(
        allowedMethods(area),
        area === 'scheduledevents' ? ['GET', 'POST'] : ['GET'],
      );
    }
  });
});

/** Pod `default/p` is bound to an identity; its token is cached. */
function openFixture(given: WorldGiven = {}) {
  const clock = new HandClock();
  const get = () => Promise.resolve({ ok: true, rendered: longLived, outcome: 'miss' } as const);
  const fixture = world({
    ...given,
    clock,
    policy: { graceMs: 0 },
    tokens: { get, ...given.tokens },
  });
  fixture.pods.upsert(createPod({ name: 'p', uid: 'p', labels: { aadpodidbinding: 'label' } }));
  fixture.grants.identities.upsert(createIdentity({ clientId }));
  fixture.grants.bindings.upsert(createBinding());
  async function handle(
    ip: string,
    headers: Readonly<Record<string, string>>,
    query = 'resource=https://vault.example',
    whileWaiting: () => void = () => undefined,
  ): Promise<Answer> {
    const exchange = {
      caller: new CallerConnection({ remoteIp: ip }, { kind: 'by-address' }),
      startedAtMs: clock.monotonicMs(),
      isGone: false,
      headerValues: (name: string) => (headers[name] === undefined ? [] : [headers[name]]),
    } as unknown as Exchange;
    const answer = fixture.hostTokens.handle(exchange, query);
    if (answer instanceof Promise) {
      await nextTurn();
      whileWaiting();
      clock.advance(60_000);
    }
    return answer;
  }
  return { ...fixture, handle };
}

const headers = { podns: 'default', podname: 'p' };
const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';

describe('the answers of /host/token', () => {
  it('are only for processes of this host', async () => {
    const { handle } = openFixture();
    for (const ip of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) {
      assert.equal((await handle(ip, headers)).reason, 'ok', ip);
    }
    for (const ip of ['10.224.0.4', '128.0.0.1', '::2', '::ffff:10.0.0.1', '']) {
      const answer = await handle(ip, headers);
      assert.deepEqual([answer.status, answer.reason], [403, 'host_only'], ip);
    }
  });

  it('have the token of the named pod, with the client id of its identity', async () => {
    const { handle } = openFixture();
    const { status, body } = await handle('127.0.0.1', headers);
    assert.equal(status, 200);
    const { token, clientid } = JSON.parse(body) as Record<string, Record<string, unknown>>;
    assert.equal(token?.['access_token'], 'token');
    assert.equal(clientid, clientId);
  });

  it('have the client id from the token when the identity has none', async () => {
    const { handle, grants } = openFixture();
    const resourceId =
      '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x';
    grants.identities.upsert(createIdentity({ clientId: '', resourceId }));
    const { body } = await handle('127.0.0.1', headers);
    assert.equal((JSON.parse(body) as Record<string, unknown>)['clientid'], 'client');
    grants.exceptions.upsert(createException({ podLabels: { aadpodidbinding: 'label' } }));
    const ofNode = await handle('127.0.0.1', headers);
    assert.equal((JSON.parse(ofNode.body) as Record<string, unknown>)['clientid'], 'client');
  });

  it('wait for a pod that is not known yet', async () => {
    const { handle, pods } = openFixture();
    const named = { podns: 'default', podname: 'new' };
    const answer = await handle('127.0.0.1', named, undefined, () =>
      pods.upsert(createPod({ name: 'new', uid: 'new', labels: { aadpodidbinding: 'label' } })),
    );
    assert.equal(answer.reason, 'ok');
  });

  it('require both names, and a resource', async () => {
    const { handle } = openFixture();
    for (const some of [{}, { podns: 'default' }, { podname: 'p' }, { podns: '', podname: 'p' }]) {
      assert.equal((await handle('127.0.0.1', some)).reason, 'parameter_missing');
    }
    assert.equal((await handle('127.0.0.1', headers, '')).reason, 'parameter_missing');
  });

  it('report that a pod is unknown, or not known yet, after a wait', async () => {
    const { handle, state } = openFixture();
    const other = await handle('127.0.0.1', { podns: 'other', podname: 'p' });
    assert.deepEqual([other.status, other.reason], [503, 'pod_unknown']);
    state.isSynced = false;
    assert.equal((await handle('127.0.0.1', headers)).reason, 'pod_unknown');
  });

  it('count towards the limits of the named pods, not of the process that names them', async () => {
    const { handle, pods } = openFixture({ tokens: { peek: () => undefined } });
    const labels = { aadpodidbinding: 'label' };
    const names = Array.from({ length: 3 }, (_, at) => `pod-${at}`);
    for (const name of names) pods.upsert(createPod({ name, uid: name, labels }));
    const askMany = (podname: string) =>
      Array.from({ length: 17 }, (_, at) =>
        handle('127.0.0.1', { podns: 'default', podname }, `resource=https://r${at}.example`),
      );
    for (const answers of await Promise.all(names.map((name) => Promise.all(askMany(name))))) {
      const refused = answers.filter(({ reason }) => reason !== 'ok').map(({ reason }) => reason);
      assert.deepEqual(refused, ['caller_throttled']);
    }
  });
});
