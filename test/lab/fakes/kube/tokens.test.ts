import assert from 'node:assert/strict';
import { createPublicKey, verify } from 'node:crypto';
import { describe, it } from 'node:test';
import {
  createAccountUser,
  fakeIssuer,
  type SigningKeys,
} from '../../../../lab/fakes/kube/tokens.ts';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import {
  createPodManifest,
  createSecret,
  createServiceAccount,
} from '../../../../lab/fakes/kube/manifests.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const namespace = 'shop';
const tokenPath = '/api/v1/namespaces/shop/serviceaccounts/web/token';

interface TokenRequestSpec {
  readonly audiences?: readonly string[];
  readonly expirationSeconds?: unknown;
  readonly boundObjectRef?: Readonly<Record<string, string>>;
}

/** The fields of answers that the tests read. */
interface Review {
  readonly message?: string;
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: { readonly expirationSeconds: number; readonly audiences: readonly string[] };
  readonly status: {
    readonly token: string;
    readonly expirationTimestamp: string;
    readonly userInfo: unknown;
  };
}

async function post(
  fake: FakeKube,
  path: string,
  body: unknown,
): Promise<{ readonly status: number; readonly body: Review }> {
  const response = await fetch(fake.url + path, { method: 'POST', body: JSON.stringify(body) });
  return { status: response.status, body: (await response.json()) as Review };
}

function ask(fake: FakeKube, spec: TokenRequestSpec, path = tokenPath) {
  const kind = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest' };
  return post(fake, path, { ...kind, spec });
}

async function openWithPod(clock = new HandClock()): Promise<FakeKube> {
  const fake = await openFakeKube({ clock });
  fake.apply(createServiceAccount({ name: 'web', namespace, uid: 'account-uid' }));
  fake.apply(
    createPodManifest({
      name: 'web-1',
      namespace,
      uid: 'pod-uid',
      nodeName: 'node-a',
      ips: [],
      serviceAccount: 'web',
    }),
  );
  return fake;
}

function claimsOf(token: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as Record<
    string,
    unknown
  >;
}

const podRef = { kind: 'Pod', apiVersion: 'v1', name: 'web-1', uid: 'pod-uid' };

describe('service account tokens of the fake Kubernetes API', () => {
  it('verify with the published keys and contain subject, audience and times', async () => {
    const clock = new HandClock();
    await using fake = await openWithPod(clock);
    const { status, body } = await ask(fake, {
      audiences: ['api://AzureADTokenExchange'],
      expirationSeconds: 1200,
      boundObjectRef: podRef,
    });
    assert.equal(status, 201);
    assert.deepEqual([body.metadata.name, body.metadata.namespace], ['web', namespace]);

    const published = await fetch(`${fake.url}/openid/v1/jwks`);
    const { keys } = (await published.json()) as SigningKeys;
    assert.deepEqual({ keys }, await fake.signingKeys());
    const [header = '', payload = '', signature = ''] = body.status.token.split('.');
    const { alg, kid } = JSON.parse(Buffer.from(header, 'base64url').toString()) as {
      alg: string;
      kid: string;
    };
    assert.deepEqual([alg, kid], ['RS256', keys[0]?.kid]);
    const key = createPublicKey({ key: { ...keys[0] }, format: 'jwk' });
    const text = Buffer.from(`${header}.${payload}`);
    assert.ok(verify('sha256', text, key, Buffer.from(signature, 'base64url')));

    const { jti, ...claims } = claimsOf(body.status.token);
    assert.match(String(jti), /^[0-9a-f-]{36}$/);
    const nowSec = Math.floor(clock.wallMs() / 1000);
    assert.deepEqual(claims, {
      aud: ['api://AzureADTokenExchange'],
      exp: nowSec + 1200,
      iat: nowSec,
      nbf: nowSec,
      iss: fakeIssuer,
      sub: 'system:serviceaccount:shop:web',
      'kubernetes.io': {
        namespace,
        node: { name: 'node-a' },
        pod: { name: 'web-1', uid: 'pod-uid' },
        serviceaccount: { name: 'web', uid: 'account-uid' },
      },
    });
    assert.equal(Date.parse(body.status.expirationTimestamp), (nowSec + 1200) * 1000);
  });

  it('are by default for the API itself and one hour', async () => {
    await using fake = await openWithPod();
    const { body } = await ask(fake, {});
    const claims = claimsOf(body.status.token);
    assert.deepEqual(claims['aud'], [fakeIssuer]);
    assert.equal(Number(claims['exp']) - Number(claims['iat']), 3600);
    assert.deepEqual(claims['kubernetes.io'], {
      namespace,
      serviceaccount: { name: 'web', uid: 'account-uid' },
    });
  });

  it('live shorter than requested if the server limits them', async () => {
    await using fake = await openWithPod();
    fake.faults.maxTokenSec = 700;
    const { body } = await ask(fake, { expirationSeconds: 3600 });
    const claims = claimsOf(body.status.token);
    assert.equal(Number(claims['exp']) - Number(claims['iat']), 700);
    assert.equal(body.spec.expirationSeconds, 700);
    fake.faults.clear();
    assert.equal((await ask(fake, { expirationSeconds: 3600 })).body.spec.expirationSeconds, 3600);
  });

  const refusals: readonly [string, TokenRequestSpec, number, RegExp, string?][] = [
    ['ten minutes are the least', { expirationSeconds: 599 }, 422, /less than 10 minutes/],
    ['2^32 s are the most', { expirationSeconds: 2 ** 32 + 1 }, 422, /larger than 2\^32 seconds/],
    ['a lifetime is a number', { expirationSeconds: '3600' }, 400, /cannot be handled as a/],
    [
      'no such account',
      {},
      404,
      /^serviceaccounts "api" not found$/,
      '/api/v1/namespaces/shop/serviceaccounts/api/token',
    ],
    ['no such pod', { boundObjectRef: { ...podRef, name: 'web-2' } }, 404, /^pods "web-2" not/],
    [
      'another pod of that name',
      { boundObjectRef: { ...podRef, uid: 'older' } },
      409,
      /^Operation cannot be fulfilled on Pod "web-1": the UID .*\(older\) does not match/,
    ],
    [
      'only pods',
      { boundObjectRef: { ...podRef, kind: 'Node' } },
      400,
      /object of type \/v1, Kind=Node/,
    ],
  ];
  for (const [name, spec, status, message, path] of refusals) {
    it(`are refused with ${status}: ${name}`, async () => {
      await using fake = await openWithPod();
      const answer = await ask(fake, spec, path);
      assert.equal(answer.status, status);
      assert.match(answer.body.message ?? '', message);
    });
  }

  it('are refused to an account that is not the one of the pod', async () => {
    await using fake = await openWithPod();
    fake.apply(createServiceAccount({ name: 'api', namespace }));
    const path = '/api/v1/namespaces/shop/serviceaccounts/api/token';
    const { status, body } = await ask(fake, { boundObjectRef: podRef }, path);
    assert.equal(status, 400);
    assert.match(body.message ?? '', /different serviceaccount name/);
  });

  it('need a POST of an object for the account in the path', async () => {
    await using fake = await openWithPod();
    assert.equal((await fetch(fake.url + tokenPath)).status, 405);
    assert.equal((await post(fake, tokenPath, 7)).status, 400);
    assert.equal((await post(fake, tokenPath, { metadata: { name: 'api' } })).status, 422);
    const elsewhere = '/api/v1/namespaces/shop/pods/web-1/token';
    assert.equal((await fetch(fake.url + elsewhere, { method: 'POST' })).status, 404);
  });

  it('can fail on purpose', async () => {
    await using fake = await openWithPod();
    fake.faults.failNext(1, 403, { containing: '/token' });
    assert.equal((await ask(fake, {})).status, 403);
    assert.equal((await ask(fake, {})).status, 201);
  });
});

