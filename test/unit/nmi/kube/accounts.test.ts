import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import type { FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { createAccountUser } from '../../../../lab/fakes/kube/tokens.ts';
import { asRecord, parseRecord } from '../../../../src/base/json-value.ts';
import { createOwnAccount } from '../../../../src/nmi/kube/accounts/own-account.ts';
import { createSecretReader } from '../../../../src/nmi/kube/accounts/secrets.ts';
import {
  createServiceAccounts,
  type ServiceAccountRead,
  type ServiceAccountsOptions,
} from '../../../../src/nmi/kube/accounts/service-accounts.ts';
import { requestServiceAccountToken } from '../../../../src/nmi/kube/accounts/token-request.ts';
import { malformed } from '../../../../src/nmi/kube/api/call-outcome.ts';
import type { JsonReader, KubeClient } from '../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { eventually, itOnKube, rawPod } from './kube-test-bed.ts';

const secMs = 1_000;
const minuteMs = 60 * secMs;
const demo = { namespace: 'default', name: 'demo' };

/** A client that answers each request with `body`. */
function answering(body: unknown) {
  const paths: string[] = [];
  const accepted: (string | undefined)[] = [];
  const posted: unknown[] = [];
  const client = {
    getJson: (path: string, options?: { readonly accept?: string }) => {
      paths.push(path);
      accepted.push(options?.accept);
      return Promise.resolve(body);
    },
    postJson: (path: string, sent: unknown) => {
      paths.push(path);
      posted.push(sent);
      return Promise.resolve(body);
    },
  } as unknown as KubeClient;
  return { client, paths, accepted, posted };
}

function requestsOf(fake: FakeKube): readonly string[] {
  return fake.requests.map(({ method, url }) => `${method} ${url}`);
}

describe("the agent's own account", () => {
  const account = { namespace: 'kube-system', name: 'nmi' };

  itOnKube('is that of its token, with the pod that the token is bound to', async (kube) => {
    const { fake, client } = kube;
    const pod = { name: 'nmi-x7k2p', uid: 'pod-uid' };
    const user = createAccountUser({ ...account, pod });
    const podName = 'authentication.kubernetes.io/pod-name';
    const podUid = 'authentication.kubernetes.io/pod-uid';
    for (const [extra, boundTo] of [
      [user.extra, pod],
      [{}, undefined],
      [{ [podName]: ['x'] }, undefined],
      [{ [podName]: ['x'], [podUid]: [''] }, undefined],
      [{ [podName]: ['x', 'y'], [podUid]: ['u'] }, undefined],
    ] as const) {
      fake.user = { ...user, ...(extra && { extra }) };
      const expected = { kind: 'ok', serviceAccount: account, pod: boundTo };
      assert.deepEqual(await createOwnAccount({ client }).get(), expected);
    }
  });

  itOnKube('is missing for a user that is no service account', async ({ fake, client }) => {
    for (const username of [
      'kubernetes-admin',
      'system:node:node-a',
      'system:serviceaccount:only',
      'system:serviceaccount:a:b:c',
    ]) {
      fake.user = { username, groups: [] };
      const expected = { kind: 'no_service_account', username };
      assert.deepEqual(await createOwnAccount({ client }).get(), expected);
    }
    fake.user = { username: '', groups: [] };
    assert.equal((await createOwnAccount({ client }).get()).kind, 'unavailable');
  });

  itOnKube('is requested until it is known, once for all callers', async ({ fake, client }) => {
    fake.user = createAccountUser(account);
    const own = createOwnAccount({ client });
    fake.faults.failNext(1, 503);
    const unavailable = { kind: 'unavailable', problem: 'status 503', retryAfterMs: undefined };
    assert.deepEqual(await own.get(), unavailable);
    fake.faults.failNext(1, 403);
    assert.deepEqual(await own.get(), { kind: 'forbidden', said: 'failed on purpose' });
    const stop = new AbortController();
    const given = own.get(stop.signal);
    stop.abort(new Error('enough'));
    await assert.rejects(given, /^Error: enough$/);
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => own.get()));
    assert.ok(outcomes.every(({ kind }) => kind === 'ok'));
    await own.get();
    assert.equal(fake.requests.length, 3);
  });
});

