import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { createPodManifest } from '../../../../lab/fakes/kube/manifests.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { openImdsSource } from '../../../../src/nmi/sources/imds/imds.ts';
import { ask, tokenTarget } from '../../../support/ask.ts';
import { freePort } from '../../../../lab/fabric/free-ports.ts';
import { bindPodToA, openLoopbackAgent } from '../../../support/loopback-agent.ts';

const tokenRequest = {
  identity: { kind: 'unnamed' },
  resource: 'r',
  correlationId: '0a1b2c3d-0000-4000-8000-000000000009',
} as const;

describe('a metadata address that leads back to the agent', () => {
  it('is reported to the pod, at once and without repeated loops', async () => {
    const port = String(await freePort());
    await using agent = await openLoopbackAgent(
      { 'nmi-port': port, 'metadata-port': port },
      bindPodToA,
    );
    const reply = await ask(agent.client('127.0.0.11'), tokenTarget);
    assert.equal(reply.status, 503);
    assert.match(reply.text, /the instance metadata endpoint is this agent itself/);
    // The agent's own request has no pod, and does not wait for one.
    assert.ok(reply.ownMs < 1_500, `${reply.ownMs} ms`);
    assert.equal(agent.imds.requests().length, 0);
  });

  it(
    'is reported in the same way if the agent itself is a pod with a binding',
    { timeout: 20_000 },
    async () => {
      const port = String(await freePort());
      await using agent = await openLoopbackAgent(
        { 'nmi-port': port, 'metadata-port': port },
        (kube) => {
          bindPodToA(kube);
          const ips = ['127.0.0.1'];
          kube.apply(createPodManifest({ name: 'nmi', nodeName: 'node-1', ips, binding: 'app' }));
        },
      );
      const pod = agent.client('127.0.0.11');
      const token = await ask(pod, tokenTarget);
      assert.equal(token.status, 503);
      assert.match(token.text, /the instance metadata endpoint is this agent itself/);
      assert.ok(token.ownMs < 1_500, `${token.ownMs} ms`);
      const instance = await ask(pod, '/metadata/instance?api-version=2021-02-01');
      assert.equal(instance.status, 503);
      assert.ok(instance.ownMs < 1_000, `${instance.ownMs} ms`);
    },
  );

  it('is left by closing its connections, once the redirect exempts the agent', async () => {
    const loops = new WeakSet<object>();
    await using server = createServer((request, response) => {
      response.shouldKeepAlive = true;
      if (loops.has(request.socket)) {
        response.writeHead(508, { 'Content-Type': 'application/json' });
        response.end('{"error":"loop_detected","error_description":"x"}');
      } else {
        const expiresOn = Math.floor(Date.now() / 1000) + 3_600;
        response.end(JSON.stringify({ access_token: 'token', expires_on: String(expiresOn) }));
      }
    });
    // The first connection leads back to the agent until it closes.
    server.once('connection', (socket) => loops.add(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await using source = openImdsSource({
      endpoint: `http://127.0.0.1:${port}`,
      userAgent: 'test',
      timeoutMs: 5_000,
      clock: systemClock,
    });
    const result = await source.fetch(tokenRequest, () => true);
    assert.ok(result.ok && result.token.accessToken === 'token');
  });

  it('is distinguished from another agent in front of this one', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    await using other = openImdsSource({
      endpoint: `http://127.0.0.1:${agent.port}`,
      userAgent: 'test',
      timeoutMs: 5_000,
      clock: systemClock,
    });
    const result = await other.fetch(tokenRequest, () => false);
    assert.ok(!result.ok);
    assert.match(result.failure.description, /status 503/, 'an unknown pod for that agent');
  });
});
