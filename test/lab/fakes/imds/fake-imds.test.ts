import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';

import {
  openFakeImds,
  type FakeImds,
  type FakeImdsOptions,
} from '../../../../lab/fakes/imds/fake-imds.ts';
import { createLabIdentity, createNodeIdentity } from '../../../../lab/fakes/identity.ts';
import { decodeLabToken } from '../../../../lab/fakes/token.ts';
import { findHeader, type PodAnswer, type PodRequest } from '../../../../lab/pods/pod-protocol.ts';
import { openPodSession } from '../../../../lab/pods/pod-session.ts';

const tokenPath = '/metadata/identity/oauth2/token';
const valid = `${tokenPath}?api-version=2018-02-01&resource=https://vault.azure.net`;
const web = createLabIdentity('web');
const api = createLabIdentity('api');
const node = createNodeIdentity();
const nodeIp = '127.0.0.1';
const podIp = '127.0.0.9';

interface TestBed extends AsyncDisposable {
  readonly imds: FakeImds;
  ask(target: string, more?: Partial<PodRequest> & { from?: string }): Promise<PodAnswer>;
}

async function openTestBed(options: Partial<FakeImdsOptions> = {}): Promise<TestBed> {
  const stack = new AsyncDisposableStack();
  const imds = stack.use(
    await openFakeImds({
      host: '127.0.0.1',
      port: 0,
      nodeIps: [nodeIp],
      systemAssigned: node,
      userAssigned: [web, api],
      ...options,
    }),
  );
  const sessions = new Map(
    [nodeIp, podIp].map((sourceIp) => [
      sourceIp,
      stack.use(openPodSession({ host: '127.0.0.1', port: imds.port, sourceIp })),
    ]),
  );
  return {
    imds,
    ask: (target, { from = nodeIp, ...more } = {}) => {
      const session = sessions.get(from);
      assert.ok(session !== undefined);
      return session.request({
        method: 'GET',
        target,
        headers: ['Metadata', 'true'],
        connection: 'new',
        timeoutMs: 5_000,
        ...more,
      });
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function read(answer: PodAnswer): { readonly status: number; readonly body: string } {
  assert.equal(answer.outcome, 'answered');
  return { status: answer.status, body: answer.body };
}

function readToken(answer: PodAnswer): Record<string, string> {
  const { status, body } = read(answer);
  assert.equal(status, 200, body);
  return JSON.parse(body) as Record<string, string>;
}

function identityOf(answer: PodAnswer): string | undefined {
  return decodeLabToken(readToken(answer)['access_token'] ?? '')?.lab_identity;
}

function refusal(description: string): string {
  return `{"error":"invalid_request","error_description":"${description}"}`;
}

describe('fake IMDS: refusals byte for byte', () => {
  const missing = refusal('Required metadata header not specified');
  const cases: readonly [string, string, Partial<PodRequest>, number, string][] = [
    ['no Metadata header', tokenPath, { headers: [] }, 400, missing],
    ['Metadata: True', valid, { headers: ['Metadata', 'True'] }, 400, missing],
    ['two headers', valid, { headers: ['Metadata', 'true', 'metadata', 'true'] }, 400, missing],
    [
      'X-Forwarded-For',
      valid,
      { headers: ['Metadata', 'true', 'x-forwarded-for', ''] },
      400,
      refusal('X-Forwarded-For header is not allowed'),
    ],
    [
      'no resource',
      `${tokenPath}?api-version=2018-02-01`,
      {},
      400,
      refusal("Required query variable 'resource' is missing"),
    ],
    [
      'an empty resource',
      `${tokenPath}?api-version=2018-02-01&resource=`,
      {},
      400,
      refusal("Required query variable 'resource' is missing"),
    ],
    [
      'no api-version',
      `${tokenPath}?resource=x`,
      {},
      400,
      refusal("Required query variable 'api-version' is missing"),
    ],
    [
      'a parameter twice',
      `${valid}&resource=y`,
      {},
      400,
      refusal('A query variable is specified more than once'),
    ],
    [
      'two selectors',
      `${valid}&client_id=a&msi_res_id=b`,
      {},
      400,
      refusal('More than one identity is specified'),
    ],
    ['an unknown client id', `${valid}&client_id=x`, {}, 400, refusal('Identity not found')],
    ['POST', valid, { method: 'POST', body: 'resource=x' }, 405, '{"error":"Method not allowed"}'],
    [
      'PUT without a header',
      valid,
      { method: 'PUT', headers: [] },
      405,
      '{"error":"Method not allowed"}',
    ],
    ['another path', '/latest/meta-data/', {}, 404, '{"error":"Not found"}'],
    [
      'the platform metadata of version 2',
      '/metadata/identity/getplatformmetadata?cred-api-version=2.0',
      { headers: [] },
      404,
      '{"error":"Not found"}',
    ],
    [
      'identity in upper case',
      valid.replace('identity', 'Identity'),
      {},
      404,
      '{"error":"Not found"}',
    ],
  ];
  for (const [name, target, request, status, body] of cases) {
    test(name, async () => {
      await using testBed = await openTestBed();
      assert.deepEqual(read(await testBed.ask(target, request)), { status, body });
      assert.equal(testBed.imds.requests()[0]?.identity, undefined);
    });
  }

  test('the missing header is answered in exactly 88 bytes of JSON', async () => {
    await using testBed = await openTestBed();
    const answer = await testBed.ask(tokenPath, { headers: [] });
    assert.equal(Buffer.byteLength(read(answer).body), 88);
    assert.equal(findHeader(answer, 'content-length'), '88');
    assert.equal(findHeader(answer, 'content-type'), 'application/json; charset=utf-8');
  });

  test('several identities and none named is ambiguous without a system-assigned one', async () => {
    await using testBed = await openTestBed({ systemAssigned: undefined });
    assert.deepEqual(read(await testBed.ask(valid)), {
      status: 400,
      body: refusal(
        'Multiple user assigned identities exist, please specify the clientId / resourceId of ' +
          'the identity in the token request',
      ),
    });
    testBed.imds.unassign(api.clientId.toUpperCase());
    assert.equal(identityOf(await testBed.ask(valid)), 'web');
    testBed.imds.unassign(web.clientId);
    assert.equal(read(await testBed.ask(valid)).body, refusal('Identity not found'));
    testBed.imds.setSystemAssigned(node);
    assert.equal(identityOf(await testBed.ask(valid)), 'node');
  });
});

describe('fake IMDS: tokens', () => {
  test('the body has string values under alphabetical keys, and the headers of the real one', async () => {
    await using testBed = await openTestBed();
    const answer = await testBed.ask(`${valid}&client_id=${web.clientId}`);
    const token = readToken(answer);
    assert.deepEqual(Object.keys(token), [
      'access_token',
      'client_id',
      'expires_in',
      'expires_on',
      'ext_expires_in',
      'not_before',
      'resource',
      'token_type',
    ]);
    assert.ok(Object.values(token).every((value) => typeof value === 'string' && value !== ''));
    const claims = decodeLabToken(token['access_token'] ?? '');
    assert.equal(claims?.lab_identity, 'web');
    assert.equal(claims.aud, 'https://vault.azure.net');
    assert.equal(token['expires_on'], String(claims.exp));
    assert.equal(token['not_before'], String(claims.nbf));
    assert.equal(token['expires_in'], '86400');
    assert.equal(token['token_type'], 'Bearer');
    assert.equal(findHeader(answer, 'content-type'), 'application/json; charset=utf-8');
    assert.match(findHeader(answer, 'server') ?? '', /^IMDS\/150\.870\.65\.\d+$/);
    assert.match(findHeader(answer, 'x-ms-request-id') ?? '', /^[0-9a-f-]{36}$/);
    assert.ok(findHeader(answer, 'date') !== undefined);
    assert.equal(findHeader(answer, 'transfer-encoding'), undefined);
  });

  for (const [name, selector] of [
    ['client_id', web.clientId.toUpperCase()],
    ['object_id', web.objectId],
    ['msi_res_id', web.resourceId],
    ['mi_res_id', encodeURIComponent(web.resourceId.toUpperCase())],
  ]) {
    test(`an identity is found by ${String(name)}, in any case`, async () => {
      await using testBed = await openTestBed();
      const answer = await testBed.ask(`${valid}&${String(name)}=${String(selector)}`);
      assert.equal(identityOf(answer), 'web');
      const keys = Object.keys(readToken(answer));
      assert.deepEqual(keys, keys.toSorted());
    });
  }

  test('an empty selector is ignored, and so are other parameters', async () => {
    await using testBed = await openTestBed();
    assert.equal(identityOf(await testBed.ask(`${valid}&client_id=&xms_cc=CP1`)), 'node');
  });

  test('the header name has any case, the target any form', async () => {
    await using testBed = await openTestBed();
    for (const target of [
      valid,
      `http://169.254.169.254${valid}`,
      `/${valid}`,
      valid.replace('token?', 'token/?'),
      valid.replace('/metadata', '/METADATA'),
      valid.replace('identity/oauth2/token', 'identity\\oauth2\\token'),
      valid.replace('identity/oauth2', 'identity%5coauth2'),
    ]) {
      const answer = await testBed.ask(target, { headers: ['metadata', 'true'] });
      assert.equal(identityOf(answer), 'node', target);
    }
  });
});

describe('fake IMDS: other documents', () => {
  const newest = '?api-version=2021-02-01';
  test('the instance document is a tree with leaves that are returned as text', async () => {
    await using testBed = await openTestBed();
    const whole = read(await testBed.ask(`/metadata/instance${newest}`));
    const { compute } = JSON.parse(whole.body) as { compute: Record<string, string> };
    assert.equal(compute['location'], 'westeurope');
    const part = read(await testBed.ask(`/metadata/instance/compute${newest}`));
    assert.deepEqual(JSON.parse(part.body), compute);
    const leaf = await testBed.ask(`/metadata/instance/compute/vmSize${newest}&format=text`);
    assert.equal(read(leaf).body, 'Standard_D2s_v5');
    assert.equal(read(await testBed.ask(`/metadata/instance/compute/vmSize${newest}`)).status, 400);
    assert.equal(read(await testBed.ask(`/metadata/instance/toString${newest}`)).status, 404);
    const list = read(await testBed.ask(`/metadata/instance${newest}&format=text`));
    assert.equal(list.body, 'compute/\nnetwork/');
  });

  test('a missing api-version is answered with the newest ones', async () => {
    await using testBed = await openTestBed();
    const { status, body } = read(await testBed.ask('/metadata/instance'));
    assert.equal(status, 400);
    assert.equal(
      body,
      '{"error":"Bad request. api-version was not specified in the request. For more information ' +
        'refer to aka.ms/azureimds","newest-versions":["2023-07-01","2021-12-13","2021-11-15"]}',
    );
    assert.equal(read(await testBed.ask('/metadata/instance?api-version=1')).status, 400);
  });

  test('the versions need no api-version, the rest does', async () => {
    await using testBed = await openTestBed();
    assert.match(
      read(await testBed.ask('/metadata/versions')).body,
      /^\{"apiVersions":\["2017-03-01",/,
    );
    for (const path of [
      '/metadata/attested/document',
      '/metadata/scheduledevents',
      '/metadata/loadbalancer',
      '/metadata/identity/info',
    ]) {
      assert.equal(read(await testBed.ask(path)).status, 400, path);
      assert.equal(read(await testBed.ask(path + newest)).status, 200, path);
      assert.equal(read(await testBed.ask(path + newest, { headers: [] })).status, 400, path);
      assert.equal(read(await testBed.ask(path + newest, { method: 'POST' })).status, 405, path);
    }
  });
});

describe('fake IMDS: its records', () => {
  test('a token for an address other than the node’s is a leak, permanently', async () => {
    await using testBed = await openTestBed();
    await testBed.ask(`${valid}&client_id=${web.clientId}`);
    await testBed.ask('/metadata/versions', { from: podIp });
    await testBed.ask(tokenPath, { from: podIp });
    assert.equal(testBed.imds.leaks(), 0);
    await testBed.ask(valid.replaceAll('/', '\\').replace('\\', '/'), { from: podIp });
    assert.equal(testBed.imds.leaks(), 1);
    const seen = testBed.imds.requests().map(({ from, identity, status, leaked }) => {
      return [from, identity, status, leaked];
    });
    assert.deepEqual(seen, [
      [nodeIp, 'web', 200, false],
      [podIp, undefined, 200, false],
      [podIp, undefined, 400, false],
      [podIp, 'node', 200, true],
    ]);
    testBed.imds.clear();
    assert.deepEqual(testBed.imds.requests(), []);
    assert.equal(testBed.imds.leaks(), 1);
  });

  test('every pipelined request is answered, and each token is a leak', async () => {
    await using testBed = await openTestBed();
    const socket = connect({ host: '127.0.0.1', port: testBed.imds.port, localAddress: podIp });
    const head = `GET ${valid} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n`;
    socket.end(`${head}\r\n${head}\r\n${head}Connection: close\r\n\r\n`);
    const answered = await text(socket);
    assert.equal(answered.match(/HTTP\/1\.1 200 OK/g)?.length, 3);
    assert.equal(testBed.imds.leaks(), 3);
  });

  test('a request is recorded with its target and headers, without credentials', async () => {
    await using testBed = await openTestBed();
    const target = '/metadata/versions?x=%20#y';
    await testBed.ask(target, { headers: ['METADATA', 'true', 'Authorization', 'Bearer secret'] });
    const [seen] = testBed.imds.requests();
    assert.equal(seen?.target, target);
    assert.equal(seen.headers['metadata'], 'true');
    assert.ok(!JSON.stringify(seen).includes('secret'));
  });
});

describe('fake IMDS: its limits', () => {
  test('throttle what is above what is above 5 at once and 20 a second', async () => {
    await using testBed = await openTestBed({ tokenLimits: { perSec: 20, concurrent: 5 } });
    await testBed.imds.setFaults({ delayMs: 60 });
    const burst = await Promise.all(
      Array.from({ length: 8 }, async () => read(await testBed.ask(valid)).status),
    );
    assert.equal(burst.filter((status) => status === 429).length, 3);
    assert.equal(testBed.imds.peakTokenConcurrency(), 8);
    await testBed.imds.setFaults({});
    const statuses: number[] = [];
    for (let count = 0; count < 17; count += 1)
      statuses.push(read(await testBed.ask(valid)).status);
    assert.ok(statuses.includes(200) && statuses.includes(429), statuses.join());
    testBed.imds.clear();
    assert.equal(testBed.imds.peakTokenConcurrency(), 0);
  });
});