describe('a Secret', () => {
  const secret = { namespace: 'default', name: 'sp.demo' };
  const put = (fake: FakeKube, data?: unknown): void => {
    const object = { apiVersion: 'v1', kind: 'Secret', metadata: secret, type: 'Opaque' };
    fake.apply({ ...object, ...(data === undefined ? {} : { data }) });
  };

  itOnKube('is found with its entries decoded, or without any', async ({ fake, client }) => {
    const bytes = Buffer.from([0, 255, 10, 13]);
    put(fake, { text: 'aMOpbGxv', bytes: bytes.toString('base64'), empty: '' });
    const result = await createSecretReader(client).read(secret);
    assert.ok(result.kind === 'found');
    const expected = { text: Buffer.from('héllo'), bytes, empty: Buffer.alloc(0) };
    assert.deepEqual(Object.fromEntries(result.data), expected);
    assert.deepEqual(requestsOf(fake), ['GET /api/v1/namespaces/default/secrets/sp.demo']);
    fake.delete({ kind: 'Secret', ...secret });
    put(fake);
    const none = await createSecretReader(client).read(secret);
    assert.ok(none.kind === 'found' && none.data.size === 0);
  });

  itOnKube('is not given, with the reason', async ({ fake, client }) => {
    const reader = createSecretReader(client, 200);
    const notGiven = (code: string): RegExp =>
      new RegExp(`^the Kubernetes API did not give Secret default/sp\\.demo \\(${code}\\)$`);
    const missing = /^Secret default\/sp\.demo does not exist$/;
    const rule = /default\/sp\.demo.*resources \["secrets"\], verbs \["get"\]/;
    for (const [status, kind, problem] of [
      [undefined, 'missing', missing],
      [403, 'forbidden', rule],
      [401, 'unavailable', notGiven('UNAUTHORIZED')],
      [429, 'unavailable', notGiven('THROTTLED')],
      [500, 'unavailable', notGiven('SERVER')],
      [503, 'unavailable', notGiven('SERVER')],
    ] as const) {
      for (const method of ['read', 'check'] as const) {
        if (status !== undefined) fake.faults.failNext(1, status, { retryAfterSec: 3 });
        const result = await reader[method](secret);
        assert.ok(result.kind === kind, result.kind);
        assert.match(result.problem, problem);
        if (result.kind === 'unavailable') assert.equal(result.retryAfterMs, 3000);
      }
    }
    fake.faults.hang = true;
    const late = await createSecretReader(client, 20).read(secret);
    assert.ok(late.kind === 'unavailable');
    assert.match(late.problem, notGiven('TIMEOUT'));
    await fake[Symbol.asyncDispose]();
    const gone = await reader.read(secret);
    assert.ok(gone.kind === 'unavailable');
    assert.match(gone.problem, notGiven('(?:NETWORK|TIMEOUT)'));
  });

  itOnKube('is checked without its data', async ({ fake, client }) => {
    put(fake, { text: '' });
    assert.deepEqual(await createSecretReader(client).check(secret), { kind: 'readable' });
    const { client: other, accepted } = answering({});
    assert.equal((await createSecretReader(other).check(secret)).kind, 'readable');
    assert.match(accepted[0] ?? '', /as=PartialObjectMetadata/);
  });

  it('is unavailable when the answer is invalid or too long', async () => {
    const kind = 'Secret';
    const [longest, half] = ['A'.repeat(1024 * 1024), 'A'.repeat(512 * 1024)];
    for (const [body, expected] of [
      [{ kind, data: { a: longest, b: half } }, 'found'],
      [{ kind, data: { a: longest, b: longest } }, 'unavailable'],
      [null, 'unavailable'],
      [[], 'unavailable'],
      [{}, 'unavailable'],
      [{ kind: 'Status' }, 'unavailable'],
      [{ kind, data: [] }, 'unavailable'],
      [{ kind, data: { a: 1 } }, 'unavailable'],
    ] as const) {
      const result = await createSecretReader(answering(body).client).read(secret);
      assert.equal(result.kind, expected);
      if (result.kind === 'unavailable') assert.match(result.problem, /\(MALFORMED\)$/);
    }
  });
});

const asked = { audience: 'api://AzureADTokenExchange', expirationSeconds: 3600 };

