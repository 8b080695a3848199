import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { parse } from 'yaml';
import { createLabAuthority } from '../../../../../lab/fakes/authority.ts';
import { openFakeKube } from '../../../../../lab/fakes/kube/fake-kube.ts';
import {
  bindingServerName,
  clusterHostName,
  type BindingAnswer,
} from '../../../../../lab/fakes/kube/identity-bindings.ts';
import { systemClock } from '../../../../../src/base/time/clock.ts';
import type { ApiServer } from '../../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../../src/nmi/kube/api/kube-error.ts';
import { entraDown } from '../../../../../src/nmi/sources/entra/aadsts.ts';
import {
  openBindingNetwork,
  serverNameOf,
} from '../../../../../src/nmi/sources/entra/identity-binding.ts';
import { roleOfIdentity } from '../../../../../src/nmi/sources/entra/identity-use.ts';
import { createExchange } from '../../../../../src/nmi/sources/entra/token-exchange.ts';
import type { SourceFailure } from '../../../../../src/nmi/sources/source.ts';
import { createEntraIdentity } from '../../../../support/entra-identity.ts';
import { jwtOf } from '../../../../support/jwt.ts';

const clusterId = '696995ccb303450001b31a18';
const clientId = '11111111-2222-4333-8444-555555555555';
const serviceAccount = { namespace: 'team', name: 'robot' };
const clientAssertion = jwtOf({ sub: 'system:serviceaccount:team:robot' });

type Fixture = Awaited<ReturnType<typeof open>>;

const authority = await createLabAuthority();

