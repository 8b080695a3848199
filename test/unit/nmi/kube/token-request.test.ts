import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { asRecord, parseRecord } from '../../../../src/base/json-value.ts';
import {
  requestServiceAccountToken,
  serviceAccountPath,
  type JsonPoster,
  type ServiceAccountTokenRequest,
} from '../../../../src/nmi/kube/accounts/token-request.ts';
import { clientOf, eventually, rawPod } from './kube-test-bed.ts';

const audience = 'api://AzureADTokenExchange';
const asked: ServiceAccountTokenRequest = {
  serviceAccount: { namespace: 'default', name: 'demo' },
  audience,
  expirationSeconds: 3600,
};

function populate(fake: FakeKube): { readonly name: string; readonly uid: string } {
  for (const name of ['demo', 'other']) {
    fake.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name } });
  }
  return { name: 'one', uid: fake.apply(rawPod('one')).metadata.uid! };
}

function claimsOf(token: string): Readonly<Record<string, unknown>> {
  const [, payload = ''] = token.split('.');
  return parseRecord(Buffer.from(payload, 'base64url').toString('utf8')) ?? {};
}

function answering(body: unknown): JsonPoster {
  return { postJson: () => Promise.resolve(body) };
}

describe('a token of a service account', () => {
  it('is for the audience, bound to the pod, and expires when the server says so', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const boundTo = populate(fake);
    const outcome = await requestServiceAccountToken(client, { ...asked, boundTo });
    assert.ok(outcome.kind === 'ok', outcome.kind);
    const claims = claimsOf(outcome.token);
    assert.deepEqual(claims['aud'], [audience]);
    assert.equal(claims['sub'], 'system:serviceaccount:default:demo');
    assert.deepEqual(asRecord(claims['kubernetes.io'])?.['pod'], boundTo);
    assert.equal(outcome.expiresAtWallMs, Number(claims['exp']) * 1000);
    assert.equal(outcome.lifeMs, 3_600_000);
    assert.deepEqual(
      fake.requests.map(({ method, url }) => `${method} ${url}`),
      ['POST /api/v1/namespaces/default/serviceaccounts/demo/token'],
    );
  });

  it('has the life that the server grants, even a short one', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    populate(fake);
    fake.faults.maxTokenSec = 700;
    const outcome = await requestServiceAccountToken(client, asked);
    assert.ok(outcome.kind === 'ok');
    assert.equal(outcome.lifeMs, 700_000);
    assert.equal(outcome.expiresAtWallMs, Number(claimsOf(outcome.token)['exp']) * 1000);
  });

  it('is bound only to name and uid of the requesting pod', async () => {
    let posted: unknown;
    const client: JsonPoster = {
      postJson: (_path, body) => {
        posted = body;
        return Promise.resolve({});
      },
    };
    const pod = { name: 'one', uid: 'u-1', labels: { secret: 'label' } };
    await requestServiceAccountToken(client, { ...asked, boundTo: pod });
    assert.deepEqual(asRecord(asRecord(posted)?.['spec'])?.['boundObjectRef'], {
      apiVersion: 'v1',
      kind: 'Pod',
      name: 'one',
      uid: 'u-1',
    });
  });
});