describe('a token of a service account', () => {
  const request = { ...asked, serviceAccount: demo };
  const populate = (fake: FakeKube): { readonly name: string; readonly uid: string } => {
    for (const name of ['demo', 'other']) {
      fake.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name } });
    }
    return { name: 'one', uid: fake.apply(rawPod('one')).metadata.uid! };
  };
  const claimsOf = (token: string) =>
    parseRecord(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) ?? {};

  itOnKube(
    'is for the audience, bound to the pod, and expires as the server says',
    async (kube) => {
      const { fake, client } = kube;
      const boundTo = populate(fake);
      const outcome = await requestServiceAccountToken(client, { ...request, boundTo });
      assert.ok(outcome.kind === 'ok', outcome.kind);
      const claims = claimsOf(outcome.token);
      assert.deepEqual(claims['aud'], [asked.audience]);
      assert.equal(claims['sub'], 'system:serviceaccount:default:demo');
      assert.deepEqual(asRecord(claims['kubernetes.io'])?.['pod'], boundTo);
      assert.equal(outcome.expiresAtWallMs, Number(claims['exp']) * 1000);
      assert.equal(outcome.lifeMs, 3_600_000);
      const path = 'POST /api/v1/namespaces/default/serviceaccounts/demo/token';
      assert.deepEqual(requestsOf(fake), [path]);
      fake.faults.maxTokenSec = 700;
      const short = await requestServiceAccountToken(client, request);
      assert.ok(short.kind === 'ok' && short.lifeMs === 700_000);
      assert.equal(short.expiresAtWallMs, Number(claimsOf(short.token)['exp']) * 1000);
    },
  );

  it('is bound only to name and uid of the requesting pod', async () => {
    const { client, posted } = answering({});
    const boundTo = { name: 'one', uid: 'u-1', labels: { secret: 'label' } };
    await requestServiceAccountToken(client, { ...request, boundTo });
    const expected = { apiVersion: 'v1', kind: 'Pod', name: 'one', uid: 'u-1' };
    assert.deepEqual(asRecord(asRecord(posted[0])?.['spec'])?.['boundObjectRef'], expected);
  });

  itOnKube('is not issued, with the reason', async ({ fake, client }) => {
    const pod = populate(fake);
    const nobody = { ...demo, name: 'nobody' };
    const other = { ...demo, name: 'other' };
    for (const [over, expected] of [
      [{ serviceAccount: nobody }, 'missing serviceaccounts "nobody" not found'],
      [{ boundTo: { ...pod, name: 'gone' } }, 'missing pods "gone" not found'],
      [{ boundTo: { ...pod, uid: 'another' } }, 'pod_replaced'],
      // The pod of that name now runs under another account.
      [{ boundTo: pod, serviceAccount: other }, 'pod_replaced'],
      [{ expirationSeconds: 10 }, 'refused'],
    ] as const) {
      const outcome = await requestServiceAccountToken(client, { ...request, ...over });
      const said = outcome.kind === 'missing' ? ` ${outcome.said}` : '';
      assert.equal(`${outcome.kind}${said}`, expected);
      if (outcome.kind === 'refused') assert.match(outcome.said, /less than 10 minutes/);
    }
    fake.faults.failNext(1, 403);
    const forbidden = { kind: 'forbidden', said: 'failed on purpose' };
    assert.deepEqual(await requestServiceAccountToken(client, request), forbidden);
    for (const [status, problem] of [
      [401, 'UNAUTHORIZED'],
      [429, 'THROTTLED'],
      [503, 'status 503'],
    ] as const) {
      fake.faults.failNext(1, status, { retryAfterSec: 7 });
      const expected = { kind: 'unavailable', problem, retryAfterMs: 7000 };
      assert.deepEqual(await requestServiceAccountToken(client, request), expected);
    }
    fake.faults.hang = true;
    const late = await requestServiceAccountToken(client, request, { timeoutMs: 20 });
    assert.ok(late.kind === 'unavailable' && late.problem === 'TIMEOUT');
    const before = fake.requests.length;
    const stop = new AbortController();
    const call = requestServiceAccountToken(client, request, { signal: stop.signal });
    await eventually('the request came in', () => fake.requests.length > before);
    stop.abort(new Error('enough'));
    await assert.rejects(call, /^Error: enough$/);
  });

  it('is unavailable when the answer has other contents', async () => {
    const status = { token: 'a.b.c', expirationTimestamp: '2026-01-01T00:00:00Z' };
    const ask = (body: unknown) => requestServiceAccountToken(answering(body).client, request);
    assert.equal((await ask({ status })).kind, 'ok');
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
      const outcome = await ask(body);
      assert.ok(outcome.kind === 'unavailable', JSON.stringify(body));
      assert.equal(outcome.problem, 'MALFORMED');
    }
  });
});

