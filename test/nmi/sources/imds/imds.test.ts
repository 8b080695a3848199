import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { openFakeImds } from '../../../../lab/fakes/imds/fake-imds.ts';
import { createLabIdentity, createNodeIdentity } from '../../../../lab/fakes/identity.ts';
import { objectIdOf } from '../../../../src/nmi/sources/token-fields.ts';
import { classifyAnswer, openImdsSource } from '../../../../src/nmi/sources/imds/imds.ts';
import type { NodeIdentity, TokenRequest } from '../../../../src/nmi/sources/source.ts';
import { OwnTime } from '../../../../lab/pods/own-time.ts';

const always = () => true;
const nowWallMs = 1_700_000_000_000;
const asked: TokenRequest<NodeIdentity> = {
  identity: { kind: 'client_id', value: 'C-1' },
  resource: 'r',
  correlationId: '0a1b2c3d-0000-4000-8000-000000000009',
};

function bodyWith(fields: Record<string, unknown>): string {
  return JSON.stringify({ access_token: 'tok', client_id: 'c-1', ...fields });
}

describe('an upstream answer', () => {
  const table = [
    [400, '{"error":"invalid_request","error_description":"x"}', 'identity_not_assigned'],
    [400, '{"error":"invalid_resource","error_description":"AADSTS500011"}', 'resource_refused'],
    [400, '{"error":"invalid_request","error_description":"AADSTS90002: x"}', 'identity_refused'],
    [400, '{"error":"unknown_code","error_description":"something"}', 'upstream_refused'],
    [403, 'text', 'upstream_refused'],
    [429, 'Temporarily throttled', 'upstream_throttled'],
    [404, '', 'upstream_down'],
    [410, '', 'upstream_down'],
    [500, '', 'upstream_down'],
    [302, '', 'upstream_down'],
    [200, 'no json', 'upstream_down'],
    [200, bodyWith({ expires_in: '60', client_id: 'another' }), 'upstream_down'],
  ] as const;
  for (const [status, body, reason] of table) {
    it(`of ${status} ${body.slice(0, 40)} means ${reason}`, () => {
      const result = classifyAnswer(asked, status, body, undefined, nowWallMs);
      assert.ok(!result.ok);
      assert.equal(result.failure.reason, reason);
      assert.ok(result.failure.cooldownMs > 0);
    });
  }

  it('keeps the upstream’s own error code and text, not endlessly, and its Retry-After', () => {
    for (const [told, kept] of [
      ['no such resource', 'no such resource'],
      ['x'.repeat(3_000), 'x'.repeat(2_000)],
      ['', 'the upstream answered status 400'],
    ] as const) {
      const body = JSON.stringify({ error: 'invalid_resource', error_description: told });
      const refused = classifyAnswer(asked, 400, body, undefined, nowWallMs);
      assert.ok(!refused.ok && refused.failure.error === 'invalid_resource');
      assert.equal(refused.failure.description, kept);
    }
    const throttled = classifyAnswer(asked, 429, '', 7, nowWallMs);
    assert.ok(!throttled.ok && throttled.failure.retryAfterS === 7);
    assert.equal(throttled.failure.cooldownMs, 7_000);
  });

  it('of another identity by the token’s own claims is not relayed', () => {
    const claims = Buffer.from('{"xms_mirid":"/subscriptions/s/other"}').toString('base64url');
    const body = JSON.stringify({ access_token: `h.${claims}.s`, expires_in: '60' });
    const byResource = { kind: 'resource_id', value: '/Subscriptions/S/mine' } as const;
    const wrong = classifyAnswer(
      { ...asked, identity: byResource },
      200,
      body,
      undefined,
      nowWallMs,
    );
    assert.ok(!wrong.ok && wrong.failure.reason === 'upstream_down');
    const own = { kind: 'resource_id', value: '/subscriptions/S/OTHER/' } as const;
    assert.ok(classifyAnswer({ ...asked, identity: own }, 200, body, undefined, nowWallMs).ok);
  });

  it('has the requested client id when the upstream returns none', () => {
    const body = JSON.stringify({ access_token: 't', expires_in: '60' });
    const result = classifyAnswer(asked, 200, body, undefined, nowWallMs);
    assert.ok(result.ok && result.token.clientId === 'C-1');
  });
});