/** @param names of the certificate that the API server presents otherwise. */
async function open(given = '', names: readonly string[] = [clusterHostName(clusterId)]) {
  await using opening = new AsyncDisposableStack();
  const ca = authority.certificatePem;
  const [tls, forBindings] = await Promise.all([
    authority.issueServer(['127.0.0.1', ...names]),
    authority.issueServer([bindingServerName(clusterId)]),
  ]);
  const kube = opening.use(await openFakeKube({ tls: { ...tls, ca } }));
  const entra = { authority: 'https://127.0.0.1:1', caPem: ca };
  const bindings = kube.serveIdentityBindings({ clusterId, tls: forBindings, entra });
  bindings.fault = token;
  const apiServer: ApiServer = { origin: kube.url, fingerprint: 'a', tls: { ca } };
  const client = { server: () => Promise.resolve(fixture.apiServer) };
  const options = { clock: systemClock, timeoutMs: 3_000, userAgent: 'nmi/test' };
  const network = opening.use(openBindingNetwork({ ...options, client, clusterId: given }));
  const exchange = createExchange({ network, clock: systemClock });
  const owned = opening.move();
  const fixture = {
    kube,
    bindings,
    /** As the client of the API server reports it. */
    apiServer,
    close: async () => network[Symbol.asyncDispose](),
    fetch: () =>
      exchange(
        {
          identity: createEntraIdentity({
            clientId,
            credential: { kind: 'federated_binding', serviceAccount, audience: 'api://x' },
          }),
          resource: 'https://r',
          clientCredential: { clientAssertion },
          correlationId: '0a1b2c3d-0000-4000-8000-000000000009',
        },
        AbortSignal.timeout(5_000),
      ),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
  return fixture;
}

async function failureOf(fixture: Fixture): Promise<SourceFailure> {
  const result = await fixture.fetch();
  assert.ok(!result.ok);
  return result.failure;
}

const json = (status: number, body: object): BindingAnswer => ({
  status,
  type: 'application/json',
  body: JSON.stringify(body),
});
const token = json(200, { access_token: jwtOf({ oid: 'o' }), expires_in: 3600 });

describe('the name for identity bindings', () => {
  it('is the one that AKS derives from the id of the cluster', () => {
    // Written down from another implementation.
    for (const [id, label] of [
      [clusterId, 'aeaf29ip1hi5q38ebc3u4daum81u0unk52t5bg50j25234fmuj78g'],
      ['abc123def456', 'avimke6u6l2eeq8qc1cneuaq4sl2e1av9t4clqgun97le32hub670'],
    ] as const) {
      assert.equal(serverNameOf(id), `${label}.ests.aks`);
      assert.equal(bindingServerName(id), `${label}.ests.aks`);
    }
    // Of the same length, with leading zeros.
    const names = Array.from({ length: 200 }, (_, at) => serverNameOf(`${at}`));
    for (const name of names) assert.match(name, /^a[0-9a-v]{52}\.ests\.aks$/);
    assert.ok(names.some((name) => name.startsWith('a0')));
  });
});

describe('an exchange by an identity binding', () => {
  it('is made under that name, and not with Entra ID itself', async () => {
    await using fixture = await open();
    const result = await fixture.fetch();
    assert.ok(result.ok);
    assert.equal(result.token.clientId, clientId);
    await fixture.fetch();
    assert.deepEqual(
      fixture.bindings.requests.map(({ path, clientId: id }) => [path, id]),
      Array.from({ length: 2 }, () => ['/contoso.example/oauth2/v2.0/token', clientId]),
    );
    assert.deepEqual(fixture.kube.requests, [], 'under the ordinary name');
  });

  it('reads the certificate once for many that are made at once', async () => {
    await using fixture = await open();
    const results = await Promise.all(Array.from({ length: 8 }, () => fixture.fetch()));
    assert.ok(results.every(({ ok }) => ok));
    assert.ok(fixture.kube.connections <= 8, `${fixture.kube.connections} connections`);
  });

  it('takes the cluster id of the option only if the certificate has none', async () => {
    const own = clusterHostName(clusterId);
    for (const [given, name, reason, problem] of [
      [clusterId, 'kubernetes', undefined, /^/],
      [clusterId, own, undefined, /^/],
      [
        '',
        'kubernetes',
        'credential_invalid',
        /no cluster of AKS, and --aks-cluster-id is not set/,
      ],
      ['other', own, 'credential_invalid', /is of cluster 6969\w+, not of --aks-cluster-id other$/],
      [
        'other',
        'kubernetes',
        'upstream_down',
        /^the certificate .* as a\w+\.ests\.aks is not trust/,
      ],
    ] as const) {
      await using fixture = await open(given, [name]);
      const result = await fixture.fetch();
      assert.equal(result.ok ? undefined : result.failure.reason, reason);
      assert.match(result.ok ? '' : result.failure.description, problem);
      if (result.ok) continue;
      assert.deepEqual([fixture.bindings.requests, fixture.kube.requests], [[], []]);
    }
  });

  it('is made only where the cluster has an authority of its own', async () => {
    await using fixture = await open();
    const { origin, tls } = fixture.apiServer;
    for (const apiServer of [
      { origin, tls: { ca: undefined } },
      { origin: origin.replace('https:', 'http:'), tls },
    ]) {
      fixture.apiServer = { fingerprint: 'b', ...apiServer };
      const { reason, description } = await failureOf(fixture);
      assert.equal(reason, 'credential_invalid');
      assert.match(description, /no certificate authority of the cluster/);
    }
    assert.deepEqual([fixture.bindings.requests, fixture.kube.requests], [[], []]);
  });

  it('needs an API server that the agent can find', async () => {
    const server = () => Promise.reject(new KubeError('CONFIG', 'cannot read /a/kubeconfig'));
    const options = { clock: systemClock, timeoutMs: 1_000, userAgent: 'nmi/test', clusterId };
    await using network = openBindingNetwork({ ...options, client: { server } });
    const posted = network.postForm('https://a.example/t', '', {}, AbortSignal.timeout(5_000));
    const message = 'the agent cannot find the API server (CONFIG)';
    await assert.rejects(posted, { message, failure: undefined });
  });

  it('follows the authority of the cluster when that is replaced', async () => {
    await using fixture = await open();
    assert.ok((await fixture.fetch()).ok);
    const former = fixture.apiServer;
    const ca = (await createLabAuthority()).certificatePem;
    fixture.apiServer = { ...former, fingerprint: 'b', tls: { ca } };
    const { reason, description } = await failureOf(fixture);
    assert.equal(reason, 'upstream_down');
    assert.match(description, /^the certificate of the API server cannot be read \(\w+\)$/);
    fixture.apiServer = former;
    assert.ok((await fixture.fetch()).ok);
    fixture.apiServer = { ...former, fingerprint: 'c' };
    assert.ok((await fixture.fetch()).ok);
    await using other = await open();
    fixture.apiServer = { ...other.apiServer, fingerprint: 'd' };
    assert.ok((await fixture.fetch()).ok);
    assert.equal(other.bindings.requests.length, 1);
  });

  it('opens no connections after the end, also when the authority is replaced just then', async () => {
    await using fixture = await open();
    assert.ok((await fixture.fetch()).ok);
    fixture.apiServer = { ...fixture.apiServer, fingerprint: 'b' };
    const failing = failureOf(fixture);
    // By now the certificate is being read.
    await setImmediate();
    await fixture.close();
    assert.deepEqual(await failing, entraDown('the agent stops'));
    assert.equal(fixture.bindings.requests.length, 1);
  });
});

describe('an API server that refuses', () => {
  const server = String.raw`the API server as a\w+\.ests\.aks`;
  const message = (status: number, text: string) => json(status, { message: text });
  const unauthorized = { error: 'unauthorized_client', error_description: 'AADSTS700016: no' };

  it('gives one reason, after one request', async () => {
    const forbidden = json(403, { kind: 'Status', message: 'forbidden: no' });
    const says403 = `^Service account team/robot may not use .*use-mi-${clientId}.* \\(.* answered status 403: forbidden: no\\)$`;
    const notFound = { status: 404, type: 'text/plain', body: '404 page not found' };
    const page = { status: 200, type: 'text/html', body: '<html>' };
    const unbound = 'not bound to this cluster';
    for (const [answer, reason, says] of [
      [message(401, 'Unauthorized'), 'credential_refused', ': Unauthorized$'],
      [forbidden, 'credential_invalid', says403],
      [notFound, 'credential_invalid', `has no identity bindings: ${server} answered status 404`],
      [message(400, unbound), 'upstream_refused', `^${server} answered status 400: ${unbound}$`],
      [json(401, unauthorized), 'identity_refused', '^AADSTS700016: no$'],
      [page, 'upstream_down', `^${server} answered something that is not a JSON object$`],
      [message(503, 'busy'), 'upstream_down', 'answered status 503: busy$'],
    ] as const) {
      await using fixture = await open();
      fixture.bindings.fault = answer;
      const failure = await failureOf(fixture);
      assert.equal(failure.reason, reason);
      assert.match(failure.description, new RegExp(says));
      const leastMs = reason === 'upstream_down' ? 250 : 5_000;
      assert.ok(failure.cooldownMs >= leastMs, `${failure.cooldownMs} ms`);
      assert.equal(fixture.bindings.requests.length, 1);
      // In YAML without quotation marks.
      const [, yaml] = /Apply this ClusterRole: (.+) and bind it/.exec(failure.description) ?? [];
      assert.equal(yaml === undefined, answer !== forbidden);
      if (yaml === undefined) continue;
      assert.deepEqual(parse(yaml), roleOfIdentity(clientId));
      assert.doesNotMatch(yaml, /"|,\S/);
    }
  });

  it('and repeats the token in its answer is not quoted', async () => {
    await using fixture = await open();
    for (const status of [400, 401, 403, 503]) {
      fixture.bindings.fault = message(status, `got ${clientAssertion}`);
      const { description } = await failureOf(fixture);
      assert.ok(!description.includes(clientAssertion.slice(0, 20)), description);
      assert.match(description, /its text is withheld/);
    }
  });
});