describe('a name from an object', () => {
  const readers = [
    [
      'secrets',
      'misnamed',
      (client: KubeClient, of: typeof demo) => createSecretReader(client).read(of),
    ],
    [
      'serviceaccounts',
      'missing',
      (client: KubeClient, of: typeof demo) =>
        requestServiceAccountToken(client, { ...asked, serviceAccount: of }),
    ],
  ] as const;
  const odd = ['', '.', '..', '../pods', 'a/../b', 'a/b', 'a?b=c', 'a#b', 'a%2fb', 'a b', 'A'];
  odd.push('-a', 'a-', 'a..b', 'a\n', 'ä', 'a'.repeat(254));

  for (const [collection, refusal, read] of readers) {
    it(`never leads to another path than that of ${collection}`, async () => {
      const check = async (namespace: string, name: string): Promise<number> => {
        const { client, paths } = answering({ kind: 'Secret' });
        const result = await read(client, { namespace, name });
        const [path] = paths;
        if (path === undefined) {
          assert.equal(result.kind, refusal);
          assert.doesNotMatch(JSON.stringify(result), /[^\x20-\x7e]/);
          return 0;
        }
        assert.match(namespace, /^[a-z0-9-]{1,63}$/);
        assert.match(name, /^[a-z0-9.-]{1,253}$/);
        const expected = `/api/v1/namespaces/${namespace}/${collection}/${name}`;
        assert.equal(path.replace(/\/token$/, ''), expected);
        assert.equal(new URL(path, 'http://host').pathname, path);
        return 1;
      };
      const letter = fc.constantFrom('a', 'Z', '0', '-', '.', '/', '%', '?', '\n', '#');
      const part = fc.oneof(fc.string(), fc.string({ unit: letter }));
      await fc.assert(
        fc.asyncProperty(part, part, async (namespace, name) => {
          await check(namespace, name);
        }),
      );
      for (const name of odd) {
        assert.equal(await check('default', name), 0, name);
        assert.equal(await check(name, 'sp'), 0, name);
      }
      assert.equal(await check('a.b', 'x'), 0, 'a namespace has no dots');
      assert.equal(await check('a'.repeat(64), 'x'), 0);
      assert.equal(await check('a'.repeat(63), `${'b'.repeat(63)}.c-0.d`), 1);
    });
  }
});

const staleLimitMs = 5 * minuteMs;
const networkError = new KubeError('NETWORK', 'no connection');
const forbiddenError = new KubeError('FORBIDDEN', 'no right', { status: 403 });

function app(clientId: string) {
  return { clientId, tenantId: '' };
}

function says(clientId: string): ServiceAccountRead {
  return { kind: 'known', account: app(clientId) };
}

/** Known accounts, and an API server that answers when the test requests it. */
function fixture(options: Partial<ServiceAccountsOptions> = {}) {
  const clock = new HandClock();
  const paths: string[] = [];
  const open: (PromiseWithResolvers<unknown> & { readonly path: string })[] = [];
  const client: JsonReader = {
    getJson(path) {
      const read = { path, ...Promise.withResolvers<unknown>() };
      paths.push(path);
      open.push(read);
      return read.promise;
    },
  };
  const accounts = createServiceAccounts({ client, clock, staleLimitMs, ...options });
  let changes = 0;
  accounts.onChange(() => changes++);
  /** Ends a read with this client id, or fails. */
  const end = async (outcome: string | KubeError, at = 0): Promise<void> => {
    const [read] = open.splice(at, 1);
    assert.ok(read !== undefined, 'nothing is being read');
    const annotations = { 'azure.workload.identity/client-id': outcome };
    if (typeof outcome === 'string') read.resolve({ metadata: { ...demo, annotations } });
    else read.reject(outcome);
    await nextTurn();
  };
  const peek = () => accounts.peek(demo);
  return {
    clock,
    paths,
    open,
    accounts,
    end,
    peek,
    peekFresh: () => accounts.peekFresh(demo),
    changes: () => changes,
    learn: async (clientId: string): Promise<void> => {
      peek();
      await end(clientId);
    },
  };
}

