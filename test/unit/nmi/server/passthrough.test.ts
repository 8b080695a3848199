import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createPodManifest } from '../../../../lab/fakes/kube/manifests.ts';
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
import { ask as askAgent, type Reply } from '../../../support/ask.ts';
import { openBareListener } from '../../../support/bare-listener.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createPod,
} from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  bindPodToA,
  openLoopbackAgent,
  type LoopbackAgent,
} from '../../../support/loopback-agent.ts';
import { longLived } from '../../../support/token-fixture.ts';
import { untilMetric } from '../../../support/until-metric.ts';
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

  it('answers a shared call for what each caller sends, whoever began it', async () => {
    await using relay = await openRelay((_request, response) => response.end('{}'));
    for (const headers of [
      { 'User-Agent': 'sdk/1', Accept: '*/*' },
      { 'User-Agent': 'sdk/2', Accept: '*/*' },
      { 'Content-Type': 'text/plain', Accept: '*/*' },
    ]) {
      await relay.ask('GET', headers);
    }
    const sent = relay.seen.map(({ headers: of }) => [of['user-agent'], of['content-type']]);
    assert.deepEqual(sent, [
      [undefined, undefined],
      [undefined, 'text/plain'],
    ]);
  });

  it('leaves a missing Metadata header to the service when the agent does not require it', async () => {
    const flags = { 'metadata-header-required': 'false' };
    await using agent = await openLoopbackAgent(flags, bindPodToA);
    const target = '/metadata/instance?api-version=2021-02-01';
    const pod = agent.client('127.0.0.11');
    assert.equal((await askAgent(pod, target, { headers: [] })).status, 400);
    assert.equal(agent.imds.requests().at(-1)?.headers['metadata'], undefined);
    assert.equal((await askAgent(pod, target)).status, 200);
    assert.equal(agent.imds.requests().at(-1)?.headers['metadata'], 'true');
  });

  it('sends no question mark without a query', async () => {
    const route = routeTo('versions', '');
    await using relay = await openRelay((_request, response) => response.end(), { route });
    await relay.ask();
    assert.equal(relay.seen[0]?.url, '/metadata/versions');
  });

  it('repeats answers that are the same for all pods for a second, and no others', async () => {
    for (const [area, upstream] of [
      ['instance', 1],
      ['versions', 1],
      ['scheduledevents', 2],
    ] as const) {
      await using relay = await openRelay((_request, response) => response.end('{}'), {
        route: routeTo(area),
      });
      for (let call = 0; call < 2; call++) assert.equal((await relay.ask()).text, '{}');
      assert.equal(relay.seen.length, upstream, area);
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

  it('relays status, headers and body', async () => {
    await using relay = await openRelay((_request, response) => {
      response.writeHead(410, { 'Content-Type': 'text/x', 'Set-Cookie': ['a=1', 'b=2'] });
      response.end('gone');
    });
    const { status, headers, text } = await relay.ask();
    assert.deepEqual([status, text], [410, 'gone']);
    assert.equal(headers['content-type'], 'text/x');
    assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2']);
  });

  it('drops the headers that Connection names', async () => {
    await using relay = await openRelay((_request, response) => {
      response.writeHead(200, {
        Connection: 'close, X-Hop ,x-Other',
        'Keep-Alive': 'timeout=999',
        'Proxy-Authenticate': 'Basic',
        'X-Hop': 'of this connection',
        'X-Other': 'of this connection',
        'X-Kept': 'of the answer',
      });
      response.end();
    });
    const { headers } = await relay.ask();
    const names = ['x-hop', 'x-other', 'proxy-authenticate', 'x-kept'];
    assert.deepEqual(
      names.map((name) => headers[name]),
      [undefined, undefined, undefined, 'of the answer'],
    );
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

  it('is answered with a reason when the service cannot be reached or is too slow', async () => {
    await using down = await openRelay(() => undefined, { endpoint: 'http://127.0.0.1:1' });
    const refused = await down.ask();
    assert.equal(refused.status, 503);
    assert.match(refused.text, /did not answer \(ECONNREFUSED\)/);
    await using slow = await openRelay(() => undefined, { timeoutMs: 100 });
    assert.equal((await slow.ask()).status, 503);
  });

  it('is answered with a reason when the service is this agent itself', async () => {
    await using loop = await openRelay((_request, response) => response.writeHead(508).end());
    const { status, text } = await loop.ask();
    assert.equal(status, 503);
    assert.match(text, /The instance metadata endpoint is this agent itself\./);
  });

  it('keeps no timer for a request without a body', async (t) => {
    await using relay = await openRelay((_request, response) => response.end('{}'));
    const timeout = t.mock.method(AbortSignal, 'timeout');
    assert.equal((await relay.ask()).status, 200);
    assert.equal(timeout.mock.callCount(), 0);
  });

  it('ends a connection with a body that does not arrive in time, and sends no request upstream', async () => {
    const route = routeTo('scheduledevents');
    await using relay = await openRelay(() => undefined, { route, timeoutMs: 100 });
    const sent = relay.send('POST', { 'Content-Length': '9' }, 'half');
    await assert.rejects(once(sent, 'response'), /socket hang up/);
    assert.deepEqual(relay.seen, []);
  });

  it('is answered with a reason when the service ends in the middle of an answer', async () => {
    await using relay = await openRelay((_request, response) => {
      response.writeHead(200, { 'Content-Length': '100' });
      response.write('half');
      setImmediate(() => response.destroy());
    });
    assert.equal((await relay.ask()).status, 503);
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
  function refusalOf(
    area: PassthroughArea,
    policy: Partial<PassthroughPolicy>,
  ): Answer | undefined {
    const passthrough = openPassthrough({
      endpoint: 'http://127.0.0.1:1',
      timeoutMs: 100,
      policy: { ...open, ...policy },
      limits: new CallerLimits({ fetches: 2, waiting: 10, pendingObjects: 0 }),
      loopDetection: new LoopDetection(),
      clock: systemClock,
    });
    return passthrough.refusal(routeTo(area));
  }

  it('allows instance metadata and versions, and other areas when they are configured', () => {
    for (const area of ['instance', 'versions', 'scheduledevents'] as const) {
      assert.equal(refusalOf(area, {}), undefined, area);
    }
    for (const area of ['attested', 'loadbalancer'] as const) {
      const refusal = refusalOf(area, {});
      assert.equal(refusal?.reason, 'metadata_blocked', area);
      assert.ok(refusal.body.includes(`--allow-metadata=${area}`));
      assert.equal(refusalOf(area, { allowedAreas: [area] }), undefined);
    }
  });

  it('blocks instance metadata when that is configured, and versions never', () => {
    const blocked = { blockInstanceMetadata: true };
    assert.equal(refusalOf('instance', blocked)?.reason, 'metadata_blocked');
    assert.equal(refusalOf('versions', blocked), undefined);
  });

  it('allows POST only for scheduled events', () => {
    assert.deepEqual(allowedMethods('scheduledevents'), ['GET', 'POST']);
    for (const area of ['instance', 'versions', 'attested', 'loadbalancer'] as const) {
      assert.deepEqual(allowedMethods(area), ['GET']);
    }
  });
});

const hostToken = { 'enable-host-token': 'true' };
const own = { tuning: { imdsTimeoutMs: 10_000 } };

function askHost(agent: LoopbackAgent, pod: string, resource: string): Promise<Reply> {
  return askAgent(agent.client('127.0.0.1'), `/host/token/?resource=https://${resource}.example`, {
    headers: ['podns', 'default', 'podname', pod],
  });
}

/** Pod `default/p` is bound to an identity; its token is cached. */
function openFixture(given: WorldGiven = {}) {
  const clock = new HandClock();
  const get = () => Promise.resolve({ ok: true, rendered: longLived, outcome: 'miss' } as const);
  const fixture = world({ ...given, clock, policy: { graceMs: 0 }, tokens: { get } });
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

  it('require the grant of the identity to the namespace, like those of the pod itself', async () => {
    const identityGrants = [{ namespaces: ['default'], clientIds: [clientId] }];
    const { handle, ownerIndex } = openFixture({ owners: 'enforce', identityGrants });
    assert.equal((await handle('127.0.0.1', headers)).reason, 'ok');
    ownerIndex.grants.replace([]);
    assert.equal((await handle('127.0.0.1', headers)).reason, 'identity_not_owned');
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
});

describe('/host/token', () => {
  it('counts the fetches under the named pods, not under the process that names them', async () => {
    const names = Array.from({ length: 24 }, (_, index) => `pod-${index}`);
    await using agent = await openLoopbackAgent(
      hostToken,
      (kube) => {
        bindPodToA(kube);
        for (const [index, name] of names.entries()) {
          const ips = [`127.0.1.${index + 1}`];
          kube.apply(createPodManifest({ name, nodeName: 'node-1', ips, binding: 'app' }));
        }
      },
      own,
    );
    await agent.imds.setFaults({ delayMs: 100 });
    const replies = await Promise.all(names.map((name) => askHost(agent, name, name)));
    assert.deepEqual(
      replies.map(({ status }) => status),
      names.map(() => 200),
    );
  });

  it('serves fifty resources of one pod at the rate of the upstream, and refuses requests beyond that', async () => {
    await using agent = await openLoopbackAgent(hostToken, bindPodToA, own);
    await agent.imds.setFaults({ delayMs: 100 });
    const startMany = (count: number, name: string): readonly Promise<Reply>[] =>
      Array.from({ length: count }, (_, index) => askHost(agent, 'p', `${name}-${index}`));
    const statuses = (replies: readonly Reply[], status: number): number =>
      replies.filter((reply) => reply.status === status).length;
    const fifty = await Promise.all(startMany(50, 'fifty'));
    assert.equal(statuses(fifty, 200), 50);
    // A caller may have 64 connections, and those of the first fifty may still be closing.
    await untilMetric(agent, 'nmi_connections', 0);
    // A busy machine may take seconds to read the last.
    await agent.imds.setFaults({ delayMs: 3_000 });
    const started = startMany(64, 'more');
    const first = await Promise.race(started);
    await agent.imds.setFaults({});
    const more = await Promise.all(started);
    assert.equal(first.status, 429);
    assert.equal(statuses(more, 200) + statuses(more, 429), 64);
    assert.ok(statuses(more, 200) >= 50);
  });
});
