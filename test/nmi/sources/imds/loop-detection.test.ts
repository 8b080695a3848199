import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/cache/clock.ts';
import { LoopMark } from '../../../../src/nmi/sources/imds/loop-detection.ts';
import { openImdsSource } from '../../../../src/nmi/sources/imds/imds.ts';
import { freePort } from '../../../support/free-ports.ts';
import { bindPodToA, openLoopbackAgent } from '../../../support/loopback-agent.ts';

describe('a metadata address that leads back to the agent', () => {
  it('is reported to the pod, at once and without going round', async () => {
    const port = String(await freePort());
    await using agent = await openLoopbackAgent(
      { 'nmi-port': port, 'metadata-port': port },
      bindPodToA,
    );
    const reply = await agent.client('127.0.0.11').request({
      method: 'GET',
      target: '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://r.example',
      headers: ['Metadata', 'true'],
      connection: 'new',
      timeoutMs: 10_000,
    });
    assert.ok(reply.outcome !== 'failed');
    assert.equal(reply.status, 503);
    assert.match(reply.body, /the instance metadata endpoint is this agent itself/);
    // The agent's own request has no pod, and it is not held for one.
    assert.ok(reply.durationMs < 1_500, `${reply.durationMs} ms`);
    assert.equal(agent.imds.requests().length, 0);
  });

  it('is told apart from another agent in front of this one', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    await using other = openImdsSource({
      endpoint: `http://127.0.0.1:${agent.port}`,
      ...{ userAgent: 'test', timeoutMs: 5_000, clock: systemClock, loopMark: new LoopMark() },
    });
    const result = await other.fetch({ identity: { kind: 'unnamed' }, resource: 'r' }, () => false);
    assert.ok(!result.ok);
    assert.match(result.failure.description, /status 503/, 'an unknown pod to that agent');
  });
});
