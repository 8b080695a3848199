/** Identities that Entra ID itself is asked for: by secret, by certificate, by federation. */
import assert from 'node:assert/strict';
import { createEntraApplication } from '../../fakes/entra/applications.ts';
import { eventually } from '../../world/eventually.ts';
import { labTenantId } from '../../fakes/identity.ts';
import { addApplication, addSecret, federatedTo } from '../../world/entra-objects.ts';
import { renderPfx } from '../../fakes/pfx.ts';
import type { LabPod } from '../../pods/pod.ts';
import { findTokenIdentity } from '../../fakes/token.ts';
import { createServiceAccount } from '../../fakes/kube/manifests.ts';
import {
  assertRefused,
  assertToken,
  assertUntouched,
  untilToken,
} from '../../world/reply-checks.ts';
import type { Scenario } from '../../world/scenario.ts';
import { agentAccount, type World } from '../../world/world.ts';

const hourMs = 3_600_000;

/** None of these texts is anywhere in what the agent printed. */
function assertUnprinted(world: World, secrets: readonly string[]): void {
  const printed = world.agent.lines.join('\n');
  for (const secret of secrets) assert.ok(!printed.includes(secret), 'the agent printed a secret');
  for (const token of world.entra.issuedTokens()) {
    assert.ok(!printed.includes(token), 'the agent printed a token');
  }
}

const fourTypes: Scenario = {
  name: 'four-types',
  title: 'A pod with an identity of each type gets the token of the one that it names.',
  needs: 'any',
  inTour: true,
  run: async (world) => {
    const binding = 'all-four';
    const assigned = world.bind('type-0', binding);
    addSecret(world, 'type-1', { clientSecret: 'secret-of-type-1' });
    const secret = createEntraApplication('type-1', { secrets: [{ value: 'secret-of-type-1' }] });
    addApplication(world, secret, { type: 1, clientPassword: { name: 'type-1' } }, binding);
    const certificate = await world.ground.authority.issueClient('type-2');
    const password = 'password-of-type-2';
    addSecret(world, 'type-2', {
      certificate: await renderPfx(certificate, { password }),
      password,
    });
    const signed = createEntraApplication('type-2', { certificates: [certificate.certificatePem] });
    addApplication(world, signed, { type: 2, clientPassword: { name: 'type-2' } }, binding);
    const account = { namespace: 'default', name: 'robot' };
    world.kube.apply(createServiceAccount(account));
    const federated = createEntraApplication('type-3', federatedTo(account));
    addApplication(world, federated, { type: 3 }, binding);

    const pod = await world.addPod({ name: 'app', binding, serviceAccount: 'robot' });
    await world.untilAgentKnows();
    for (const { name, clientId } of [assigned, secret, signed, federated]) {
      const query = `client_id=${clientId}`;
      assertToken(await pod.ask({ query }), name);
      assertToken(await pod.ask({ query }), name);
    }
    const asked = world.entra.requests().map(({ credential, identity }) => [identity, credential]);
    assert.deepEqual(asked, [
      ['type-1', 'secret'],
      ['type-2', 'certificate'],
      ['type-3', 'federated'],
    ]);
    assert.deepEqual(world.entra.otherRequests(), [], 'no discovery');
    assertUnprinted(world, ['secret-of-type-1', password, certificate.keyPem.slice(40, 80)]);
    return 'assigned, secret, certificate and federated: each its own token, one call upstream each';
  },
};

const rotatedSecret: Scenario = {
  name: 'secret-rotated',
  title: 'A wrong secret is refused with Entra’s own text; the right one works without a restart.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    const [wrong, first, second] = ['wrong-canary-0', 'first-canary-1', 'second-canary-2'];
    const application = createEntraApplication('rotated', { secrets: [{ value: first }] });
    addApplication(world, application, { type: 1, clientPassword: { name: 'rotated' } });
    addSecret(world, 'rotated', { clientSecret: wrong });
    const pod = await world.addPod({ name: 'app', binding: 'rotated' });
    const refused = await pod.ask();
    assertRefused(refused, {
      status: 400,
      says: /^AADSTS7000215: .*AzureIdentity default\/rotated/,
    });
    assert.deepEqual(refused.body['error_codes'], [7000215]);
    assert.ok(!refused.text.includes(wrong));

    addSecret(world, 'rotated', { clientSecret: first });
    // The refusal is remembered for five seconds.
    await eventually(async () => {
      assertToken(await pod.ask(), 'rotated');
    }, 8_000);
    // The kept secret is refused from now on: the agent reads it anew by itself.
    world.entra.register({ ...application, secrets: [{ value: second }] });
    addSecret(world, 'rotated', { clientSecret: second });
    assertToken(await pod.ask({ resource: 'https://management.azure.com' }), 'rotated');
    assertUnprinted(world, [wrong, first, second]);
    assertUntouched(world);
    return 'refused with AADSTS7000215, served after the change, and across a rotation at once';
  },
};

