import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzurePodIdentityException,
  createPodManifest,
} from '../../lab/fakes/kube/manifests.ts';
import type { PodClient } from '../../lab/pods/pod-client.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import type { PodExplanation } from '../../src/nmi/explain/explanation.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { untilMetric } from '../support/until-metric.ts';
import {
  bindPodToA,
  identityA,
  identityB,
  idsOf,
  openLoopbackAgent,
  type LoopbackAgent,
} from '../support/loopback-agent.ts';

function withQuery(extra: string): string {
  return `${tokenTarget}&${extra}`;
}

function assertErrorBody(reply: Awaited<ReturnType<typeof ask>>): void {
  assert.equal(reply.headers.get('content-type'), 'application/json; charset=utf-8');
  assert.equal(reply.headers.get('content-length'), String(Buffer.byteLength(reply.text)));
  assert.ok(typeof reply.body['error'] === 'string' && reply.body['error'] !== '');
  assert.ok(typeof reply.body['error_description'] === 'string');
  const isPassing = reply.status === 503 || reply.status === 429;
  assert.equal(reply.headers.has('retry-after'), isPassing);
}

describe('the token endpoint, as a pod sees it', () => {
  let agent: LoopbackAgent;
  let pod: PodClient;
  before(async () => {
    agent = await openLoopbackAgent({}, (kube) => {
      bindPodToA(kube);
      kube.apply(createAzureIdentity({ name: 'b', ...idsOf(identityB) }));
      kube.apply(
        createAzureIdentityBinding({ name: 'two-a', azureIdentity: 'a', selector: 'two' }),
      );
      kube.apply(
        createAzureIdentityBinding({ name: 'two-b', azureIdentity: 'b', selector: 'two' }),
      );
      for (const [name, ip, binding] of [
        ['two', '127.0.0.12', 'two'],
        ['excepted', '127.0.0.14', undefined],
      ] as const) {
        kube.apply(
          createPodManifest({
            name,
            nodeName: 'node-1',
            ips: [ip],
            ...(binding === undefined ? {} : { binding }),
            ...(name === 'excepted' ? { labels: { app: 'addon' } } : {}),
          }),
        );
      }
      kube.apply(createAzurePodIdentityException({ name: 'x', podLabels: { app: 'addon' } }));
    });
    pod = agent.client('127.0.0.11');
  });
  after(() => agent[Symbol.asyncDispose]());

  it('selects one of two identities by each selector and has a stable default', async () => {
    const two = agent.client('127.0.0.12');
    for (const identity of [identityA, identityB]) {
      const resourceId = encodeURIComponent(identity.resourceId);
      for (const selector of [
        `client_id=${identity.clientId}`,
        `client_id=${identity.clientId.toUpperCase()}`,
        `object_id=${identity.objectId}`,
        `object_id=${identity.objectId.toUpperCase()}`,
        `msi_res_id=${resourceId}`,
        `mi_res_id=${identity.resourceId.toUpperCase()}`,
        `msi_res_id=${identity.resourceId.replace('resourcegroups', 'resourceGroups')}`,
      ]) {
        assert.equal((await ask(two, withQuery(selector))).identity, identity.name, selector);
      }
    }
    assert.equal((await ask(two, tokenTarget)).identity, 'a');
    assert.equal((await ask(two, withQuery('client_id='))).identity, 'a');
  });

  it('sends no request upstream for an identity that is not bound', async () => {
    await ask(pod, tokenTarget);
    agent.imds.clear();
    for (const selector of [
      `client_id=${identityB.clientId}`,
      `object_id=${identityB.objectId}`,
      `msi_res_id=${identityB.resourceId}`,
      'client_id=nonsense',
    ]) {
      const reply = await ask(pod, withQuery(selector));
      assert.equal(reply.status, 400);
      assertErrorBody(reply);
      assert.match(String(reply.body['error_description']), /^Identity not found/);
    }
    assert.deepEqual(agent.imds.requests(), []);
  });

  it('relays the node’s answer to an excepted pod, whatever it names', async () => {
    const excepted = agent.client('127.0.0.14');
    assert.equal((await ask(excepted, tokenTarget)).identity, 'node');
    const named = withQuery(`client_id=${identityB.clientId}`);
    assert.equal((await ask(excepted, named)).identity, 'b');
    const byResource = withQuery(`mi_res_id=${identityA.resourceId}`);
    assert.equal((await ask(excepted, byResource)).identity, 'a');
    assert.equal((await ask(excepted, withQuery('client_id=unknown'))).status, 400);
  });

  it('answers with JSON when the parser fails, and continues to serve', async () => {
    for (const [bytes, status] of [
      ['GARBAGE\r\n\r\n', 405],
      ['GET / HTTP/1.1\r\nA B: c\r\n\r\n', 400],
      [`GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
      ['GET /\u0001 HTTP/1.1\r\n\r\n', 400],
      ['CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n', 405],
      ['BREW / HTTP/1.1\r\n\r\n', 405],
    ] as const) {
      const text = await rawExchange(agent.port, bytes);
      assert.match(text, new RegExp(`^HTTP/1.1 ${status} `), bytes.slice(0, 40));
      const body = JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)) as Record<string, unknown>;
      assert.ok(typeof body['error'] === 'string' && typeof body['error_description'] === 'string');
    }
    assert.equal((await ask(pod, tokenTarget)).status, 200);
  });

  it('never lets a token into its log or its metrics', async () => {
    const reply = await ask(pod, tokenTarget);
    const token = String(reply.body['access_token']);
    const metrics = await (await fetch(`http://127.0.0.1:${agent.adminPort}/healthz`)).text();
    const everything = agent.log.join('') + metrics;
    const signature = token.split('.')[2] ?? '';
    assert.ok(signature.length > 20);
    assert.ok(!everything.includes(signature) && !everything.includes(token));
    assert.ok(!everything.includes(identityA.clientId), 'client ids are redacted');
    const line = agent.log
      .map((text) => JSON.parse(text) as Record<string, unknown>)
      .findLast((entry) => entry['msg'] === 'token request' && entry['cache'] === 'hit');
    assert.ok(line !== undefined);
    for (const field of [
      'pod',
      'namespace',
      'uid',
      'identity',
      'reason',
      'source',
      'durationMs',
      'requestId',
    ]) {
      assert.ok(line[field] !== undefined, field);
    }
  });
});

describe('passthrough', () => {
  it('serves other pods while one sends as many requests as it can', async () => {
    await using agent = await openLoopbackAgent(
      {},
      (kube) => {
        bindPodToA(kube);
        const ips = ['127.0.0.12'];
        kube.apply(createPodManifest({ name: 'quiet', nodeName: 'node-1', ips }));
      },
      { tuning: { imdsTimeoutMs: 10_000 } },
    );
    await agent.imds.setFaults({ delayMs: 100 });
    const quiet = agent.client('127.0.0.12');
    const { ownMs: calmMs } = await ask(quiet, '/metadata/instance?api-version=2021-02-01');
    const calm = new AbortController();
    const statuses = new Set<number>();
    // Connections beyond 64 would be closed, and those of earlier requests may still be closing.
    const flood = Array.from({ length: 30 }, async (_, lane) => {
      for (let turn = 0; !calm.signal.aborted; turn++) {
        const target = `/metadata/instance?api-version=2021-02-01&lane=${lane}&turn=${turn}`;
        statuses.add((await ask(agent.client('127.0.0.11'), target)).status);
        await delay(20);
      }
    });
    await eventually(() => assert.ok(statuses.has(429)));
    for (let turn = 0; turn < 3; turn++) {
      const target = `/metadata/instance?api-version=2021-02-01&quiet=${turn}`;
      const reply = await ask(quiet, target);
      assert.equal(reply.status, 200);
      assert.ok(reply.ownMs < 1_000 + 10 * calmMs, `${reply.ownMs} ms beside ${calmMs}`);
    }
    calm.abort();
    await Promise.all(flood);
    assert.deepEqual([...statuses].sort(), [200, 429]);
  });

  it('ends in time when the real service hangs or is unreachable', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA, {
      tuning: { imdsTimeoutMs: 300 },
    });
    const pod = agent.client('127.0.0.11');
    await agent.imds.setFaults({ hang: true });
    const hung = await ask(pod, '/metadata/versions');
    assert.equal(hung.status, 503);
    assertErrorBody(hung);
    assert.ok(hung.ownMs < 2_000, `${hung.ownMs} ms`);
    await agent.imds.setFaults({ closed: true });
    assert.equal((await ask(pod, '/metadata/versions')).status, 503);
    await agent.imds.setFaults({});
    assert.equal((await ask(pod, '/metadata/versions')).status, 200);
  });
});

describe('host token', () => {
  it('is not available unless enabled', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    const headers = ['podns', 'default', 'podname', 'p'];
    const reply = await ask(agent.client('127.0.0.1'), '/host/token/?resource=r', { headers });
    assert.equal(reply.status, 404);
    assertErrorBody(reply);
  });
});

