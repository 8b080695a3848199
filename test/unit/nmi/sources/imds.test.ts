import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { buildConnector, Pool } from 'undici';
import { freePort } from '../../../../lab/fabric/free-ports.ts';
import { createLabIdentity, createNodeIdentity } from '../../../../lab/fakes/identity.ts';
import { openFakeImds } from '../../../../lab/fakes/imds/fake-imds.ts';
import { createPodManifest } from '../../../../lab/fakes/kube/manifests.ts';
import { OwnTime } from '../../../../lab/pods/own-time.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { sendBuffered } from '../../../../src/nmi/sources/buffered-request.ts';
import { classifyAnswer, openImdsSource } from '../../../../src/nmi/sources/imds/imds.ts';
import type { NodeIdentity, TokenRequest } from '../../../../src/nmi/sources/source.ts';
import { objectIdOf } from '../../../../src/nmi/sources/token-fields.ts';
import { ask, tokenTarget } from '../../../support/ask.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { jwtOf } from '../../../support/jwt.ts';
import { bindPodToA, openLoopbackAgent } from '../../../support/loopback-agent.ts';

const always = () => true;
const never = () => false;
const asked: TokenRequest<NodeIdentity> = {
  identity: { kind: 'client_id', value: 'C-1' },
  resource: 'r',
  correlationId: '0a1b2c3d-0000-4000-8000-000000000009',
};

async function serve(listener: RequestListener) {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    server,
    port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await once(server.close(), 'close');
    },
  };
}

function sourceAt(port: number, timeoutMs = 3_000) {
  const endpoint = `http://127.0.0.1:${port}`;
  return openImdsSource({ endpoint, userAgent: 'test', timeoutMs, clock: systemClock });
}

describe('a buffered answer', { timeout: 10_000 }, () => {
  const timeoutMs = 1_000;
  const maxBodyBytes = 1_000;

  async function open(listener: RequestListener, connect?: buildConnector.connector) {
    const lost = Promise.withResolvers<unknown>();
    const served = await serve((request, response) => {
      response.once('close', () => {
        if (!response.writableEnded) lost.resolve(undefined);
      });
      listener(request, response);
    });
    const clock = new HandClock();
    const own = connect === undefined ? {} : { connect };
    const pool = new Pool(`http://127.0.0.1:${served.port}`, { connections: 1, ...own });
    const request = { method: 'GET', path: '/a?b=c', headers: { x: 'y' } } as const;
    return {
      clock,
      /** Resolves when a connection closes before the end of its answer. */
      lost: lost.promise,
      send: () => sendBuffered(pool, request, { clock, timeoutMs, maxBodyBytes }),
      async [Symbol.asyncDispose]() {
        await pool.destroy();
        await served[Symbol.asyncDispose]();
      },
    };
  }

  it('has status, headers and all pieces of the body, and leaves no timer', async () => {
    await using server = await open((request, response) => {
      assert.deepEqual([request.url, request.headers['x']], ['/a?b=c', 'y']);
      // The two bytes of one letter arrive separately.
      const bytes = Buffer.from('grün');
      response.writeHead(418, { 'Retry-After': '7' }).write(bytes.subarray(0, 3));
      setImmediate(() => response.end(bytes.subarray(3)));
    });
    const { status, headers, body } = await server.send();
    assert.deepEqual([status, headers['retry-after'], body], [418, '7', 'grün']);
    assert.deepEqual(server.clock.armed, []);
  });

  it('may be as long as the limit, and a longer one is aborted with its connection', async () => {
    let bytes = maxBodyBytes;
    await using server = await open((_, response) => {
      response.write('x'.repeat(bytes++), () => bytes < 1_002 && response.end());
    });
    assert.equal((await server.send()).body.length, maxBodyBytes);
    await assert.rejects(server.send(), RangeError);
    assert.deepEqual(server.clock.armed, []);
    await server.lost;
  });

  for (const part of ['head', 'body']) {
    it(`that is late in its ${part} is aborted, and the next one arrives`, async () => {
      let isFirst = true;
      const arrived = Promise.withResolvers<undefined>();
      await using server = await open((_, response) => {
        if (!isFirst) response.end('later');
        else if (part === 'body') response.write('x');
        isFirst = false;
        arrived.resolve(undefined);
      });
      const answer = server.send();
      await arrived.promise;
      server.clock.advance(timeoutMs);
      await assert.rejects(answer, { name: 'TimeoutError' });
      await server.lost;
      assert.equal((await server.send()).body, 'later');
    });
  }

  it('is not awaited longer when there is no connection, and is not requested later', async () => {
    let requests = 0;
    const dial = buildConnector({});
    const held: (() => void)[] = [];
    await using server = await open(
      (_, response) => {
        requests++;
        response.end('x');
      },
      (target, callback) => held.push(() => dial(target, callback)),
    );
    const late = server.send();
    server.clock.advance(timeoutMs);
    await assert.rejects(late, { name: 'TimeoutError' });
    const next = server.send();
    held.shift()?.();
    // The new connection is closed with the late request, so another one is dialed.
    while (held.length === 0) await new Promise(setImmediate);
    held[0]?.();
    assert.equal((await next).body, 'x');
    assert.equal(requests, 1);
  });

  it('that fails for another reason rejects with that, and leaves no timer', async () => {
    await using server = await open((request) => void request.socket.destroy());
    await assert.rejects(server.send(), { code: 'UND_ERR_SOCKET' });
    assert.deepEqual(server.clock.armed, []);
  });
});

