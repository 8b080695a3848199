/** Identities with tokens from Entra ID: by secret, by certificate, by federation. */
import assert from 'node:assert/strict';
import { createEntraApplication } from '../../fakes/entra/applications.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { labTenantId } from '../../fakes/identity.ts';
import { addApplication, addSecret, federatedTo } from '../../test-bed/entra-objects.ts';
import { renderPfx } from '../../fakes/pfx.ts';
import type { LabPod } from '../../pods/pod.ts';
import { findTokenIdentity } from '../../fakes/token.ts';
import { createServiceAccount } from '../../fakes/kube/manifests.ts';
import {
  assertRefused,
  assertToken,
  assertUntouched,
  untilToken,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { agentAccount, type TestBed } from '../../test-bed/test-bed.ts';

const hourMs = 3_600_000;

/** None of these texts appears in the agent's output. */
function assertUnprinted(testBed: TestBed, secrets: readonly string[]): void {
  const printed = testBed.agent.lines.join('\n');
  for (const secret of secrets) assert.ok(!printed.includes(secret), 'the agent printed a secret');
  for (const token of testBed.entra.issuedTokens()) {
    assert.ok(!printed.includes(token), 'the agent printed a token');
  }
}

const fourTypes: Scenario = {
  name: 'four-types',
  title: 'A pod with an identity of each type gets the token of the one that it names.',
  needs: 'any',
  inTour: true,
  run: async (testBed) => {
    const binding = 'all-four';
    const assigned = testBed.bind('type-0', binding);
    addSecret(testBed, 'type-1', { clientSecret: 'secret-of-type-1' });
    const secret = createEntraApplication('type-1', { secrets: [{ value: 'secret-of-type-1' }] });
    addApplication(testBed, secret, { type: 1, clientPassword: { name: 'type-1' } }, binding);
    const certificate = await testBed.environment.authority.issueClient('type-2');
    const password = 'password-of-type-2';
    addSecret(testBed, 'type-2', {
      certificate: await renderPfx(certificate, { password }),
      password,
    });
    const signed = createEntraApplication('type-2', { certificates: [certificate.certificatePem] });
    addApplication(testBed, signed, { type: 2, clientPassword: { name: 'type-2' } }, binding);
    const account = { namespace: 'default', name: 'robot' };
    testBed.kube.apply(createServiceAccount(account));
    const federated = createEntraApplication('type-3', federatedTo(account));
    addApplication(testBed, federated, { type: 3 }, binding);

    const pod = await testBed.addPod({ name: 'app', binding, serviceAccount: 'robot' });
    await testBed.untilAgentKnows();
    for (const { name, clientId } of [assigned, secret, signed, federated]) {
      const query = `client_id=${clientId}`;
      assertToken(await pod.ask({ query }), name);
      assertToken(await pod.ask({ query }), name);
    }
    const asked = testBed.entra
      .requests()
      .map(({ credential, identity }) => [identity, credential]);
    assert.deepEqual(asked, [
      ['type-1', 'secret'],
      ['type-2', 'certificate'],
      ['type-3', 'federated'],
    ]);
    assert.deepEqual(testBed.entra.otherRequests(), [], 'no discovery');
    assertUnprinted(testBed, ['secret-of-type-1', password, certificate.keyPem.slice(40, 80)]);
    return 'assigned, secret, certificate and federated: each got its own token with one call upstream';
  },
};

const rotatedSecret: Scenario = {
  name: 'secret-rotated',
  title: 'A wrong secret is refused with Entra’s own text; the right one works without a restart.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const [wrong, first, second] = ['wrong-canary-0', 'first-canary-1', 'second-canary-2'];
    const application = createEntraApplication('rotated', { secrets: [{ value: first }] });
    addApplication(testBed, application, { type: 1, clientPassword: { name: 'rotated' } });
    addSecret(testBed, 'rotated', { clientSecret: wrong });
    const pod = await testBed.addPod({ name: 'app', binding: 'rotated' });
    const refused = await pod.ask();
    assertRefused(refused, {
      status: 400,
      says: /^AADSTS7000215: .*AzureIdentity default\/rotated/,
    });
    assert.deepEqual(refused.body['error_codes'], [7000215]);
    assert.ok(!refused.text.includes(wrong));

    addSecret(testBed, 'rotated', { clientSecret: first });
    // The refusal is cached for five seconds.
    await eventually(async () => {
      assertToken(await pod.ask(), 'rotated');
    }, 8_000);
    // The cached secret is refused from now on: the agent reads it again by itself.
    testBed.entra.register({ ...application, secrets: [{ value: second }] });
    addSecret(testBed, 'rotated', { clientSecret: second });
    assertToken(await pod.ask({ resource: 'https://management.azure.com' }), 'rotated');
    assertUnprinted(testBed, [wrong, first, second]);
    assertUntouched(testBed);
    return 'refused with AADSTS7000215, served after the change, and across a rotation at once';
  },
};

