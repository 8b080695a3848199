import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import fc from 'fast-check';

import {
  openFakeImds,
  type FakeImds,
  type FakeImdsOptions,
} from '../../../../../lab/fakes/imds/fake-imds.ts';
import { parseImdsTarget } from '../../../../../lab/fakes/imds/target.ts';
import { createLabIdentity, createNodeIdentity } from '../../../../../lab/fakes/identity.ts';
import { decodeLabToken } from '../../../../../lab/fakes/token.ts';
import {
  findHeader,
  type PodAnswer,
  type PodRequest,
} from '../../../../../lab/pods/pod-protocol.ts';
import { openPodSession } from '../../../../../lab/pods/pod-session.ts';

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
  const without = (name: string) => refusal(`Required query variable '${name}' is missing`);
  const notFound = '{"error":"Not found"}';
  const notAllowed = '{"error":"Method not allowed"}';
  const headers = (...all: readonly string[]): Partial<PodRequest> => ({ headers: all });
  const noSelector = `${tokenPath}?api-version=2018-02-01`;
  const twice = refusal('A query variable is specified more than once');
  const forwarded = refusal('X-Forwarded-For header is not allowed');
  const platform = '/metadata/identity/getplatformmetadata?cred-api-version=2.0';
  const cases: readonly [string, string, Partial<PodRequest>, number, string][] = [
    ['no Metadata header', tokenPath, headers(), 400, missing],
    ['Metadata: True', valid, headers('Metadata', 'True'), 400, missing],
    ['two headers', valid, headers('Metadata', 'true', 'metadata', 'true'), 400, missing],
    ['XFF', valid, headers('Metadata', 'true', 'x-forwarded-for', ''), 400, forwarded],
    ['no resource', noSelector, {}, 400, without('resource')],
    ['an empty resource', `${noSelector}&resource=`, {}, 400, without('resource')],
    ['no api-version', `${tokenPath}?resource=x`, {}, 400, without('api-version')],
    ['a parameter twice', `${valid}&resource=y`, {}, 400, twice],
    [
      'two selectors',
      `${valid}&client_id=a&msi_res_id=b`,
      {},
      ...([400, refusal('More than one identity is specified')] as const),
    ],
    ['an unknown client id', `${valid}&client_id=x`, {}, 400, refusal('Identity not found')],
    ['POST', valid, { method: 'POST', body: 'resource=x' }, 405, notAllowed],
    ['PUT without a header', valid, { method: 'PUT', headers: [] }, 405, notAllowed],
    ['another path', '/latest/meta-data/', {}, 404, notFound],
    ['the platform metadata of version 2', platform, headers(), 404, notFound],
    ['identity in upper case', valid.replace('identity', 'Identity'), {}, 404, notFound],
  ];
  for (const [name, target, request, status, body] of cases) {
    test(name, async () => {
      await using testBed = await openTestBed();
      assert.deepEqual(read(await testBed.ask(target, request)), { status, body });
      assert.equal(testBed.imds.requests()[0]?.identity, undefined);
    });
  }

  test('several identities and none named is ambiguous without a system-assigned one', async () => {
    await using testBed = await openTestBed({ systemAssigned: undefined });
    const { status, body } = read(await testBed.ask(valid));
    assert.equal(status, 400);
    assert.match(body, /Multiple user assigned identities exist, please specify the clientId/);
    testBed.imds.unassign(api.clientId.toUpperCase());
    assert.equal(identityOf(await testBed.ask(valid)), 'web');
    testBed.imds.unassign(web.clientId);
    assert.equal(read(await testBed.ask(valid)).body, refusal('Identity not found'));
    testBed.imds.setSystemAssigned(node);
    assert.equal(identityOf(await testBed.ask(valid)), 'node');
  });
});