describe('an answer of IMDS', () => {
  const classify = (
    status: number,
    body: string | object,
    identity: NodeIdentity = asked.identity,
    retryAfterS?: number,
  ) => {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    return classifyAnswer({ ...asked, identity }, status, text, retryAfterS, 1_700_000_000_000);
  };
  const token = { access_token: 'tok', expires_in: '60' };

  it('has one reason, and is not asked for again at once', () => {
    for (const [status, body, reason] of [
      [400, { error: 'invalid_request', error_description: 'x' }, 'identity_not_assigned'],
      [400, { error: 'invalid_resource', error_description: 'AADSTS500011' }, 'resource_refused'],
      [400, { error: 'invalid_request', error_description: 'AADSTS90002: x' }, 'identity_refused'],
      [400, { error: 'unknown_code', error_description: 'something' }, 'upstream_refused'],
      [403, 'text', 'upstream_refused'],
      [429, 'Temporarily throttled', 'upstream_throttled'],
      [404, '', 'upstream_down'],
      [410, '', 'upstream_down'],
      [500, '', 'upstream_down'],
      [302, '', 'upstream_down'],
      [200, 'no json', 'upstream_down'],
      [200, { ...token, client_id: 'another' }, 'upstream_down'],
    ] as const) {
      const result = classify(status, body);
      assert.ok(!result.ok && result.failure.cooldownMs > 0);
      assert.equal(result.failure.reason, reason, `${status} ${JSON.stringify(body)}`);
    }
  });

  it('keeps the upstream’s own error code and text, not endlessly, and its Retry-After', () => {
    for (const [told, kept] of [
      ['no such resource', 'no such resource'],
      ['x'.repeat(3_000), 'x'.repeat(2_000)],
      ['', 'the upstream answered status 400'],
    ] as const) {
      const refused = classify(400, { error: 'invalid_resource', error_description: told });
      assert.ok(!refused.ok && refused.failure.error === 'invalid_resource');
      assert.equal(refused.failure.description, kept);
    }
    const throttled = classify(429, '', undefined, 7);
    assert.ok(!throttled.ok && throttled.failure.retryAfterS === 7);
    assert.equal(throttled.failure.cooldownMs, 7_000);
  });

  it('of another identity by the token’s own claims is not relayed', () => {
    const body = { ...token, access_token: jwtOf({ xms_mirid: '/subscriptions/s/other' }) };
    const wrong = classify(200, body, { kind: 'resource_id', value: '/Subscriptions/S/mine' });
    assert.ok(!wrong.ok && wrong.failure.reason === 'upstream_down');
    assert.ok(classify(200, body, { kind: 'resource_id', value: '/subscriptions/S/OTHER/' }).ok);
  });

  it('has the requested client id when the upstream returns none', () => {
    const result = classify(200, token);
    assert.ok(result.ok && result.token.clientId === 'C-1');
  });
});