describe('the other authentication documents of the fake Kubernetes API', () => {
  it('the issuer is described', async () => {
    await using fake = await openFakeKube();
    const response = await fetch(`${fake.url}/.well-known/openid-configuration`);
    const { issuer, jwks_uri: keysUrl } = (await response.json()) as Record<string, unknown>;
    assert.deepEqual([issuer, keysUrl], [fakeIssuer, `${fakeIssuer}/openid/v1/jwks`]);
  });

  it('a client can request its own identity', async () => {
    await using fake = await openFakeKube();
    const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
    const before = await post(fake, path, {});
    assert.equal(before.status, 201);
    assert.deepEqual(before.body.status.userInfo, {
      username: 'kubernetes-admin',
      groups: ['system:masters', 'system:authenticated'],
    });
    fake.user = createAccountUser({
      namespace: 'kube-system',
      name: 'nmi',
      uid: 'u',
      pod: { name: 'nmi-1', uid: 'p' },
    });
    assert.deepEqual((await post(fake, path, {})).body.status.userInfo, {
      username: 'system:serviceaccount:kube-system:nmi',
      uid: 'u',
      groups: [
        'system:serviceaccounts',
        'system:serviceaccounts:kube-system',
        'system:authenticated',
      ],
      extra: {
        'authentication.kubernetes.io/pod-name': ['nmi-1'],
        'authentication.kubernetes.io/pod-uid': ['p'],
      },
    });
    assert.equal((await fetch(fake.url + path)).status, 405);
  });

  it('Secrets and ServiceAccounts are objects like others', async () => {
    await using fake = await openFakeKube();
    fake.apply(createSecret({ name: 'web', namespace, data: { clientSecret: 'äb' } }));
    fake.apply(createServiceAccount({ name: 'web', namespace, annotations: { a: 'b' } }));
    const secret = await fetch(`${fake.url}/api/v1/namespaces/shop/secrets/web`);
    const { data } = (await secret.json()) as { data: Record<string, string> };
    assert.deepEqual(data, { clientSecret: 'w6Ri' });
    const accounts = await fetch(`${fake.url}/api/v1/serviceaccounts`);
    const { items } = (await accounts.json()) as {
      items: { metadata: { annotations: unknown } }[];
    };
    assert.deepEqual(
      items.map(({ metadata }) => metadata.annotations),
      [{ a: 'b' }],
    );
    assert.equal((await fetch(`${fake.url}/api/v1/namespaces/shop/secrets/x`)).status, 404);
  });
});