describe('upstream failures', () => {
  const cases = [{ fail: { status: 500 } }, { hang: true }, { closed: true }] as const;
  for (const faults of cases) {
    it(`answers 503 to ${JSON.stringify(faults)} and recovers`, async () => {
      await using agent = await openLoopbackAgent({}, bindPodToA, {
        tuning: { imdsTimeoutMs: 400 },
      });
      const pod = agent.client('127.0.0.11');
      await agent.imds.setFaults(faults);
      const reply = await ask(pod, tokenTarget);
      assert.equal(reply.status, 503);
      assertErrorBody(reply);
      await agent.imds.setFaults({});
      await eventually(async () => {
        assert.equal((await ask(pod, tokenTarget)).identity, 'a');
      });
    });
  }

  it('serves a cached token through an outage', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA, {
      tuning: { imdsTimeoutMs: 400 },
    });
    const pod = agent.client('127.0.0.11');
    await ask(pod, tokenTarget);
    await agent.imds.setFaults({ closed: true });
    assert.equal((await ask(pod, tokenTarget)).identity, 'a');
  });

  it('contains the command that assigns a missing identity to the node', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    agent.imds.unassign(identityA.clientId);
    const reply = await ask(agent.client('127.0.0.11'), tokenTarget);
    assert.equal(reply.status, 400);
    assertErrorBody(reply);
    const text = String(reply.body['error_description']);
    assert.match(text, /^Identity not found: AzureIdentity default\/a/);
    assert.match(text, /Assign it: kubectl nmi identity assign a -n default shows/);
  });
});