describe('fake IMDS: answers', () => {
  test('a token has string values under alphabetical keys', async () => {
    await using testBed = await openTestBed();
    const answer = await testBed.ask(`${valid}&client_id=${web.clientId}`);
    const { access_token: token = '', ...rest } = readToken(answer);
    const claims = decodeLabToken(token);
    assert.equal(claims?.lab_identity, 'web');
    const { exp, nbf } = claims;
    assert.deepEqual(Object.entries(rest), [
      ['client_id', web.clientId],
      ['expires_in', '86400'],
      ['expires_on', String(exp)],
      ['ext_expires_in', '86400'],
      ['not_before', String(nbf)],
      ['resource', 'https://vault.azure.net'],
      ['token_type', 'Bearer'],
    ]);
    assert.match(findHeader(answer, 'server') ?? '', /^IMDS\/150\.870\.65\.\d+$/);
  });

  test('an identity is found by each of its ids, in any case; other parameters are ignored', async () => {
    await using testBed = await openTestBed();
    for (const [selector, name] of [
      [`client_id=${web.clientId.toUpperCase()}`, 'web'],
      [`object_id=${web.objectId}`, 'web'],
      [`msi_res_id=${web.resourceId}`, 'web'],
      [`mi_res_id=${encodeURIComponent(web.resourceId.toUpperCase())}`, 'web'],
      ['client_id=&xms_cc=CP1', 'node'],
    ] as const) {
      assert.equal(identityOf(await testBed.ask(`${valid}&${selector}`)), name, selector);
    }
  });

  test('other documents need an api-version, the header and GET', async () => {
    await using testBed = await openTestBed();
    const newest = '?api-version=2021-02-01';
    const versions = read(await testBed.ask('/metadata/versions'));
    assert.match(versions.body, /^\{"apiVersions":\["2017-03-01",/);
    for (const path of [
      ...['/metadata/attested/document', '/metadata/scheduledevents', '/metadata/loadbalancer'],
      ...['/metadata/identity/info', '/metadata/instance'],
    ]) {
      assert.equal(read(await testBed.ask(path)).status, 400, path);
      assert.equal(read(await testBed.ask(path + newest)).status, 200, path);
      assert.equal(read(await testBed.ask(path + newest, { headers: [] })).status, 400, path);
      assert.equal(read(await testBed.ask(path + newest, { method: 'POST' })).status, 405, path);
    }
    const instance = `/metadata/instance${newest}&format=text`;
    assert.equal(read(await testBed.ask(instance)).body, 'compute/\nnetwork/');
    const size = instance.replace('?', '/compute/vmSize?');
    assert.equal(read(await testBed.ask(size)).body, 'Standard_D2s_v5');
    assert.equal(read(await testBed.ask(size.replace('vmSize', 'toString'))).status, 404);
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
    const seen = testBed.imds
      .requests()
      .map(({ from, identity, status, leaked }) => [from, identity, status, leaked]);
    assert.deepEqual(seen, [
      [nodeIp, 'web', 200, false],
      [podIp, undefined, 200, false],
      [podIp, undefined, 400, false],
      [podIp, 'node', 200, true],
    ]);
    testBed.imds.clear();
    assert.deepEqual([testBed.imds.requests(), testBed.imds.leaks()], [[], 1]);
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
    assert.deepEqual([seen?.target, seen?.headers['metadata']], [target, 'true']);
    assert.ok(!JSON.stringify(seen).includes('secret'));
  });

  test('requests above 5 at once and 20 a second are throttled', async () => {
    await using testBed = await openTestBed({ tokenLimits: { perSec: 20, concurrent: 5 } });
    const status = async (): Promise<number> => read(await testBed.ask(valid)).status;
    await testBed.imds.setFaults({ delayMs: 60 });
    const burst = await Promise.all(Array.from({ length: 8 }, status));
    assert.equal(burst.filter((each) => each === 429).length, 3);
    assert.equal(testBed.imds.peakTokenConcurrency(), 8);
    await testBed.imds.setFaults({});
    const statuses = new Set<number>();
    for (let count = 0; count < 17; count += 1) statuses.add(await status());
    assert.deepEqual(statuses, new Set([200, 429]));
  });
});

describe('the target as a tolerant back end reads it', () => {
  for (const [target, isToken] of [
    [tokenPath, true],
    [`${tokenPath}/`, true],
    [`/${tokenPath}`, true],
    ['/METADATA/identity/oauth2/token', true],
    ['/metadata/identity\\oauth2\\token', true],
    ['\\metadata\\identity\\oauth2\\token', true],
    ['/metadata/identity%5coauth2%5Ctoken', true],
    ['/metadata/identity%255coauth2%252ftoken', true],
    ['/metadata/%69dentity/./oauth2/x/../token', true],
    ['/metadata/instance/..%2fidentity/oauth2/token', true],
    ['http://169.254.169.254/metadata/identity/oauth2/token', true],
    ['HTTP://169.254.169.254:80/metadata/identity/oauth2/token#part', true],
    ['/metadata/Identity/oauth2/token', false],
    ['/metadata/identity/oauth2/tokens', false],
    ['/', false],
  ] as const) {
    test(`${target} is ${isToken ? '' : 'not '}the token path`, () => {
      assert.equal(parseImdsTarget(`${target}?resource=x`).path === tokenPath, isToken);
    });
  }

  test('the query keeps order and duplicates, and is decoded once', () => {
    const { query } = parseImdsTarget('/x?resource=https%3A%2F%2Fa%252Fb&a&A=1+2&a=https://x/?y');
    assert.deepEqual(
      query.map((pair) => pair.join('=')),
      ['resource=https://a%2Fb', 'a=', 'A=1 2', 'a=https://x/?y'],
    );
  });

  test('any text can be normalized', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary-ascii' }), (any) => {
        const { path } = parseImdsTarget(any);
        assert.ok(path.startsWith('/') && (path === '/' || !path.endsWith('/')), path);
        assert.ok(!path.includes('\\') && !path.includes('//'), path);
      }),
    );
  });
});