describe('the annotations of a service account', () => {
  /** The account once it has been read. */
  async function untilRead(client: JsonReader, account = demo) {
    const accounts = createServiceAccounts({ client, clock: new HandClock(), staleLimitMs });
    const { promise, resolve } = Promise.withResolvers<void>();
    accounts.onChange(resolve);
    if (accounts.peekFresh(account) === undefined) await promise;
    return [accounts.peekFresh(account), accounts.peek(account)];
  }

  itOnKube('are read from the API server, and missing with their account', async (kube) => {
    const { fake, client } = kube;
    const annotations = {
      'azure.workload.identity/client-id': ' C-1\n',
      'azure.workload.identity/tenant-id': 't-1',
    };
    fake.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { ...demo, annotations } });
    const account = { clientId: 'C-1', tenantId: 't-1' };
    assert.deepEqual(await untilRead(client), [{ kind: 'known', account }, account]);
    const missing = [{ kind: 'known', account: 'missing' }, 'missing'];
    assert.deepEqual(await untilRead(client, { ...demo, name: 'nobody' }), missing);
    assert.deepEqual(await untilRead(client, { ...demo, namespace: '../default' }), missing);
    const collection = 'GET /api/v1/namespaces/default/serviceaccounts';
    assert.deepEqual(requestsOf(fake), [`${collection}/demo`, `${collection}/nobody`]);
  });

  it('are empty when there are no valid ones, and unavailable without an account', async () => {
    const invalid = { 'azure.workload.identity/client-id': 7 };
    for (const [body, expected] of [
      ...[undefined, null, [], 'x', invalid].map(
        (annotations) => [{ metadata: { annotations } }, says('')] as const,
      ),
      ...[{}, null, { metadata: 'x' }].map((other) => [other, malformed] as const),
    ]) {
      assert.deepEqual((await untilRead(answering(body).client))[0], expected);
    }
  });

  it('are read once for all concurrent callers', async () => {
    const { paths, changes, end, peek, peekFresh } = fixture();
    for (let time = 0; time < 100; time++) {
      assert.equal(peek(), undefined);
      assert.equal(peekFresh(), undefined);
    }
    assert.equal(paths.length, 1);
    await end('c-1');
    assert.deepEqual(peekFresh(), says('c-1'));
    assert.equal(changes(), 1);
  });

  it('are served from memory for a minute, and also while they are read again', async () => {
    const { learn, end, peek, peekFresh, paths, clock, changes } = fixture();
    await learn('c-1');
    for (const [ms, reads] of [
      [minuteMs - 1, 1],
      [1, 2],
      [1, 2],
    ] as const) {
      clock.advance(ms);
      assert.deepEqual([peek(), peekFresh()], [app('c-1'), says('c-1')]);
      assert.equal(paths.length, reads);
    }
    await end('c-1');
    assert.equal(changes(), 1);
    clock.advance(minuteMs);
    await learn('c-2');
    assert.equal(changes(), 2);
    assert.deepEqual(peek(), app('c-2'));
  });

  it('are read before a decision after two minutes without a request', async () => {
    const { learn, end, peek, peekFresh, paths, clock, changes } = fixture();
    await learn('c-1');
    clock.advance(2 * minuteMs + 1);
    assert.deepEqual(peek(), app('c-1'));
    assert.equal(peekFresh(), undefined);
    assert.equal(paths.length, 2);
    await end('c-1');
    assert.equal(changes(), 2, 'waiters are woken, although the value is the same');
    assert.deepEqual(peekFresh(), says('c-1'));
  });

  it('wake nobody who does not wait for them', async () => {
    const { end, peek, changes, clock } = fixture();
    peek();
    clock.advance(500);
    await end(networkError);
    assert.equal(changes(), 0);
  });

  it('are used for five more minutes when their read does not end soon', async () => {
    const { learn, peekFresh, clock, changes } = fixture();
    await learn('c-1');
    clock.advance(2 * minuteMs + 1);
    assert.equal(peekFresh(), undefined);
    clock.advance(499);
    assert.equal(peekFresh(), undefined);
    assert.equal(changes(), 1);
    clock.advance(1);
    assert.equal(changes(), 2, 'waiters are woken');
    assert.deepEqual(peekFresh(), says('c-1'));
    clock.advance(3 * minuteMs - 501);
    assert.deepEqual(peekFresh(), says('c-1'));
    clock.advance(1);
    assert.equal(peekFresh(), undefined);
  });

  it('are used for five more minutes when they cannot be read, and remain known', async () => {
    const { learn, end, peek, peekFresh, clock, changes, open, paths } = fixture();
    await learn('c-1');
    clock.advance(2 * minuteMs + 1);
    assert.equal(peekFresh(), undefined);
    await end(networkError);
    assert.equal(changes(), 2, 'waiters are woken');
    for (; clock.monotonicMs() <= staleLimitMs; clock.advance(secMs)) {
      assert.deepEqual(peekFresh(), says('c-1'));
      if (open.length > 0) await end(networkError);
    }
    assert.equal(paths.length, 37, 'a try every 5 seconds');
    clock.advance(secMs);
    while (open.length > 0 || peekFresh() === undefined) await end(networkError);
    const unavailable = { kind: 'unavailable', problem: 'NETWORK', retryAfterMs: undefined };
    assert.deepEqual(peekFresh(), unavailable);
    assert.deepEqual(peek(), app('c-1'), 'tokens are not dropped because of it');
    assert.ok(changes() <= 3);
    clock.advance(100 * 24 * 60 * minuteMs);
    assert.deepEqual(peek(), app('c-1'));
    assert.equal(peekFresh(), undefined, 'it is read again, and the new value counts');
    await end('c-1');
    assert.deepEqual(peekFresh(), says('c-1'));
  });

  for (const [what, outcome, known] of [
    ['that name no application', '', app('')],
    ['of a deleted account', new KubeError('NOT_FOUND', 'gone', { status: 404 }), 'missing'],
  ] as const) {
    it(`${what} are reported as changed, and requested again within seconds`, async () => {
      const { learn, end, peek, clock, changes, accounts, open } = fixture();
      await learn('c-1');
      clock.advance(minuteMs);
      peek();
      await end(outcome);
      assert.deepEqual([peek(), changes()], [known, 2]);
      clock.advance(5 * secMs - 1);
      peek();
      assert.equal(open.length, 0);
      clock.advance(1);
      await learn('c-1');
      assert.deepEqual([peek(), changes(), accounts.generation], [app('c-1'), 3, 3]);
    });
  }

  it('are unavailable from a failing server, which gets at most one request a second', async () => {
    const failures: string[] = [];
    const { paths, clock, changes, end, learn, peek, peekFresh } = fixture({
      onUnreadable: ({ name }, { kind }) => failures.push(`${name} ${kind}`),
    });
    assert.equal(peekFresh(), undefined);
    await end(forbiddenError);
    assert.equal(changes(), 1, 'waiters are woken');
    const forbidden = { kind: 'forbidden', said: 'no right' };
    assert.deepEqual(peekFresh(), forbidden);
    clock.advance(secMs - 1);
    assert.deepEqual([peekFresh(), peek(), paths.length], [forbidden, undefined, 1]);
    clock.advance(1);
    assert.equal(peekFresh(), undefined);
    await end(forbiddenError);
    assert.deepEqual(failures, ['demo forbidden'], 'reported once');
    clock.advance(secMs);
    await learn('c-1');
    assert.deepEqual([peekFresh(), changes()], [says('c-1'), 3]);
    clock.advance(10 * minuteMs);
    peek();
    await end(forbiddenError);
    assert.equal(failures.length, 2, 'reported again after a success');
  });

  it('are not requested for as long as the server requires, within limits', async () => {
    for (const [retryAfterMs, waitedMs] of [
      [7 * secMs, 7 * secMs],
      [3600 * secMs, minuteMs],
    ] as const) {
      const { learn, end, peek, paths, clock } = fixture();
      await learn('c-1');
      clock.advance(minuteMs);
      peek();
      await end(new KubeError('THROTTLED', 'busy', { status: 429, retryAfterMs }));
      for (const [ms, reads] of [
        [waitedMs - 1, 2],
        [1, 3],
      ] as const) {
        clock.advance(ms);
        peek();
        assert.equal(paths.length, reads);
      }
    }
  });

  it('are limited in number, and the least recently used is evicted first', async () => {
    const { accounts, end } = fixture({ max: 2 });
    const peek = (name: string) => accounts.peek({ namespace: 'default', name });
    for (const name of ['a', 'b', 'c']) {
      if (name === 'c') peek('a');
      peek(name);
      await end(name);
    }
    assert.deepEqual(['a', 'c', 'b'].map(peek), [app('a'), app('c'), undefined]);
  });
});