const certificateForms: Scenario = {
  name: 'certificate-forms',
  title: 'A certificate may be an old or a new PFX, with or without password, or PEM.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const certificate = await testBed.environment.authority.issueClient('app', {
      signedBy: 'authority',
    });
    const { certificatePem, issuerPem, keyPem } = certificate;
    const forms: Record<string, Record<string, string | Uint8Array>> = {
      'pfx-old': {
        certificate: await renderPfx(certificate, { ciphers: 'legacy', password: 'p' }),
        password: 'p',
      },
      'pfx-new': { certificate: await renderPfx(certificate) },
      pem: { certificate: `${certificatePem}${issuerPem}${keyPem}` },
    };
    for (const [name, data] of Object.entries(forms)) {
      addSecret(testBed, name, data);
      const application = createEntraApplication(name, { certificates: [certificatePem] });
      addApplication(testBed, application, { type: 2, clientPassword: { name } }, 'certified');
    }
    addSecret(testBed, 'broken', { certificate: 'not a certificate' });
    const broken = createEntraApplication('broken', { certificates: [certificatePem] });
    addApplication(testBed, broken, { type: 2, clientPassword: { name: 'broken' } }, 'certified');
    const pod = await testBed.addPod({ name: 'app', binding: 'certified' });
    await testBed.untilAgentKnows();
    for (const name of Object.keys(forms)) {
      const { clientId } = createEntraApplication(name);
      assertToken(await pod.ask({ query: `client_id=${clientId}` }), name);
    }
    const reply = await pod.ask({ query: `client_id=${broken.clientId}` });
    assertRefused(reply, { status: 400, says: /Secret default\/broken/ });
    assertUnprinted(testBed, [keyPem.slice(40, 80)]);
    return 'three forms served; an invalid certificate is refused with the name of its Secret';
  },
};

const federatedPods: Scenario = {
  name: 'federated-pods',
  title:
    'Pod federation: the subject is the pod’s service account, and its token is bound to a live pod.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const account = { namespace: 'default', name: 'trusted' };
    for (const name of ['trusted', 'untrusted']) {
      testBed.kube.apply(createServiceAccount({ name }));
    }
    const application = createEntraApplication('federated', federatedTo(account));
    addApplication(testBed, application, { type: 3, createdAtWallMs: Date.now() - hourMs });
    const trusted = await testBed.addPod({
      name: 'trusted',
      binding: 'federated',
      serviceAccount: 'trusted',
    });
    const untrusted = await testBed.addPod({
      name: 'unbound',
      binding: 'federated',
      serviceAccount: 'untrusted',
    });
    const second = await testBed.addPod({
      name: 'second',
      binding: 'federated',
      serviceAccount: 'trusted',
    });
    await testBed.untilAgentKnows();
    assertToken(await trusted.ask(), 'federated');
    assertToken(await second.ask(), 'federated');
    // A new federated credential takes minutes to take effect everywhere.
    const says = /^AADSTS700213: .*AzureIdentity default\/federated of pod default\/unbound/;
    assertRefused(await untrusted.ask(), { status: 503, says });
    const asked = testBed.entra.requests().map(({ subject, code }) => [subject, code]);
    const refused = ['system:serviceaccount:default:untrusted', 700213];
    assert.deepEqual(
      asked,
      [['system:serviceaccount:default:trusted', undefined], refused, refused, refused],
      'the refused one is tried three times at once',
    );
    await testBed.removePod(trusted);
    await testBed.removePod(second);
    const third = await testBed.addPod({
      name: 'third',
      binding: 'federated',
      serviceAccount: 'trusted',
    });
    await untilToken(third, 'federated');
    assertUntouched(testBed);
    return 'two pods of one account share a token; another account is refused with 503 at first';
  },
};