describe('the IMDS source', () => {
  const identity = createLabIdentity('x');
  const openImds = () =>
    openFakeImds({
      host: '127.0.0.1',
      port: 0,
      nodeIps: ['127.0.0.1'],
      systemAssigned: createNodeIdentity(),
      userAssigned: [identity],
    });

  it('sends each kind of id, and at most four requests at once', async () => {
    await using imds = await openImds();
    await using source = sourceAt(imds.port, 5_000);
    for (const named of [
      { kind: 'client_id', value: identity.clientId },
      { kind: 'object_id', value: identity.objectId },
      { kind: 'resource_id', value: identity.resourceId },
    ] as const) {
      const result = await source.fetch({ ...asked, identity: named }, always);
      assert.ok(result.ok);
      assert.equal(objectIdOf(result.token.accessToken), identity.objectId.toLowerCase());
    }
    await imds.setFaults({ delayMs: 20 });
    const ofNode = { ...asked, identity: { kind: 'unnamed' } } as const;
    const resources = Array.from({ length: 40 }, (_, index) => `https://r${index}`);
    const all = await Promise.all(
      resources.map((resource) => source.fetch({ ...ofNode, resource }, always)),
    );
    assert.ok(all.every((result) => result.ok));
    assert.ok(imds.peakTokenConcurrency() <= 4);
  });

  it('retries a transient failure, within its time limit', async () => {
    await using imds = await openImds();
    await using source = sourceAt(imds.port, 2_000);
    const named = { kind: 'client_id', value: identity.clientId } as const;
    const fetch = () => source.fetch({ ...asked, identity: named }, always);
    await imds.setFaults({ fail: { status: 410, times: 2 } });
    assert.ok((await fetch()).ok);
    imds.clear();
    await imds.setFaults({ fail: { status: 503, times: 1, retryAfterSec: 3 } });
    const told = await fetch();
    assert.ok(!told.ok && told.failure.retryAfterS === 3);
    assert.equal(imds.requests().length, 1, 'not before the given time');
    await imds.setFaults({ hang: true });
    using time = new OwnTime();
    const hung = await fetch();
    assert.ok(!hung.ok && hung.failure.reason === 'upstream_down');
    assert.ok(time.nowMs() < 3_000);
  });

  it('encodes its input in the query, adds nothing else, retries within the budget, and uses no proxy', async (t) => {
    process.env['HTTP_PROXY'] = 'http://127.0.0.1:1';
    t.after(() => delete process.env['HTTP_PROXY']);
    const seen: string[] = [];
    await using served = await serve((request, response) => {
      seen.push(request.url ?? '');
      response.writeHead(500).end();
    });
    await using source = sourceAt(served.port);
    const resource = 'https://r/?a=b&client_id=other#x';
    const named = { kind: 'client_id', value: 'c&msi_res_id=other' } as const;
    const request = { ...asked, identity: named, resource, bypassCache: true };
    const result = await source.fetch(request, never);
    assert.ok(!result.ok && result.failure.reason === 'upstream_down');
    assert.equal(seen.length, 1);
    const { searchParams } = new URL(seen[0] ?? '', 'http://x');
    searchParams.delete('api-version');
    const given = { resource, client_id: 'c&msi_res_id=other', bypass_cache: 'true' };
    assert.deepEqual([...searchParams], Object.entries(given));
  });

  it('ignores a Retry-After of days', async () => {
    await using served = await serve((_request, response) => {
      response.writeHead(429, { 'Retry-After': '900000' }).end('throttled');
    });
    await using source = sourceAt(served.port);
    const result = await source.fetch(asked, always);
    assert.ok(!result.ok && result.failure.reason === 'upstream_throttled');
    assert.deepEqual([result.failure.retryAfterS, result.failure.cooldownMs], [120, 120_000]);
  });
});

describe('a metadata address that leads back to the agent', () => {
  const ofNode = { ...asked, identity: { kind: 'unnamed' } } as const;

  for (const isPod of [false, true]) {
    const title = isPod ? 'also if the agent itself is a pod with a binding' : 'without a loop';
    it(`is reported to the pod at once, ${title}`, { timeout: 20_000 }, async () => {
      const port = String(await freePort());
      const flags = { 'nmi-port': port, 'metadata-port': port };
      await using agent = await openLoopbackAgent(flags, (kube) => {
        bindPodToA(kube);
        const own = { name: 'nmi', nodeName: 'node-1', ips: ['127.0.0.1'], binding: 'app' };
        if (isPod) kube.apply(createPodManifest(own));
      });
      const pod = agent.client('127.0.0.11');
      const token = await ask(pod, tokenTarget);
      assert.equal(token.status, 503);
      assert.match(token.text, /the instance metadata endpoint is this agent itself/);
      // The agent's own request has no pod, and does not wait for one.
      assert.ok(token.ownMs < 1_500, `${token.ownMs} ms`);
      const instance = await ask(pod, '/metadata/instance?api-version=2021-02-01');
      assert.equal(instance.status, 503);
      assert.ok(instance.ownMs < 1_000, `${instance.ownMs} ms`);
      assert.equal(agent.imds.requests().length, 0);
    });
  }

  it('is left by closing its connections, once the redirect exempts the agent', async () => {
    const loops = new WeakSet<object>();
    await using served = await serve((request, response) => {
      response.shouldKeepAlive = true;
      if (loops.has(request.socket)) {
        response.writeHead(508, { 'Content-Type': 'application/json' });
        response.end('{"error":"loop_detected","error_description":"x"}');
      } else {
        response.end(JSON.stringify({ access_token: 'token', expires_in: '3600' }));
      }
    });
    // The first connection leads back to the agent until it closes.
    served.server.once('connection', (socket) => loops.add(socket));
    await using source = sourceAt(served.port);
    const result = await source.fetch(ofNode, always);
    assert.ok(result.ok && result.token.accessToken === 'token');
  });

  it('is distinguished from another agent in front of this one', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    await using other = sourceAt(agent.port);
    const result = await other.fetch(ofNode, never);
    assert.ok(!result.ok);
    assert.match(result.failure.description, /status 503/, 'an unknown pod for that agent');
  });
});