describe('objects that arrive late or change', () => {
  it('serves a pod and a binding that arrive while the request waits', async () => {
    await using agent = await openLoopbackAgent(
      {},
      (kube) => {
        bindPodToA(kube);
        kube.delete({ kind: 'Pod', namespace: 'default', name: 'p' });
        kube.delete({ kind: 'AzureIdentityBinding', namespace: 'default', name: 'a' });
      },
      { tuning: { lateObjectWaitMs: 20_000 } },
    );
    const early = ask(agent.client('127.0.0.11'), tokenTarget);
    await untilMetric(agent, 'nmi_waiting_requests', 1);
    const pod = createPodManifest({
      name: 'p',
      nodeName: 'node-1',
      ips: ['127.0.0.11'],
      binding: 'app',
    });
    agent.kube.apply(pod);
    await untilMetric(agent, 'nmi_index_pods{kind="all"}', 1);
    await untilMetric(agent, 'nmi_waiting_requests', 1);
    agent.kube.apply(
      createAzureIdentityBinding({ name: 'a', azureIdentity: 'a', selector: 'app' }),
    );
    const reply = await early;
    assert.equal(reply.identity, 'a');
    assert.ok(reply.durationMs < 15_000, String(reply.durationMs));
  });

  it('revokes a cached token at once, also during its fetch', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA, {
      tuning: { bindingGraceMs: 0 },
    });
    const pod = agent.client('127.0.0.11');
    assert.equal((await ask(pod, tokenTarget)).identity, 'a');
    await agent.imds.setFaults({ delayMs: 300 });
    const slow = ask(pod, withQuery('').replace('vault', 'other'));
    await eventually(() => assert.equal(agent.imds.requests().length, 2));
    agent.kube.delete({ kind: 'AzureIdentityBinding', namespace: 'default', name: 'a' });
    const refused = await slow;
    assert.equal(refused.status, 400);
    assert.equal(refused.identity, undefined);
    assert.equal((await ask(pod, tokenTarget)).status, 400);
  });
});

describe('the explain socket of the agent', () => {
  it('explains its pods until the agent has stopped', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-agent-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const socketPath = join(folder, 'explain.sock');
    await using agent = await openLoopbackAgent({}, bindPodToA, { explainSocket: socketPath });
    const asked = request({ socketPath, path: '/explain?pod=default%2Fp' }).end();
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    const { kind, requests } = (await json(response)) as PodExplanation;
    assert.deepEqual([response.statusCode, kind], [200, 'pod']);
    assert.equal(requests[0]?.outcome.kind, 'granted');
    await agent.stop();
    assert.ok(!existsSync(socketPath));
  });
});

describe('the shutdown of the agent', () => {
  it('finishes requests under way and refuses new connections', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    const pod = agent.client('127.0.0.11');
    await agent.imds.setFaults({ delayMs: 400 });
    const slow = ask(pod, tokenTarget);
    await eventually(() => assert.equal(agent.imds.requests().length, 1));
    const stopped = agent.stop();
    await assert.rejects(ask(pod, tokenTarget), /ECONNREFUSED/);
    const reply = await slow;
    assert.equal(reply.identity, 'a');
    assert.equal(reply.headers.get('connection'), 'close');
    await stopped;
  });
});

/** Sends raw bytes and reads until the peer closes. */
function rawExchange(port: number, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect({ host: '127.0.0.1', port, localAddress: '127.0.0.11' }, () => {
      socket.write(bytes);
    });
    socket.setEncoding('utf8');
    socket.setTimeout(5_000, () => {
      reject(new Error('the agent did not close the connection'));
      socket.destroy();
    });
    socket.on('data', (chunk: string) => {
      text += chunk;
    });
    socket.on('end', () => {
      resolve(text);
    });
    socket.on('error', reject);
  });
}