const refusedByMistake: Scenario = {
  name: 'federation-refused-by-mistake',
  title:
    'Entra ID refuses every third use of a valid federated credential: no pod sees it. Without the credential: 503, and no storm.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const account = { namespace: 'default', name: 'robot' };
    testBed.kube.apply(createServiceAccount(account));
    const application = createEntraApplication('flaky', federatedTo(account));
    addApplication(testBed, application, { type: 3, createdAtWallMs: Date.now() - hourMs });
    const pods: LabPod[] = [];
    for (const name of ['one', 'two', 'three']) {
      pods.push(await testBed.addPod({ name, binding: 'flaky', serviceAccount: 'robot' }));
    }
    await testBed.untilAgentKnows();
    const { entra } = testBed;
    entra.setFaults({ refuse: { code: 700213, oneOf: 3 } });
    for (let count = 0; count < 10; count++) {
      for (const pod of pods) {
        assertToken(await pod.ask({ resource: `https://${count}.${pod.name}.example` }), 'flaky');
      }
    }
    const mistakes = entra.requests().filter(({ code }) => code === 700213).length;
    assert.equal(mistakes, 15, 'every third of 45 requests');

    entra.setFaults({});
    entra.register({ ...application, federatedCredentials: [] });
    entra.clear();
    const ask = (pod: LabPod) => pod.ask({ resource: 'https://missing.example' });
    const says = /^AADSTS70021: .*AzureIdentity default\/flaky of pod default\/one/;
    const startMs = Date.now();
    const [one, ...others] = pods;
    assert.ok(one !== undefined);
    const refused = await ask(one);
    assertRefused(refused, { status: 503, says });
    assert.equal(refused.headers.get('retry-after'), '5');
    assert.ok(refused.ownMs < 3_000, 'the first answer took three seconds');
    while (Date.now() - startMs < 6_000) {
      for (const pod of others) assert.equal((await ask(pod)).status, 503);
    }
    const asked = entra.requests().length;
    assert.ok(asked <= 6, `${asked} requests to Entra ID in six seconds`);
    entra.register(application);
    await eventually(async () => {
      for (const pod of pods) assertToken(await ask(pod), 'flaky');
    }, 12_000);
    assertUnprinted(testBed, []);
    assertUntouched(testBed);
    return `30 tokens with ${mistakes} refusals in between; a missing credential: 503, ${asked} requests in 6 s`;
  },
};

const federatedNode: Scenario = {
  name: 'federated-node',
  title: 'Node federation: the subject is the agent’s service account.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.kube.apply(createServiceAccount(agentAccount));
    const application = createEntraApplication('by-node', federatedTo(agentAccount));
    addApplication(testBed, application, { type: 3, federation: 'node' });
    const pods: LabPod[] = [];
    for (const name of ['one', 'two']) {
      pods.push(await testBed.addPod({ name, binding: 'by-node', serviceAccount: name }));
    }
    await testBed.untilAgentKnows();
    for (const pod of pods) assertToken(await pod.ask(), 'by-node');
    const [request, ...others] = testBed.entra.requests();
    assert.equal(request?.subject, `system:serviceaccount:kube-system:${agentAccount.name}`);
    assert.deepEqual(others, [], 'more than one token for both');
    const line = testBed.agent.lines.findLast((each) => each.includes('"source":"federated_node"'));
    assert.ok(line !== undefined, 'the log does not name the source');
    return 'two pods of other accounts, one exchange, the agent’s account as its subject';
  },
};

const workloadIdentity: Scenario = {
  name: 'workload-identity',
  title:
    'With --workload-identity, a pod that is set up for Workload Identity is served without a binding.',
  needs: 'any',
  inTour: false,
  agentFlags: ['--workload-identity'],
  run: async (testBed) => {
    const application = createEntraApplication('annotated', {
      ...federatedTo({ namespace: 'default', name: 'annotated' }),
    });
    testBed.entra.register(application);
    const annotations = {
      'azure.workload.identity/client-id': application.clientId,
      'azure.workload.identity/tenant-id': labTenantId,
    };
    testBed.kube.apply(createServiceAccount({ name: 'annotated', annotations }));
    testBed.kube.apply(createServiceAccount({ name: 'bare' }));
    const labels = { 'azure.workload.identity/use': 'true' };
    const pod = await testBed.addPod({ name: 'old-sdk', labels, serviceAccount: 'annotated' });
    const bare = await testBed.addPod({ name: 'bare', labels, serviceAccount: 'bare' });
    const plain = await testBed.addPod({ name: 'plain', serviceAccount: 'annotated' });
    await testBed.untilAgentKnows();
    assertToken(await pod.ask(), 'annotated');
    assertToken(await pod.ask({ query: `client_id=${application.clientId}` }), 'annotated');
    const resource = 'https://management.azure.com/';
    assertToken(await pod.ask({ resource }), 'annotated');
    const assertions = testBed.kube.requests.filter(({ url }) => /annotated\/token/.test(url));
    assert.equal(assertions.length, 1, 'one assertion serves for every resource');
    const foreign = createEntraApplication('foreign').clientId;
    const other = await pod.ask({ query: `client_id=${foreign}` });
    assertRefused(other, { status: 400, says: /^Identity not found: the service account / });
    const says = /service account default\/bare has no annotation/;
    assertRefused(await bare.ask(), { status: 400, says });
    assertRefused(await plain.ask(), { status: 400, says: /has no label "aadpodidbinding"/ });
    assertUntouched(testBed);
    return 'served by its annotations; refused without label or annotation';
  },
};

