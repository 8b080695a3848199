import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KubeError } from '../../../../../src/nmi/kube/api/kube-error.ts';
import { failureOf, openFixture, podIdentity } from '../federated-fixture.ts';

describe('an assertion that the API server does not issue', () => {
  const table = [
    [
      404,
      'NOT_FOUND',
      'credential_missing',
      /service account ns\/a or pod ns\/pod-u1 does not exist/,
    ],
    [
      403,
      'FORBIDDEN',
      'credential_invalid',
      /create serviceaccounts\/token: set rbac\.allowFederation=true of the chart, and if rbac\.federationNamespaces is set, add ns\. .* API server: no such thing\?$/,
    ],
    [
      422,
      'SERVER',
      'credential_invalid',
      /refuses a token of service account ns\/a for audience api:/,
    ],
    [400, 'SERVER', 'upstream_down', /^pod ns\/pod-u1 has just been replaced$/],
    [409, 'SERVER', 'upstream_down', /^pod ns\/pod-u1 has just been replaced$/],
    [
      500,
      'SERVER',
      'upstream_down',
      /does not return a token of service account ns\/a \(status 500\)$/,
    ],
    [undefined, 'TIMEOUT', 'upstream_down', /\(TIMEOUT\)$/],
    [undefined, 'NETWORK', 'upstream_down', /\(NETWORK\)$/],
    [401, 'UNAUTHORIZED', 'upstream_down', /\(UNAUTHORIZED\)$/],
  ] as const;
  for (const [status, code, reason, text] of table) {
    it(`with ${status ?? code} means ${reason}, and is requested again`, async () => {
      using fixture = openFixture({ a: 'u1' });
      fixture.api.failNext(new KubeError(code, '"no" such \'thing\'\u0000', { status }));
      const failure = failureOf(await fixture.get(podIdentity('a')));
      assert.equal(failure.reason, reason);
      assert.match(failure.description, text);
      assert.ok(failure.cooldownMs > 0 && failure.cooldownMs <= 5_000);
      assert.equal(fixture.clientCredentials.kept, 0);
      await fixture.ask('a');
    });
  }

  it('is not requested for as long as the server requires, within limits', async () => {
    using fixture = openFixture({ a: 'u1' });
    for (const [retryAfterMs, retryAfterS] of [
      [7_000, 7],
      [1, 1],
      [3_600_000, 10],
    ] as const) {
      fixture.api.failNext(new KubeError('THROTTLED', 'busy', { status: 429, retryAfterMs }));
      const failure = failureOf(await fixture.get(podIdentity('a')));
      assert.equal(failure.reason, 'upstream_down');
      assert.equal(failure.retryAfterS, retryAfterS);
      assert.ok(failure.cooldownMs >= Math.min(retryAfterMs, 10_000));
    }
  });

  it('fails all its waiters, with one request', async () => {
    using fixture = openFixture({ a: 'u1' });
    fixture.api.failNext(new KubeError('SERVER', 'down', { status: 503 }));
    const gets = Array.from({ length: 1_000 }, () =>
      fixture.clientCredentials.pod.get(podIdentity('a'), fixture.signal),
    );
    await fixture.api.landAll();
    for (const result of await Promise.all(gets)) failureOf(result);
    assert.equal(fixture.api.asked, 1);
  });

  it('is not requested under a name that no service account can have', async () => {
    using fixture = openFixture({ a: 'u1' });
    fixture.pods.set('../a', 'u9');
    const failure = failureOf(await fixture.get(podIdentity('../a')));
    assert.equal(failure.reason, 'credential_missing');
    assert.equal(fixture.api.asked, 0);
  });
});
