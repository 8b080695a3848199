/** Attacks of one pod that must not affect the agent or other pods. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { OwnTime } from '../../lab/pods/own-time.ts';
import { untilMetric } from '../support/until-metric.ts';
import {
  bindPodToA,
  identityA,
  identityB,
  idsOf,
  openLoopbackAgent,
} from '../support/loopback-agent.ts';

const ip = '127.0.0.11';

async function dial(port: number, localAddress = ip): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, localAddress });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

async function readAll(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('latin1');
  for await (const chunk of socket) text += String(chunk);
  return text;
}

describe('a hostile pod', () => {
  it('cannot stop the agent by CONNECT and a reset', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    for (let index = 0; index < 50; index++) {
      const socket = await dial(agent.port);
      socket.write('CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n');
      if (index % 2 === 0) await once(socket, 'data');
      socket.resetAndDestroy();
    }
    assert.equal((await ask(agent.client(ip), tokenTarget)).identity, 'a');
  });

  it('cannot pile up pipelined requests that wait', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    await agent.imds.setFaults({ hang: true });
    const socket = await dial(agent.port);
    const request = `GET ${tokenTarget} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n`;
    socket.write(request.repeat(1_000));
    await new Promise((resolve) => socket.once('close', resolve));
    await agent.imds.setFaults({});
    assert.equal((await ask(agent.client(ip), tokenTarget)).status, 200);
  });

  it('cannot send a second request to the real service inside a body', async () => {
    await using agent = await openLoopbackAgent(
      { 'allow-metadata': 'scheduledevents' },
      bindPodToA,
    );
    const inner = `GET ${tokenTarget} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n`;
    for (const target of ['/metadata/instance?api-version=2021-02-01', tokenTarget]) {
      const socket = await dial(agent.port);
      socket.write(
        `GET ${target} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\nContent-Length: ${inner.length}\r\n\r\n${inner}`,
      );
      const text = await readAll(socket);
      assert.equal(text.match(/HTTP\/1\.1 /g)?.length, 1, text);
    }
    const seen = agent.imds.requests().map(({ target }) => target);
    assert.equal(seen.filter((target) => target.includes('/metadata/instance')).length, 0);
  });

  it('cannot hold connections to the real service with bodies that never come', async () => {
    await using agent = await openLoopbackAgent(
      { 'allow-metadata': 'scheduledevents' },
      bindPodToA,
    );
    const sockets: Socket[] = [];
    for (let index = 0; index < 8; index++) {
      const socket = await dial(agent.port);
      sockets.push(socket);
      socket.write(
        'POST /metadata/scheduledevents?api-version=2020-07-01 HTTP/1.1\r\nHost: h\r\n' +
          'Metadata: true\r\nContent-Length: 1000\r\n\r\n',
      );
    }
    const reply = await ask(agent.client(ip), '/metadata/versions');
    assert.equal(reply.status, 200);
    assert.ok(reply.ownMs < 1_000, `${reply.ownMs} ms`);
    for (const socket of sockets) socket.destroy();
  });

  it('gets 429 when it requests many tokens at once, and delays no other pod', async () => {
    await using agent = await openLoopbackAgent(
      {},
      (kube) => {
        bindPodToA(kube);
        kube.apply(
          createPodManifest({ name: 'q', nodeName: 'node-1', ips: ['127.0.0.12'], binding: 'app' }),
        );
      },
      { tuning: { imdsTimeoutMs: 10_000 } },
    );
    await agent.imds.setFaults({ delayMs: 50 });
    const quiet = agent.client('127.0.0.12');
    const calm = await ask(quiet, tokenTarget.replace('vault', 'calm'));
    const noisy = agent.client(ip);
    // The connections of the first requests may still be closing, and a caller may have 64.
    const many = Array.from({ length: 30 }, async (_, lane) => {
      const askFor = (turn: number) =>
        ask(noisy, tokenTarget.replace('vault', `noise-${lane}-${turn}`));
      return [await askFor(1), await askFor(2)];
    });
    await eventually(() => assert.ok(agent.imds.requests().length > 0));
    const other = await ask(quiet, tokenTarget);
    assert.equal(other.identity, 'a');
    const mostMs = 500 + 10 * calm.ownMs;
    assert.ok(other.ownMs < mostMs, `${other.ownMs} ms beside ${calm.ownMs}`);
    const replies = (await Promise.all(many)).flat();
    assert.ok(replies.some(({ status }) => status === 200));
    await untilMetric(agent, 'nmi_connections', 0);
    // A busy machine may take seconds to send them all.
    await agent.imds.setFaults({ delayMs: 3_000 });
    const more = Array.from({ length: 64 }, (_, lane) =>
      ask(noisy, tokenTarget.replace('vault', `more-${lane}`)),
    );
    const first = await Promise.race(more);
    await agent.imds.setFaults({});
    const refused = [...replies, ...(await Promise.all(more))].filter(
      ({ status }) => status === 429,
    );
    assert.equal(first.status, 429);
    assert.ok(refused.every(({ headers }) => headers.has('retry-after')));
  });

  it('cannot take all connections', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    const sockets: Socket[] = [];
    const closed = new Set<Socket>();
    for (let index = 0; index < 100; index++) {
      const socket = await dial(agent.port, '127.0.0.66');
      socket.on('close', () => closed.add(socket));
      socket.resume();
      sockets.push(socket);
    }
    while (closed.size < 36) await delay(5);
    assert.equal((await ask(agent.client(ip), tokenTarget)).status, 200);
    for (const socket of sockets) socket.destroy();
  });

  it('gets no token of the pod that has its address now, on a connection it opened before', async () => {
    await using agent = await openLoopbackAgent({}, (kube) => {
      bindPodToA(kube);
      kube.apply(createAzureIdentity({ name: 'b', ...idsOf(identityB) }));
      kube.apply(createAzureIdentityBinding({ name: 'b', azureIdentity: 'b', selector: 'other' }));
    });
    const unused = await dial(agent.port);
    await untilMetric(agent, 'nmi_connections', 1);
    agent.kube.delete({ kind: 'Pod', namespace: 'default', name: 'p' });
    agent.kube.apply(
      createPodManifest({ name: 'q', nodeName: 'node-1', ips: [ip], binding: 'other' }),
    );
    while ((await ask(agent.client(ip), tokenTarget)).identity !== 'b') await delay(5);
    unused.write(`GET ${tokenTarget} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n`);
    const text = await readAll(unused);
    assert.match(text, /^HTTP\/1\.1 503 /);
    assert.ok(!text.includes('access_token'));
  });

  it('is answered in JSON for an expectation, and once', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    const socket = await dial(agent.port);
    socket.write(`GET ${tokenTarget} HTTP/1.1\r\nHost: h\r\nExpect: foo\r\nMetadata: true\r\n\r\n`);
    const text = await readAll(socket);
    assert.match(text, /^HTTP\/1\.1 400 [\s\S]*"error":"invalid_request"/);
  });
});

describe('identities with odd ids', () => {
  for (const [name, ids] of [
    ['blank to .NET', { clientId: '\u0085', resourceId: identityA.resourceId }],
    ['no GUID', { clientId: 'a&client_id=b', resourceId: identityA.resourceId }],
    ['a lone surrogate', { clientId: '\ud800', resourceId: identityA.resourceId }],
    ['a resource id that is blank to .NET', { clientId: '', resourceId: '\u0085' }],
    ['a resource id of another kind', { clientId: '', resourceId: 'https://x/' }],
  ] as const) {
    it(`are refused without a request upstream: ${name}`, async () => {
      await using agent = await openLoopbackAgent({}, (kube) => {
        bindPodToA(kube);
        kube.apply(createAzureIdentity({ name: 'a', ...ids }));
      });
      const reply = await ask(agent.client(ip), tokenTarget);
      assert.equal(reply.status, 400);
      assert.match(String(reply.body['error_description']), /^Identity not found: AzureIdentity/);
      assert.deepEqual(agent.imds.requests(), []);
    });
  }
});

describe('an object id', () => {
  it('of no assigned identity is refused without blaming another identity', async () => {
    await using agent = await openLoopbackAgent({}, (kube) => {
      bindPodToA(kube);
      kube.apply(createAzureIdentity({ name: 'b', ...idsOf(identityB) }));
      kube.apply(createAzureIdentityBinding({ name: 'b', azureIdentity: 'b', selector: 'app' }));
    });
    agent.imds.unassign(identityB.clientId);
    const target = `${tokenTarget}&object_id=00000000-0000-4000-8000-000000000000`;
    const reply = await ask(agent.client(ip), target);
    assert.equal(reply.status, 400);
    assert.match(String(reply.body['error_description']), /has the object_id/);
    await agent.imds.setFaults({ fail: { status: 429 } });
    const other = target.replace('vault', 'other');
    assert.equal((await ask(agent.client(ip), other)).status, 429);
  });
});

describe('the drain', () => {
  it('does not wait for an incomplete request or for the idle connection of a relayed answer', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA, {
      tuning: { drainTimeoutMs: 8_000 },
    });
    const half = await dial(agent.port);
    half.write('GET /metadata/inst');
    await agent.imds.setFaults({ delayMs: 300 });
    const pod = agent.client(ip);
    const relayed = ask(pod, '/metadata/versions', { connection: 'kept' });
    await eventually(() => assert.equal(agent.imds.requests().length, 1));
    using time = new OwnTime();
    const stopped = agent.stop();
    assert.equal((await relayed).status, 200);
    await stopped;
    assert.ok(time.nowMs() < 2_000, `${time.nowMs()} ms`);
    half.destroy();
  });

  it('ends at its limit when a request does not', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA, {
      tuning: { drainTimeoutMs: 1_000, imdsTimeoutMs: 10_000 },
    });
    await agent.imds.setFaults({ hang: true, paths: 'token' });
    const answer = ask(agent.client(ip), tokenTarget).then(
      ({ status }) => `answered ${status}`,
      (error: unknown) => String(error),
    );
    await eventually(() => assert.equal(agent.imds.requests().length, 1));
    const startedAtMs = performance.now();
    using time = new OwnTime();
    await agent.stop();
    const [tookMs, ownMs] = [performance.now() - startedAtMs, time.nowMs()];
    assert.ok(tookMs > 900 && ownMs < 4_000, `${Math.round(tookMs)} ms`);
    assert.match(await answer, /ECONNRESET/);
  });
});