const anyName = fc.constantFrom('a', 'b', 'c');
const anyStep = fc.oneof(
  fc.record({ kind: fc.constantFrom('peek' as const, 'decide' as const), name: anyName }),
  fc.record({
    kind: fc.constant('set' as const),
    name: anyName,
    clientId: fc.constantFrom('', '1', '2'),
  }),
  fc.record({ kind: fc.constant('end' as const), at: fc.nat(3), ok: fc.boolean() }),
  fc.record({
    kind: fc.constant('pass' as const),
    ms: fc.constantFrom(secMs, 5 * secMs, minuteMs, 9 * minuteMs),
  }),
);
type Step = typeof anyStep extends fc.Arbitrary<infer S> ? S : never;

/** Runs the steps against a server with changing accounts, and checks after each step. */
async function runSteps(steps: readonly Step[], isTight: boolean): Promise<void> {
  const max = isTight ? 2 : 10;
  const { accounts, open, end, clock } = fixture({ max });
  /** The current value on the server, and the value in its last answer, with its time. */
  const clientIds = new Map<string, string>();
  const said = new Map<string, { readonly clientId: string; readonly atMs: number }>();
  const peeked = new Map<string, { readonly text: string; readonly generation: number }>();
  const nameOf = ({ path }: { readonly path: string }): string => path.slice(-1);

  const look = (name: string, isDecision: boolean): void => {
    const account = { namespace: 'ns', name };
    if (isDecision) {
      const read = accounts.peekFresh(account);
      if (read?.kind !== 'known') return;
      assert.deepEqual(read.account, app(said.get(name)?.clientId ?? ''));
      const ageMs = clock.monotonicMs() - (said.get(name)?.atMs ?? -Infinity);
      assert.ok(ageMs <= staleLimitMs, 'nothing older is used, whatever fails');
      return;
    }
    const known = accounts.peek(account);
    if (known === undefined) return;
    assert.deepEqual(known, app(said.get(name)?.clientId ?? ''));
    const [text, before] = [JSON.stringify(known), peeked.get(name)];
    // Observers were notified of each new value.
    if (before !== undefined && before.text !== text) {
      assert.notEqual(accounts.generation, before.generation);
    }
    peeked.set(name, { text, generation: accounts.generation });
  };
  const endRead = async (at: number, ok: boolean): Promise<void> => {
    const place = at % Math.max(1, open.length);
    const read = open[place];
    if (read === undefined) return;
    const name = nameOf(read);
    const clientId = name + (clientIds.get(name) ?? '');
    if (ok) said.set(name, { clientId, atMs: clock.monotonicMs() });
    await end(ok ? clientId : networkError, place);
  };

  for (const step of steps) {
    if (step.kind === 'set') clientIds.set(step.name, step.clientId);
    else if (step.kind === 'end') await endRead(step.at, step.ok);
    else if (step.kind === 'pass') clock.advance(step.ms);
    else look(step.name, step.kind === 'decide');
    const reading = open.map(nameOf);
    assert.equal(new Set(reading).size, reading.length);
  }
  while (open.length > 0) await endRead(0, true);
  const known = ['a', 'b', 'c'].map((name) => accounts.peek({ namespace: 'ns', name }));
  assert.ok(known.filter((each) => each !== undefined).length <= max);
}

describe('any requests, changes, answers and failures in any order', () => {
  it('leave each account with the value of its last answer, and reads never pile up', async () => {
    const anySteps = fc.array(anyStep, { maxLength: 80, size: 'max' });
    await fc.assert(fc.asyncProperty(anySteps, fc.boolean(), runSteps), { numRuns: 200 });
  });
});