const auxiliaryTenants: Scenario = {
  name: 'auxiliary-tenants',
  title: 'A secret identity with auxiliary tenants returns a token of each tenant, its own first.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const [value, tenant] = ['canary-of-tenants', '7e570000-1ab0-4000-8000-0000000000aa'];
    const application = createEntraApplication('wide', { secrets: [{ value }] });
    testBed.entra.register({ ...application, name: 'wide-elsewhere', tenantId: tenant });
    addSecret(testBed, 'wide', { clientSecret: value });
    addApplication(testBed, application, {
      type: 1,
      clientPassword: { name: 'wide' },
      auxiliaryTenantIds: [tenant],
    });
    const pod = await testBed.addPod({ name: 'app', binding: 'wide' });
    await testBed.untilAgentKnows();
    for (const turn of ['fetched', 'from memory']) {
      const reply = await pod.ask();
      assert.equal(reply.status, 200, reply.text);
      const bodies: unknown = JSON.parse(reply.text);
      assert.ok(Array.isArray(bodies));
      const identities = bodies.map((each) => findTokenIdentity(JSON.stringify(each)));
      assert.deepEqual(identities, ['wide', 'wide-elsewhere'], turn);
    }
    assert.equal(testBed.entra.requests().length, 2);
    assertUnprinted(testBed, [value]);
    return 'an array of two tokens, the same from the cache';
  },
};

const entraTrouble: Scenario = {
  name: 'entra-trouble',
  title: 'Entra’s throttling and outages affect only pods without a cached token.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const value = 'canary-of-trouble';
    for (const name of ['calm', 'loud']) {
      addSecret(testBed, name, { clientSecret: value });
      const application = createEntraApplication(name, { secrets: [{ value }] });
      addApplication(testBed, application, { type: 1, clientPassword: { name } }, 'app');
    }
    const pod = await testBed.addPod({ name: 'app', binding: 'app' });
    await testBed.untilAgentKnows();
    const [calm, loud] = ['calm', 'loud'].map(
      (name) => `client_id=${createEntraApplication(name).clientId}`,
    );
    assert.ok(calm !== undefined && loud !== undefined);
    assertToken(await pod.ask({ query: calm }), 'calm');

    testBed.entra.setFaults(
      { refuse: { code: 50196, retryAfterSec: 7 } },
      createEntraApplication('loud').clientId,
    );
    const throttled = await pod.ask({ query: loud });
    assertRefused(throttled, { status: 429, says: /./ });
    assert.ok(Number(throttled.headers.get('retry-after')) >= 7);
    const before = testBed.entra.requests().length;
    assertRefused(await pod.ask({ query: loud }), { status: 429, says: /./ });
    assert.equal(testBed.entra.requests().length, before, 'requested again within Retry-After');

    testBed.entra.setFaults({ fail: { status: 502 } });
    const resource = 'https://management.azure.com';
    assertToken(await pod.ask({ query: calm }), 'calm');
    assertRefused(await pod.ask({ query: calm, resource }), { status: 503, says: /Entra ID/ });
    testBed.entra.setFaults({});
    await eventually(async () => {
      assertToken(await pod.ask({ query: calm, resource }), 'calm');
    }, 3_000);
    assertUnprinted(testBed, [value]);
    return '429 with Retry-After and no further call; an HTML page is a transient 503';
  },
};

export const entraScenarios: readonly Scenario[] = [
  fourTypes,
  rotatedSecret,
  certificateForms,
  federatedPods,
  refusedByMistake,
  federatedNode,
  auxiliaryTenants,
  entraTrouble,
  workloadIdentity,
];