describe('a token of a service account is not issued', () => {
  it('for an account or a pod that does not exist: missing', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const pod = populate(fake);
    const serviceAccount = { namespace: 'default', name: 'nobody' };
    assert.deepEqual(await requestServiceAccountToken(client, { ...asked, serviceAccount }), {
      kind: 'missing',
      said: 'serviceaccounts "nobody" not found',
    });
    const boundTo = { ...pod, name: 'gone' };
    assert.deepEqual(await requestServiceAccountToken(client, { ...asked, boundTo }), {
      kind: 'missing',
      said: 'pods "gone" not found',
    });
  });

  it('for a pod that was created anew, under whatever account: pod_replaced', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const pod = populate(fake);
    const anew = { ...asked, boundTo: { ...pod, uid: 'another' } };
    assert.equal((await requestServiceAccountToken(client, anew)).kind, 'pod_replaced');
    const serviceAccount = { namespace: 'default', name: 'other' };
    const moved = { ...asked, serviceAccount, boundTo: pod };
    assert.equal((await requestServiceAccountToken(client, moved)).kind, 'pod_replaced');
  });

  it('for a request that the server rejects: refused', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    populate(fake);
    const outcome = await requestServiceAccountToken(client, { ...asked, expirationSeconds: 10 });
    assert.ok(outcome.kind === 'refused');
    assert.match(outcome.said, /less than 10 minutes/);
  });

  it('without the permission: forbidden, with the text of the server', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.faults.failNext(1, 403);
    assert.deepEqual(await requestServiceAccountToken(client, asked), {
      kind: 'forbidden',
      said: 'failed on purpose',
    });
  });

  it('by a failing server: unavailable, with its wait', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const expected = [
      [401, 'UNAUTHORIZED'],
      [429, 'THROTTLED'],
      [500, 'status 500'],
      [503, 'status 503'],
    ] as const;
    for (const [status, problem] of expected) {
      fake.faults.failNext(1, status, { retryAfterSec: 7 });
      assert.deepEqual(await requestServiceAccountToken(client, asked), {
        kind: 'unavailable',
        problem,
        retryAfterMs: 7000,
      });
    }
    fake.faults.hang = true;
    const late = await requestServiceAccountToken(client, asked, { timeoutMs: 20 });
    assert.ok(late.kind === 'unavailable');
    assert.equal(late.problem, 'TIMEOUT');
  });

  it('by an answer with other contents: unavailable', async () => {
    const status = { token: 'a.b.c', expirationTimestamp: '2026-01-01T00:00:00Z' };
    const whole = await requestServiceAccountToken(answering({ status }), asked);
    assert.equal(whole.kind, 'ok');
    for (const body of [
      undefined,
      [],
      {},
      { status: { ...status, token: '' } },
      { status: { ...status, token: 'a.b.c\r\nX: y' } },
      { status: { ...status, token: 'opaque' } },
      { status: { ...status, expirationTimestamp: 'later' } },
      { status: { token: 'a.b.c' } },
    ]) {
      const outcome = await requestServiceAccountToken(answering(body), asked);
      assert.ok(outcome.kind === 'unavailable', JSON.stringify(body));
      assert.equal(outcome.problem, 'MALFORMED');
    }
  });

  it('to a caller that gives up: rejects with the reason', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.faults.hang = true;
    const stop = new AbortController();
    const call = requestServiceAccountToken(client, asked, { signal: stop.signal });
    await eventually('the request came in', () => fake.requests.length === 1);
    stop.abort(new Error('enough'));
    await assert.rejects(call, /^Error: enough$/);
  });

  it('for an impossible name, and nothing is requested', async () => {
    const paths: string[] = [];
    const client: JsonPoster = {
      postJson: (path) => {
        paths.push(path);
        return Promise.resolve({});
      },
    };
    const anyName = fc.oneof(
      fc.string(),
      fc.string({ unit: fc.constantFrom('a', 'Z', '0', '-', '.', '/', '%', '?', '\n', '#') }),
      fc.constantFrom('..', 'a/../b', 'a%2fb', 'a'.repeat(64), 'a'.repeat(254), 'a.b'),
    );
    await fc.assert(
      fc.asyncProperty(anyName, anyName, async (namespace, name) => {
        paths.length = 0;
        const serviceAccount = { namespace, name };
        const outcome = await requestServiceAccountToken(client, { ...asked, serviceAccount });
        const [path] = paths;
        if (path === undefined) {
          assert.deepEqual(outcome, { kind: 'missing', said: '' });
          return;
        }
        assert.equal(path, `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`);
        assert.equal(new URL(path, 'http://server.example').pathname, path);
        assert.match(namespace, /^[a-z0-9-]{1,63}$/);
        assert.match(name, /^[a-z0-9.-]{1,253}$/);
      }),
    );
    const long = { namespace: 'a'.repeat(63), name: `${'b'.repeat(63)}.c` };
    paths.length = 0;
    await requestServiceAccountToken(client, { ...asked, serviceAccount: long });
    assert.equal(paths.length, 1);
  });
});

describe('the path of a service account', () => {
  it('has its namespace and its name', () => {
    assert.equal(
      serviceAccountPath({ namespace: 'ns', name: 'robot.1' }),
      '/api/v1/namespaces/ns/serviceaccounts/robot.1',
    );
  });

  it('is missing for a name that could lead to another path', () => {
    for (const [namespace, name] of [
      ['ns', '../../secrets/x'],
      ['ns', ''],
      ['ns', 'a/b'],
      ['ns', 'A'],
      ['../x', 'robot'],
      ['n.s', 'robot'],
      ['', 'robot'],
    ] as const) {
      assert.equal(serviceAccountPath({ namespace, name }), undefined, `${namespace} ${name}`);
    }
  });
});
