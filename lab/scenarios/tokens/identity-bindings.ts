/** Identity bindings of AKS, for pods that know only the metadata service. */
import assert from 'node:assert/strict';
import { createLabAuthority } from '../../fakes/authority.ts';
import { createIdentityUse, createServiceAccount } from '../../fakes/kube/manifests.ts';
import type { BindingAnswer } from '../../fakes/kube/identity-bindings.ts';
import { labTenantId } from '../../fakes/identity.ts';
import { addBoundIdentity } from '../../test-bed/entra-objects.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { assertRefused, assertToken, assertUntouched } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

const account = { namespace: 'default', name: 'worker' };

/** No token of any leg appears in the agent's output. */
function assertUnprinted(testBed: TestBed): void {
  const printed = testBed.agent.lines.join('\n');
  for (const token of testBed.entra.issuedTokens()) assert.ok(!printed.includes(token));
  assert.ok(!/eyJ[\w-]+\.eyJ/.test(printed), 'the agent printed a token');
}

const bound: Scenario = {
  name: 'identity-bindings',
  title:
    'A pod that asks IMDS gets a token by an identity binding of AKS; without the right, the answer has the ClusterRole to add.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const { identityBindings } = testBed.environment;
    testBed.kube.apply(createServiceAccount(account));
    const { clientId } = addBoundIdentity(testBed, 'bound');
    const pod = await testBed.addPod({ name: 'old', binding: 'bound', serviceAccount: 'worker' });
    await testBed.untilAgentKnows();
    const countAssertions = () =>
      testBed.kube.requests.filter(({ url }) => url.endsWith('/worker/token')).length;
    const before = countAssertions();
    const refused = await pod.ask();
    const says = /^Service account default\/worker may not use the managed identity /;
    assertRefused(refused, { status: 400, says });
    await pod.ask();
    assert.equal(identityBindings.requests.length, 1, 'asked again at once');

    // What the answer says is enough.
    const text = String(refused.body['error_description']);
    const [, role = ''] = /Apply this ClusterRole: (\{.*\}) and bind it: kubectl/.exec(text) ?? [];
    const [wanted, binding] = createIdentityUse(clientId, account);
    // YAML without quotation marks.
    const read: unknown = JSON.parse(role.replaceAll(/[\w./-]+/g, '"$&"'));
    assert.deepEqual(read, wanted);
    testBed.kube.apply(read);
    const command = `kubectl create clusterrolebinding use-mi-${clientId}-default-worker --clusterrole=use-mi-${clientId} --serviceaccount=default:worker `;
    assert.ok(text.includes(command), text);
    testBed.kube.apply(binding);
    await eventually(async () => {
      assertToken(await pod.ask(), 'bound');
    }, 8_000);

    assertToken(await pod.ask({ query: `client_id=${clientId}` }), 'bound');
    assertToken(await pod.ask({ resource: 'https://management.azure.com' }), 'bound');
    const path = `/${labTenantId}/oauth2/v2.0/token`;
    const subject = 'system:serviceaccount:default:worker';
    const exchanged = { path, clientId, subject, podUid: pod.uid };
    assert.deepEqual(identityBindings.requests, [
      { ...exchanged, status: 403 },
      { ...exchanged, status: 200 },
      { ...exchanged, status: 200 },
    ]);
    assert.equal(countAssertions() - before, 1, 'one assertion serves for every resource');
    const { nodeIp, kind } = testBed.environment;
    const direct = testBed.entra.requests().filter(({ from }) => from === nodeIp);
    if (kind === 'namespaces') assert.deepEqual(direct, [], 'the agent asked Entra ID itself');
    assertUnprinted(testBed);
    assertUntouched(testBed);
    return 'refused with the ClusterRole, and served with it: two tokens by one assertion, bound to the pod';
  },
};

const html = { type: 'text/html', body: '<html>an error page</html>' };

const trouble: Scenario = {
  name: 'identity-bindings-trouble',
  title:
    'An API server that answers 404 or HTML under the other name, or presents a certificate that is not for it: one reason each, and no storm.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const { identityBindings, authority } = testBed.environment;
    const { serverName, requests } = identityBindings;
    testBed.kube.apply(createServiceAccount(account));
    const { clientId } = addBoundIdentity(testBed, 'bound');
    for (const object of createIdentityUse(clientId, account)) testBed.kube.apply(object);
    const pod = await testBed.addPod({ name: 'old', binding: 'bound', serviceAccount: 'worker' });
    await testBed.untilAgentKnows();
    const page = { status: 404, type: 'text/plain', body: '404 page not found\n' };
    const answers: readonly (readonly [BindingAnswer, number, RegExp])[] = [
      [page, 400, /^This cluster has no identity bindings: .* answered status 404/],
      [{ status: 200, ...html }, 503, /answered something that is not a JSON object/],
      [{ status: 502, ...html }, 503, /as a\w{52}\.ests\.aks answered status 502 without JSON/],
    ];
    for (const [at, [answer, status, says]] of answers.entries()) {
      identityBindings.fault = answer;
      requests.length = 0;
      const resource = `https://trouble-${at}.example`;
      assertRefused(await pod.ask({ resource }), { status, says });
      for (let again = 0; again < 20; again++) await pod.ask({ resource });
      assert.ok(requests.length <= 2, `${requests.length} requests to the API server`);
    }
    identityBindings.fault = undefined;
    requests.length = 0;
    const other = await authority.issueServer(['other.ests.aks']);
    const strange = await (await createLabAuthority()).issueServer([serverName]);
    for (const [at, certificate] of [other, strange].entries()) {
      identityBindings.present(certificate);
      // Connections that are open stay as they are.
      testBed.kube.cutConnections();
      const says = /the certificate of the API server as a\w+\.ests\.aks is not trusted/;
      const resource = `https://certificate-${at}.example`;
      assertRefused(await pod.ask({ resource }), { status: 503, says });
    }
    assert.deepEqual(requests, [], 'an assertion was sent to a server that is not trusted');
    identityBindings.reset();
    identityBindings.tenants.set(clientId, labTenantId);
    await eventually(async () => {
      assertToken(await pod.ask({ resource: 'https://certificate-1.example' }), 'bound');
    }, 8_000);
    assertUnprinted(testBed);
    assertUntouched(testBed);
    return '404: 400; HTML and a certificate for another name or by another authority: 503; nothing was sent to the latter';
  },
};

export const identityBindingScenarios: readonly Scenario[] = [bound, trouble];