describe('the IMDS source', () => {
  it('sends each kind of id, and at most four requests at once', async () => {
    const identity = createLabIdentity('x');
    await using imds = await openFakeImds({
      host: '127.0.0.1',
      port: 0,
      nodeIps: ['127.0.0.1'],
      systemAssigned: createNodeIdentity(),
      userAssigned: [identity],
    });
    await using source = openImdsSource({
      endpoint: `http://127.0.0.1:${imds.port}`,
      userAgent: 'test',
      timeoutMs: 5_000,
      clock: systemClock,
    });
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
    const all = await Promise.all(
      Array.from({ length: 40 }, (_, index) =>
        source.fetch({ ...ofNode, resource: `https://r${index}` }, always),
      ),
    );
    assert.ok(all.every((result) => result.ok));
    assert.ok(imds.peakTokenConcurrency() <= 4);
  });

  it('retries a transient failure, within its time limit', async () => {
    const identity = createLabIdentity('x');
    await using imds = await openFakeImds({
      host: '127.0.0.1',
      port: 0,
      nodeIps: ['127.0.0.1'],
      systemAssigned: undefined,
      userAssigned: [identity],
    });
    await using source = openImdsSource({
      endpoint: `http://127.0.0.1:${imds.port}`,
      userAgent: 'test',
      timeoutMs: 2_000,
      clock: systemClock,
    });
    const request: TokenRequest<NodeIdentity> = {
      ...asked,
      identity: { kind: 'client_id', value: identity.clientId },
    };
    await imds.setFaults({ fail: { status: 410, times: 2 } });
    assert.ok((await source.fetch(request, always)).ok);
    imds.clear();
    await imds.setFaults({ fail: { status: 503, times: 1, retryAfterSec: 3 } });
    const told = await source.fetch(request, always);
    assert.ok(!told.ok && told.failure.retryAfterS === 3);
    assert.equal(imds.requests().length, 1, 'not before the given time');
    await imds.setFaults({ hang: true });
    using time = new OwnTime();
    const hung = await source.fetch(request, always);
    assert.ok(!hung.ok && hung.failure.reason === 'upstream_down');
    assert.ok(time.nowMs() < 3_000);
  });

  it('encodes its input in the query, and adds nothing else', async () => {
    const seen: string[] = [];
    const server = createServer((request, response) => {
      seen.push(request.url ?? '');
      response.statusCode = 500;
      response.end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    {
      await using source = openImdsSource({
        endpoint: `http://127.0.0.1:${port}`,
        userAgent: 'test',
        timeoutMs: 2_000,
        clock: systemClock,
      });
      const identity = { kind: 'client_id', value: 'c&msi_res_id=other' } as const;
      const resource = 'https://r/?a=b&client_id=other#x';
      // Nor a second time when the budget is used up.
      const result = await source.fetch(
        { ...asked, identity, resource, bypassCache: true },
        () => false,
      );
      assert.ok(!result.ok && result.failure.reason === 'upstream_down');
    }
    server.close();
    assert.equal(seen.length, 1);
    const { searchParams } = new URL(seen[0] ?? '', 'http://x');
    searchParams.delete('api-version');
    assert.deepEqual(
      [...searchParams],
      [
        ['resource', 'https://r/?a=b&client_id=other#x'],
        ['client_id', 'c&msi_res_id=other'],
        ['bypass_cache', 'true'],
      ],
    );
  });

  it('ignores a Retry-After of days', async () => {
    const server = createServer((_request, response) => {
      response.writeHead(429, { 'Retry-After': '900000' }).end('throttled');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    await using source = openImdsSource({
      endpoint: `http://127.0.0.1:${port}`,
      userAgent: 'test',
      timeoutMs: 3_000,
      clock: systemClock,
    });
    const result = await source.fetch(asked, always);
    assert.ok(!result.ok && result.failure.reason === 'upstream_throttled');
    assert.equal(result.failure.retryAfterS, 120);
    assert.equal(result.failure.cooldownMs, 120_000);
    server.closeAllConnections();
    server.close();
  });

  it('does not read an endless body, and uses no proxy', async () => {
    process.env['HTTP_PROXY'] = 'http://127.0.0.1:1';
    try {
      const server = createServer((_request, response) => {
        response.writeHead(200);
        const timer = setInterval(() => response.write('x'.repeat(20_000)), 1);
        response.on('close', () => {
          clearInterval(timer);
        });
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      await using source = openImdsSource({
        endpoint: `http://127.0.0.1:${port}`,
        userAgent: 'test',
        timeoutMs: 3_000,
        clock: systemClock,
      });
      const result = await source.fetch(asked, always);
      assert.ok(!result.ok && result.failure.reason === 'upstream_down');
      assert.match(result.failure.description, /RangeError/);
      server.closeAllConnections();
      server.close();
    } finally {
      delete process.env['HTTP_PROXY'];
    }
  });
});