const certificateForms: Scenario = {
  name: 'certificate-forms',
  title: 'A certificate may be an old or a new PFX, with or without password, or PEM.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    const certificate = await world.ground.authority.issueClient('app', { signedBy: 'authority' });
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
      addSecret(world, name, data);
      const application = createEntraApplication(name, { certificates: [certificatePem] });
      addApplication(world, application, { type: 2, clientPassword: { name } }, 'certified');
    }
    addSecret(world, 'broken', { certificate: 'not a certificate' });
    const broken = createEntraApplication('broken', { certificates: [certificatePem] });
    addApplication(world, broken, { type: 2, clientPassword: { name: 'broken' } }, 'certified');
    const pod = await world.addPod({ name: 'app', binding: 'certified' });
    await world.untilAgentKnows();
    for (const name of Object.keys(forms)) {
      const { clientId } = createEntraApplication(name);
      assertToken(await pod.ask({ query: `client_id=${clientId}` }), name);
    }
    const reply = await pod.ask({ query: `client_id=${broken.clientId}` });
    assertRefused(reply, { status: 400, says: /Secret default\/broken/ });
    assertUnprinted(world, [keyPem.slice(40, 80)]);
    return 'three forms served; what is no certificate is refused with the name of its Secret';
  },
};

const federatedPods: Scenario = {
  name: 'federated-pods',
  title:
    'Pod federation: the subject is the pod’s service account, and its token is bound to a live pod.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    const account = { namespace: 'default', name: 'trusted' };
    for (const name of ['trusted', 'stranger']) {
      world.kube.apply(createServiceAccount({ name }));
    }
    const application = createEntraApplication('federated', federatedTo(account));
    addApplication(world, application, { type: 3, createdAtWallMs: Date.now() - hourMs });
    const trusted = await world.addPod({
      name: 'trusted',
      binding: 'federated',
      serviceAccount: 'trusted',
    });
    const stranger = await world.addPod({
      name: 'unbound',
      binding: 'federated',
      serviceAccount: 'stranger',
    });
    const second = await world.addPod({
      name: 'second',
      binding: 'federated',
      serviceAccount: 'trusted',
    });
    await world.untilAgentKnows();
    assertToken(await trusted.ask(), 'federated');
    assertToken(await second.ask(), 'federated');
    // A federated credential that was just made takes minutes to be known everywhere.
    const says = /^AADSTS700213: .*AzureIdentity default\/federated of pod default\/unbound/;
    assertRefused(await stranger.ask(), { status: 503, says });
    const asked = world.entra.requests().map(({ subject, code }) => [subject, code]);
    assert.deepEqual(asked, [
      ['system:serviceaccount:default:trusted', undefined],
      ['system:serviceaccount:default:stranger', 700213],
    ]);
    await world.removePod(trusted);
    await world.removePod(second);
    const third = await world.addPod({
      name: 'third',
      binding: 'federated',
      serviceAccount: 'trusted',
    });
    await untilToken(third, 'federated');
    assertUntouched(world);
    return 'two pods of one account share a token, another account is refused, 503 while young';
  },
};

const federatedNode: Scenario = {
  name: 'federated-node',
  title: 'Node federation: the subject is the agent’s service account.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    world.kube.apply(createServiceAccount(agentAccount));
    const application = createEntraApplication('by-node', federatedTo(agentAccount));
    addApplication(world, application, { type: 3, federation: 'node' });
    const pods: LabPod[] = [];
    for (const name of ['one', 'two']) {
      pods.push(await world.addPod({ name, binding: 'by-node', serviceAccount: name }));
    }
    await world.untilAgentKnows();
    for (const pod of pods) assertToken(await pod.ask(), 'by-node');
    const [request, ...others] = world.entra.requests();
    assert.equal(request?.subject, `system:serviceaccount:kube-system:${agentAccount.name}`);
    assert.deepEqual(others, [], 'one token for both');
    const line = world.agent.lines.findLast((each) => each.includes('"source":"federated_node"'));
    assert.ok(line !== undefined, 'the log names the source');
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
  run: async (world) => {
    const application = createEntraApplication('annotated', {
      ...federatedTo({ namespace: 'default', name: 'annotated' }),
    });
    world.entra.register(application);
    const annotations = {
      'azure.workload.identity/client-id': application.clientId,
      'azure.workload.identity/tenant-id': labTenantId,
    };
    world.kube.apply(createServiceAccount({ name: 'annotated', annotations }));
    world.kube.apply(createServiceAccount({ name: 'bare' }));
    const labels = { 'azure.workload.identity/use': 'true' };
    const pod = await world.addPod({ name: 'old-sdk', labels, serviceAccount: 'annotated' });
    const bare = await world.addPod({ name: 'bare', labels, serviceAccount: 'bare' });
    const plain = await world.addPod({ name: 'plain', serviceAccount: 'annotated' });
    await world.untilAgentKnows();
    assertToken(await pod.ask(), 'annotated');
    assertToken(await pod.ask({ query: `client_id=${application.clientId}` }), 'annotated');
    const resource = 'https://management.azure.com/';
    assertToken(await pod.ask({ resource }), 'annotated');
    const assertions = world.kube.requests.filter(({ url }) => /annotated\/token/.test(url));
    assert.equal(assertions.length, 1, 'one assertion serves for every resource');
    const foreign = createEntraApplication('foreign').clientId;
    const other = await pod.ask({ query: `client_id=${foreign}` });
    assertRefused(other, { status: 400, says: /^Identity not found: the service account / });
    const says = /service account default\/bare has no annotation/;
    assertRefused(await bare.ask(), { status: 400, says });
    assertRefused(await plain.ask(), { status: 400, says: /has no label "aadpodidbinding"/ });
    assertUntouched(world);
    return 'served by its annotations; without label or annotation nothing';
  },
};

