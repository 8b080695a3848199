import assert from 'node:assert/strict';
import { request, type RequestOptions } from 'node:https';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { createEntraApplication } from '../../../../../lab/fakes/entra/applications.ts';
import { openFakeEntra } from '../../../../../lab/fakes/entra/fake-entra.ts';
import { openFakeKube, type FakeKube } from '../../../../../lab/fakes/kube/fake-kube.ts';
import type { IdentityBindings } from '../../../../../lab/fakes/kube/identity-bindings.ts';
import {
  createIdentityUse,
  createPodManifest,
  createServiceAccount,
} from '../../../../../lab/fakes/kube/manifests.ts';
import { labTenantId } from '../../../../../lab/fakes/identity.ts';
import {
  bindIdentity,
  certify,
  serveIdentityBindings,
} from '../../../../../lab/test-bed/services.ts';
import { asRecord, stringAt } from '../../../../../src/base/json-value.ts';

const account = { namespace: 'default', name: 'robot' };
const tokenPath = `/${labTenantId}/oauth2/v2.0/token`;
const formType = 'application/x-www-form-urlencoded';

describe('identity bindings of the fake API server', () => {
  const stack = new AsyncDisposableStack();
  const application = createEntraApplication('bound');
  const { clientId } = application;
  let kube: FakeKube;
  let bindings: IdentityBindings;
  let ca: string;

  before(async () => {
    const certified = await certify('127.0.0.1');
    ca = certified.authority.certificatePem;
    kube = stack.use(await openFakeKube({ tls: certified.tls }));
    const entra = stack.use(await openFakeEntra({ tls: certified.tls }));
    bindings = serveIdentityBindings(kube, entra, certified);
    entra.register({
      ...application,
      ...bindIdentity({ entra, identityBindings: bindings }, application),
    });
    kube.apply(createServiceAccount(account));
    const pod = { name: 'p', nodeName: 'n', ips: ['127.0.0.11'], serviceAccount: 'robot' };
    kube.apply(createPodManifest(pod));
  });
  after(() => stack.disposeAsync());

  async function ask(options: RequestOptions, body: string) {
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
    const { host, port } = kube;
    request({ method: 'POST', host, port, ca, agent: false, ...options }, (answer) => {
      text(answer).then((read) => resolve({ status: answer.statusCode ?? 0, body: read }), reject);
    })
      .on('error', reject)
      .end(body);
    return promise;
  }

  async function assertionFor(audiences: readonly string[], isBound = true): Promise<string> {
    const uid = kube.get({ kind: 'Pod', name: 'p' })?.metadata.uid;
    const boundObjectRef = { apiVersion: 'v1', kind: 'Pod', name: 'p', uid };
    const spec = { audiences, ...(isBound ? { boundObjectRef } : {}) };
    const path = '/api/v1/namespaces/default/serviceaccounts/robot/token';
    const { body } = await ask({ path }, JSON.stringify({ spec }));
    return stringAt(asRecord(asRecord(JSON.parse(body))?.['status']), 'token');
  }

  async function exchange(
    change: Readonly<Record<string, string | undefined>> = {},
    options: RequestOptions = {},
  ) {
    const assertion =
      change['client_assertion'] ?? (await assertionFor(['api://AKSIdentityBinding']));
    const form = new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: clientId,
      scope: 'https://vault.azure.net/.default',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
    });
    for (const [name, value] of Object.entries(change)) {
      if (value === undefined) form.delete(name);
      else form.set(name, value);
    }
    const headers = { 'content-type': formType };
    const { serverName: servername } = bindings;
    return ask({ path: tokenPath, headers, servername, ...options }, form.toString());
  }

  it('refuse an account without the right, and no other', async () => {
    const refused = await exchange();
    assert.equal(refused.status, 403);
    assert.match(
      refused.body,
      /User \\"system:serviceaccount:default:robot\\" cannot use-managed-identity/,
    );
    for (const object of createIdentityUse(clientId, { ...account, name: 'other' }))
      kube.apply(object);
    assert.equal((await exchange()).status, 403);
    for (const object of createIdentityUse(clientId, account)) kube.apply(object);
    const { status, body } = await exchange();
    assert.equal(status, 200, body);
    assert.equal(asRecord(JSON.parse(body))?.['expires_in'], 3599);
    assert.equal((await exchange({}, { path: '/' })).status, 200, 'the path of other clients');
  });

  it('refuse what is not as documented', async () => {
    const other = createEntraApplication('other').clientId;
    const ours = 'api://AKSIdentityBinding';
    const typed = { 'content-type': formType };
    for (const [status, change, options] of [
      [405, {}, { method: 'PUT' }],
      [404, {}, { path: '/token' }],
      [404, {}, { path: `${tokenPath}?a=b` }],
      [400, {}, { path: tokenPath.replace('7e57', '7e58') }],
      [400, {}, { headers: { 'content-type': 'application/json' } }],
      [400, {}, { headers: { ...typed, authorization: 'Bearer x' } }],
      [400, { grant_type: 'password' }],
      [400, { scope: 'https://vault.azure.net' }],
      [400, { scope: undefined, resource: 'https://r' }],
      [400, { client_assertion_type: undefined }],
      [400, { client_secret: 's' }],
      [400, { client_id: other }],
      [401, { client_assertion: 'x' }],
      [401, { client_assertion: await assertionFor(['api://AzureADTokenExchange']) }],
      [401, { client_assertion: await assertionFor([ours, 'api://other']) }],
      [401, { client_assertion: await assertionFor([ours], false) }],
    ] as const) {
      const what = JSON.stringify([change, options]);
      assert.equal((await exchange(change, options)).status, status, what);
    }
    const token = await assertionFor([ours]);
    kube.delete({ kind: 'Pod', name: 'p' });
    const gone = await exchange({ client_assertion: token });
    assert.equal(gone.status, 401, 'a pod that is gone');
  });

  it('are not there under the ordinary name, and nothing else is under theirs', async () => {
    const form = await exchange({ client_assertion: 'x' }, { servername: '' });
    assert.deepEqual(form, { status: 404, body: '404 page not found\n' });
    const { serverName: servername } = bindings;
    const pods = await ask({ method: 'GET', path: '/api/v1/pods', servername }, '');
    assert.equal(pods.status, 404);
    await assert.rejects(ask({ path: '/', servername: 'another.ests.aks' }, ''), {
      code: 'ERR_TLS_CERT_ALTNAME_INVALID',
    });
  });
});
