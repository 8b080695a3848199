import assert from 'node:assert/strict';
import { connect } from 'node:net';
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
import { ask, tokenTarget } from '../support/ask.ts';
import {
  bindPodToA,
  identityA,
  identityB,
  idsOf,
  openLoopbackAgent,
  type LoopbackAgent,
} from '../support/loopback-agent.ts';

const headerMissing =
  '{"error":"invalid_request","error_description":"Required metadata header not specified"}';
const guid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

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

/** Addresses of further pods with identity a. */
const sharers = ['127.0.0.15', '127.0.0.16', '127.0.0.17'];

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
        ['unlabelled', '127.0.0.13', undefined],
        ['excepted', '127.0.0.14', undefined],
        ...sharers.map((address) => [`sharer-${address}`, address, 'app'] as const),
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

  it('gives the bound identity, in the wire shape of the real service', async () => {
    const reply = await ask(pod, tokenTarget);
    assert.equal(reply.status, 200);
    assert.equal(reply.identity, 'a');
    const { body } = reply;
    assert.ok(Object.values(body).every((value) => typeof value === 'string' && value !== ''));
    assert.deepEqual(Object.keys(body), [
      ...['access_token', 'client_id', 'expires_in', 'expires_on', 'ext_expires_in'],
      ...['not_before', 'resource', 'token_type'],
    ]);
    assert.equal(body['resource'], 'https://vault.azure.net');
    assert.equal(body['token_type'], 'Bearer');
    assert.equal(body['client_id'], identityA.clientId);
    const leftS = Number(body['expires_on']) - Date.now() / 1000;
    assert.ok(Math.abs(leftS - Number(body['expires_in'])) <= 2);
    assert.ok(reply.headers.get('server')?.includes('IMDS'));
    assert.match(reply.headers.get('x-ms-request-id') ?? '', guid);
    assert.ok(reply.headers.has('date'));
    assert.equal(reply.headers.has('transfer-encoding'), false);
    assert.equal(reply.headers.get('content-length'), String(Buffer.byteLength(reply.text)));
  });

  it('answers the probe without the header with the exact 88 bytes, in any state', async () => {
    const unbound = agent.client('127.0.0.99');
    for (const [client, target] of [
      [pod, '/metadata/identity/oauth2/token'],
      [pod, tokenTarget],
      [pod, withQuery('msi-res-id=x')],
      [pod, withQuery('resource=twice')],
      [unbound, tokenTarget],
    ] as const) {
      const reply = await ask(client, target, { headers: ['Accept', 'application/json'] });
      assert.equal(reply.status, 400);
      assert.equal(reply.text, headerMissing);
      assert.equal(reply.headers.get('content-type'), 'application/json; charset=utf-8');
      assert.equal(reply.headers.get('content-length'), '88');
      assert.equal(reply.headers.has('retry-after'), false);
    }
  });

  it('accepts the header name in any case and its value exactly, once', async () => {
    assert.equal((await ask(pod, tokenTarget, { headers: ['metadata', 'true'] })).status, 200);
    for (const headers of [
      ['Metadata', 'True'],
      ['Metadata', 'TRUE'],
      ['Metadata', '1'],
      ['Metadata', ''],
      ['Metadata', 'true,true'],
      ['Metadata', 'true', 'Metadata', 'true'],
    ]) {
      const reply = await ask(pod, tokenTarget, { headers });
      assert.equal(reply.text, headerMissing, headers.join());
    }
  });

  it('accepts extra parts that SDKs send: content type on a GET, any Accept, HTTP/1.0', async () => {
    const headers = [
      ...['Metadata', 'true', 'Accept', 'text/html, image/gif'],
      ...['Content-Type', 'application/x-www-form-urlencoded;charset=utf-8'],
    ];
    assert.equal((await ask(pod, tokenTarget, { headers })).identity, 'a');
    const old = await pod.request({
      method: 'GET',
      target: tokenTarget,
      headers: ['Metadata', 'true'],
      connection: 'new',
      timeoutMs: 5_000,
      httpVersion: '1.0',
    });
    assert.ok(old.outcome === 'answered' && old.status === 200);
  });

  it('refuses forwarded requests and other methods', async () => {
    for (const name of ['X-Forwarded-For', 'x-forwarded-for']) {
      const headers = ['Metadata', 'true', name, '10.0.0.1'];
      const reply = await ask(pod, tokenTarget, { headers });
      assert.equal(reply.status, 400);
      assertErrorBody(reply);
      assert.equal(reply.body['error'], 'invalid_request');
    }
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
      const reply = await ask(pod, tokenTarget, { method, body: 'resource=x' });
      assert.equal(reply.status, 405, method);
      assert.equal(reply.headers.get('allow'), 'GET');
      assertErrorBody(reply);
    }
    const head = await ask(pod, tokenTarget, { method: 'HEAD' });
    assert.equal(head.status, 405);
    assert.equal(head.text, '');
  });

  it('serves every spelling of the token path itself and relays none of them', async () => {
    agent.imds.clear();
    for (const target of [
      tokenTarget.replace('/metadata', '/Metadata'),
      tokenTarget.replace('token?', 'token/?'),
      `/${tokenTarget}`,
      `http://169.254.169.254${tokenTarget}`,
      tokenTarget.replace('token?', '%74oken?'),
    ]) {
      assert.equal((await ask(pod, target)).identity, 'a', target);
    }
    const query = tokenTarget.slice(tokenTarget.indexOf('?'));
    for (const path of [
      '/metadata/Identity/oauth2/token',
      '/metadata/identity\\oauth2\\token',
      '/metadata/identity%5coauth2%5ctoken',
      '/metadata/identity%2foauth2%2ftoken',
      '/metadata/identity/./oauth2/token',
      '/metadata/instance/../identity/oauth2/token',
      '/metadata/instance/..%2fidentity/oauth2/token',
      '/metadata/instance\\..\\identity\\oauth2\\token',
      '/metadata/identity/oauth2%252ftoken',
      '/metadata/identity/oauth2/tokenX',
      '/metadata/identity/getplatformmetadata',
      '/metadata/identity/issuecredential',
      '/latest/meta-data/',
      '/computeMetadata/v1/',
    ]) {
      const reply = await ask(pod, `${path}${query}`);
      assert.ok(reply.status === 400 || reply.status === 404, `${path} ${reply.status}`);
      assert.equal(reply.identity, undefined);
      assertErrorBody(reply);
    }
    const probe = await ask(pod, '/metadata/identity/getplatformmetadata?cred-api-version=2.0', {
      headers: [],
    });
    assert.equal(probe.status, 404);
    assert.equal((await ask(pod, '/latest/api/token', { method: 'PUT' })).status, 404);
    assert.deepEqual(agent.imds.requests(), []);
  });

  it('refuses bad parameters in the order of the real service', async () => {
    const path = '/metadata/identity/oauth2/token';
    const [missingVersion, missingResource, duplicate, conflict, misspelt] = await Promise.all(
      [
        `${path}?resource=r`,
        `${path}?api-version=2018-02-01`,
        withQuery('resource=r'),
        withQuery('client_id=x&msi_res_id=y'),
        withQuery('clientid=x'),
      ].map((target) => ask(pod, target)),
    );
    for (const reply of [missingVersion, missingResource, duplicate, conflict, misspelt]) {
      assert.ok(reply !== undefined);
      assert.equal(reply.status, 400);
      assertErrorBody(reply);
    }
    assert.equal(
      missingResource?.body['error_description'],
      "Required query variable 'resource' is missing (parameter_missing)",
    );
    for (const version of ['2018-02-01', '2019-08-01', '2021-12-13']) {
      const target = tokenTarget.replace('2018-02-01', version);
      assert.equal((await ask(pod, target)).status, 200);
    }
  });

  it('echoes the resource byte for byte, one upstream fetch for each spelling', async () => {
    for (const resource of [
      'https://storage.azure.com/',
      'HTTPS://Storage.azure.com',
      'api://x-y/.default',
      '00000003-0000-0000-c000-000000000000',
      'https://h/?q=%20"x"',
    ]) {
      const target = `/metadata/identity/oauth2/token?api-version=2018-02-01&resource=${encodeURIComponent(resource)}`;
      assert.equal((await ask(pod, target)).body['resource'], resource);
    }
  });

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

  it('refuses a pod without the label at once, with the fix', async () => {
    const reply = await ask(agent.client('127.0.0.13'), tokenTarget);
    assert.equal(reply.status, 400);
    assertErrorBody(reply);
    assert.match(
      String(reply.body['error_description']),
      /^Identity not found: pod default\/unlabelled has no label "aadpodidbinding"/,
    );
    assert.ok(reply.durationMs < 250);
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

  it('lets an unknown caller wait for the configured time, then answers to retry', async () => {
    const reply = await ask(agent.client('127.0.0.77'), tokenTarget);
    assert.equal(reply.status, 503);
    assert.equal(reply.headers.get('retry-after'), '1');
    assertErrorBody(reply);
    assert.ok(reply.durationMs >= 290 && reply.durationMs < 2_000);
  });

  it('fetches once for two hundred concurrent requests, and serves the rest from memory', async () => {
    const target = withQuery('').replace('vault.azure.net', 'unseen.azure.net');
    await agent.imds.setFaults({ delayMs: 50 });
    agent.imds.clear();
    // 50 of each pod: one pod may not have more fetches at once.
    const pods = [pod, ...sharers.map((ip) => agent.client(ip))];
    const asks = pods.flatMap((each) => Array.from({ length: 50 }, () => ask(each, target)));
    const replies = await Promise.all(asks);
    await agent.imds.setFaults({});
    assert.ok(replies.every((reply) => reply.identity === 'a'));
    assert.equal(agent.imds.requests().length, 1);
    assert.equal((await ask(pod, target)).identity, 'a');
    assert.equal(agent.imds.requests().length, 1);
  });

  it('keeps a connection for a hundred requests', async () => {
    for (let index = 0; index < 100; index++) {
      assert.equal((await ask(pod, tokenTarget, { connection: 'kept' })).status, 200);
    }
    await pod.closeConnection('kept');
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
  it('relays the allowed paths, refuses all others, and removes hop-by-hop headers', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    const pod = agent.client('127.0.0.11');
    const instance = await ask(pod, '/Metadata/Instance/compute?api-version=2021-02-01', {
      headers: ['Metadata', 'true', 'X-Custom', 'secret', 'Authorization', 'Bearer x'],
    });
    assert.equal(instance.status, 200);
    assert.ok(instance.text.includes('location'));
    assert.equal((await ask(pod, '/metadata/versions')).status, 200);
    const seen = agent.imds.requests().map((request) => request.target);
    assert.deepEqual(seen, [
      '/metadata/instance/compute?api-version=2021-02-01',
      '/metadata/versions',
    ]);
    const [first] = agent.imds.requests();
    assert.ok(first !== undefined);
    assert.ok(!JSON.stringify(first.headers).toLowerCase().includes('bearer x'));
    assert.ok(!('x-forwarded-for' in first.headers));
    for (const area of ['attested/document', 'scheduledevents', 'loadbalancer']) {
      const reply = await ask(pod, `/metadata/${area}?api-version=2020-10-01`);
      assert.equal(reply.status, 403);
      assertErrorBody(reply);
      assert.ok(!reply.text.includes('unreachable'));
    }
    assert.equal((await ask(pod, '/metadata/instance', { headers: [] })).text, headerMissing);
    assert.equal((await ask(pod, '/metadata/instance', { method: 'POST' })).status, 405);
    assert.equal((await ask(agent.client('127.0.0.55'), '/metadata/versions')).status, 503);
    assert.equal(agent.imds.requests().length, 2);
  });

  it('follows the flags that block and allow paths', async () => {
    await using agent = await openLoopbackAgent(
      { 'block-instance-metadata': 'true', 'allow-metadata': 'attested,scheduledevents' },
      bindPodToA,
    );
    const pod = agent.client('127.0.0.11');
    for (const target of [
      '/metadata/instance',
      '/metadata/Instance/compute',
      '//metadata/instance/',
    ]) {
      assert.equal((await ask(pod, `${target}?api-version=2021-02-01`)).status, 403);
    }
    assert.deepEqual(agent.imds.requests(), []);
    const attested = await ask(pod, '/metadata/attested/document?api-version=2020-09-01');
    assert.equal(attested.status, 200);
    const events = await ask(pod, '/metadata/scheduledevents?api-version=2020-10-01');
    assert.equal(events.status, 200);
    assert.equal((await ask(pod, '/metadata/loadbalancer')).status, 403);
  });

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
    const calm = new AbortController();
    const statuses = new Set<number>();
    // Connections beyond 64 would be closed.
    const flood = Array.from({ length: 60 }, async (_, lane) => {
      for (let turn = 0; !calm.signal.aborted; turn++) {
        const target = `/metadata/instance?api-version=2021-02-01&lane=${lane}&turn=${turn}`;
        statuses.add((await ask(agent.client('127.0.0.11'), target)).status);
        await delay(20);
      }
    });
    await eventually(() => assert.ok(statuses.has(429)));
    for (let turn = 0; turn < 3; turn++) {
      const target = `/metadata/instance?api-version=2021-02-01&quiet=${turn}`;
      const reply = await ask(agent.client('127.0.0.12'), target);
      assert.equal(reply.status, 200);
      assert.ok(reply.durationMs < 2_000, `${reply.durationMs} ms`);
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
    assert.ok(hung.durationMs < 2_000);
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

  it('answers loopback for pods of this node, in the nested shape', async () => {
    await using agent = await openLoopbackAgent({ 'enable-host-token': 'true' }, bindPodToA);
    const host = agent.client('127.0.0.1');
    const headers = ['podns', 'default', 'podname', 'p'];
    const target = '/host/token/?resource=https://vault.azure.net';
    const reply = await ask(host, target, { headers });
    assert.equal(reply.status, 200);
    assert.equal(reply.body['clientid'], identityA.clientId);
    const token = reply.body['token'] as Record<string, unknown>;
    assert.equal(token['resource'], 'https://vault.azure.net');
    assert.match(String(token['expires_on']), /^\d+$/);
    assert.equal((await ask(host, target, { headers: ['podns', 'default'] })).status, 400);
    assert.equal((await ask(host, '/host/token', { headers })).status, 400);
    const other = ['podns', 'default', 'podname', 'elsewhere'];
    assert.equal((await ask(host, target, { headers: other })).status, 503);
  });
});

describe('upstream failures', () => {
  const cases = [
    [{ fail: { status: 429 } }, 429],
    [{ fail: { status: 500 } }, 503],
    [{ fail: { status: 410 } }, 503],
    [{ fail: { status: 404 } }, 503],
    [{ hang: true }, 503],
    [{ closed: true }, 503],
  ] as const;
  for (const [faults, status] of cases) {
    it(`answers ${status} to ${JSON.stringify(faults)} and recovers`, async () => {
      await using agent = await openLoopbackAgent({}, bindPodToA, {
        tuning: { imdsTimeoutMs: 400 },
      });
      const pod = agent.client('127.0.0.11');
      await agent.imds.setFaults(faults);
      const reply = await ask(pod, tokenTarget);
      assert.equal(reply.status, status);
      assertErrorBody(reply);
      await agent.imds.setFaults({});
      if (status === 429) return;
      await delay(300);
      assert.equal((await ask(pod, tokenTarget)).identity, 'a');
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
    assert.ok(text.includes('az vmss identity') && text.includes(identityA.resourceId));
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
      { tuning: { lateObjectWaitMs: 2_000 } },
    );
    const early = ask(agent.client('127.0.0.11'), tokenTarget);
    await delay(200);
    const pod = createPodManifest({
      name: 'p',
      nodeName: 'node-1',
      ips: ['127.0.0.11'],
      binding: 'app',
    });
    agent.kube.apply(pod);
    await delay(200);
    agent.kube.apply(
      createAzureIdentityBinding({ name: 'a', azureIdentity: 'a', selector: 'app' }),
    );
    const reply = await early;
    assert.equal(reply.identity, 'a');
    assert.ok(reply.durationMs >= 390 && reply.durationMs < 1_500, String(reply.durationMs));
  });

  it('revokes a cached token at once, also during its fetch', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA, {
      tuning: { bindingGraceMs: 0 },
    });
    const pod = agent.client('127.0.0.11');
    assert.equal((await ask(pod, tokenTarget)).identity, 'a');
    await agent.imds.setFaults({ delayMs: 300 });
    const slow = ask(pod, withQuery('').replace('vault', 'other'));
    await delay(100);
    agent.kube.delete({ kind: 'AzureIdentityBinding', namespace: 'default', name: 'a' });
    const refused = await slow;
    assert.equal(refused.status, 400);
    assert.equal(refused.identity, undefined);
    assert.equal((await ask(pod, tokenTarget)).status, 400);
  });

  it('does not serve a kept-alive connection from an address that now belongs to another pod', async () => {
    await using agent = await openLoopbackAgent({}, (kube) => {
      bindPodToA(kube);
      kube.apply(createAzureIdentity({ name: 'b', ...idsOf(identityB) }));
      kube.apply(createAzureIdentityBinding({ name: 'b', azureIdentity: 'b', selector: 'other' }));
    });
    const pod = agent.client('127.0.0.11');
    assert.equal((await ask(pod, tokenTarget, { connection: 'kept' })).identity, 'a');
    agent.kube.delete({ kind: 'Pod', namespace: 'default', name: 'p' });
    agent.kube.apply(
      createPodManifest({ name: 'q', nodeName: 'node-1', ips: ['127.0.0.11'], binding: 'other' }),
    );
    await delay(200);
    const kept = await ask(pod, tokenTarget, { connection: 'kept' });
    assert.equal(kept.status, 503);
    assert.equal(kept.headers.get('connection'), 'close');
    assert.equal(kept.identity, undefined);
    assert.equal((await ask(pod, tokenTarget)).identity, 'b');
  });
});

describe('the shutdown of the agent', () => {
  it('finishes requests under way and refuses new connections', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    const pod = agent.client('127.0.0.11');
    await agent.imds.setFaults({ delayMs: 400 });
    const slow = ask(pod, tokenTarget);
    await delay(100);
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