const auxiliaryTenants: Scenario = {
  name: 'auxiliary-tenants',
  title: 'A secret identity with auxiliary tenants returns a token of each tenant, its own first.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    const [value, tenant] = ['canary-of-tenants', '7e570000-1ab0-4000-8000-0000000000aa'];
    const application = createEntraApplication('wide', { secrets: [{ value }] });
    world.entra.register({ ...application, name: 'wide-elsewhere', tenantId: tenant });
    addSecret(world, 'wide', { clientSecret: value });
    addApplication(world, application, {
      type: 1,
      clientPassword: { name: 'wide' },
      auxiliaryTenantIds: [tenant],
    });
    const pod = await world.addPod({ name: 'app', binding: 'wide' });
    await world.untilAgentKnows();
    for (const turn of ['fetched', 'from memory']) {
      const reply = await pod.ask();
      assert.equal(reply.status, 200, reply.text);
      const bodies: unknown = JSON.parse(reply.text);
      assert.ok(Array.isArray(bodies));
      const identities = bodies.map((each) => findTokenIdentity(JSON.stringify(each)));
      assert.deepEqual(identities, ['wide', 'wide-elsewhere'], turn);
    }
    assert.equal(world.entra.requests().length, 2);
    assertUnprinted(world, [value]);
    return 'an array of two tokens, the same from memory';
  },
};

const entraTrouble: Scenario = {
  name: 'entra-trouble',
  title: 'Entra’s throttling and outages affect only pods without a cached token.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    const value = 'canary-of-trouble';
    for (const name of ['calm', 'loud']) {
      addSecret(world, name, { clientSecret: value });
      const application = createEntraApplication(name, { secrets: [{ value }] });
      addApplication(world, application, { type: 1, clientPassword: { name } }, 'app');
    }
    const pod = await world.addPod({ name: 'app', binding: 'app' });
    await world.untilAgentKnows();
    const [calm, loud] = ['calm', 'loud'].map(
      (name) => `client_id=${createEntraApplication(name).clientId}`,
    );
    assert.ok(calm !== undefined && loud !== undefined);
    assertToken(await pod.ask({ query: calm }), 'calm');

    world.entra.setFaults(
      { refuse: { code: 50196, retryAfterSec: 7 } },
      createEntraApplication('loud').clientId,
    );
    const throttled = await pod.ask({ query: loud });
    assertRefused(throttled, { status: 429, says: /./ });
    assert.ok(Number(throttled.headers.get('retry-after')) >= 7);
    const before = world.entra.requests().length;
    assertRefused(await pod.ask({ query: loud }), { status: 429, says: /./ });
    assert.equal(world.entra.requests().length, before, 'asked again within Retry-After');

    world.entra.setFaults({ fail: { status: 502 } });
    const resource = 'https://management.azure.com';
    assertToken(await pod.ask({ query: calm }), 'calm');
    assertRefused(await pod.ask({ query: calm, resource }), { status: 503, says: /Entra ID/ });
    world.entra.setFaults({});
    await eventually(async () => {
      assertToken(await pod.ask({ query: calm, resource }), 'calm');
    }, 3_000);
    assertUnprinted(world, [value]);
    return '429 with Retry-After and no further call; a page of HTML is a 503, and passes';
  },
};

export const entraScenarios: readonly Scenario[] = [
  fourTypes,
  rotatedSecret,
  certificateForms,
  federatedPods,
  federatedNode,
  auxiliaryTenants,
  entraTrouble,
  workloadIdentity,
];
