/** Chains of credentials: the tokens of applications that trust a managed identity, and of agent identities. */
import assert from 'node:assert/strict';
import { createEntraApplication, type EntraApplication } from '../../fakes/entra/applications.ts';
import { exchangeAudience, exchangeIssuer } from '../../fakes/exchange-tokens.ts';
import { labTenantId } from '../../fakes/identity.ts';
import type { LabIdentity } from '../../fakes/token.ts';
import {
  createAzureIdentity,
  createServiceAccount,
  type AzureIdentityOptions,
} from '../../fakes/kube/manifests.ts';
import { federatedTo } from '../../test-bed/entra-objects.ts';
import { assertRefused, assertToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

const otherTenant = '7e570000-1ab0-4000-8000-0000000000aa';
const account = { namespace: 'default', name: 'robot' };
const binding = 'chained';

function trusting({ objectId }: LabIdentity): Pick<EntraApplication, 'federatedCredentials'> {
  const issuer = exchangeIssuer(labTenantId);
  return { federatedCredentials: [{ issuer, subject: objectId, audience: exchangeAudience }] };
}

/** An AzureIdentity of type 4 and its binding. */
function addChain(
  testBed: TestBed,
  name: string,
  { tenantId, clientId }: EntraApplication,
  more: Partial<AzureIdentityOptions>,
): void {
  const application = { tenantID: tenantId, clientID: clientId };
  testBed.kube.apply(createAzureIdentity({ name, type: 4, application, ...more }));
  testBed.addBinding(name, name, binding);
}

/** No token of any leg appears in the agent's output. */
function assertUnprinted(testBed: TestBed): void {
  const printed = testBed.agent.lines.join('\n');
  for (const token of [...testBed.entra.issuedTokens(), ...testBed.imds.issuedTokens()]) {
    assert.ok(!printed.includes(token), 'the agent printed a token');
  }
}

const applicationChain: Scenario = {
  name: 'application-chain',
  title:
    'A pod gets the token of an application in another tenant, whose credential is the managed identity of the pod.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const managed = testBed.assignIdentity('managed');
    const details = { tenantId: otherTenant, homeTenantId: labTenantId, ...trusting(managed) };
    const abroad = createEntraApplication('abroad', details);
    const resident = createEntraApplication('resident', { ...details, homeTenantId: otherTenant });
    for (const application of [abroad, resident]) testBed.entra.register(application);
    const { clientId } = managed;
    addChain(testBed, 'abroad', abroad, { clientId });
    addChain(testBed, 'resident', resident, { clientId });
    const pod = await testBed.addPod({ name: 'app', binding });
    await testBed.untilAgentKnows();
    const query = `client_id=${abroad.clientId}`;
    assertToken(await pod.ask({ query }), 'abroad');
    assertToken(await pod.ask({ query }), 'abroad');
    assertToken(await pod.ask({ query, resource: 'https://graph.microsoft.com' }), 'abroad');
    assert.equal(testBed.imds.requests().length, 1, 'the assertion is cached');
    assert.equal(testBed.entra.requests().length, 2);

    const ofFirst = await pod.ask({ query: `client_id=${clientId}`, resource: exchangeAudience });
    assertRefused(ofFirst, { status: 400, says: /selector_not_bound/ });
    const says = /^AADSTS700236: .*leg of the chain: application .*as multi-tenant/;
    assertRefused(await pod.ask({ query: `client_id=${resident.clientId}` }), {
      status: 400,
      says,
    });
    assertUnprinted(testBed);
    return 'its token from one assertion for two resources; the managed identity itself is not given';
  },
};

const agentIdentity: Scenario = {
  name: 'agent-identity',
  title:
    'A pod gets the token of an agent identity, whose blueprint trusts a managed identity or a service account.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.kube.apply(createServiceAccount(account));
    const managed = testBed.assignIdentity('managed');
    const { entra } = testBed;
    const ofNode = createEntraApplication('of-node', trusting(managed));
    const ofPod = createEntraApplication('of-pod', federatedTo(account));
    const agents = [ofNode, ofNode, ofPod].map(({ clientId: blueprint }, index) =>
      createEntraApplication(`agent-${index}`, { blueprint }),
    );
    for (const application of [ofNode, ofPod, ...agents]) entra.register(application);
    for (const { name, clientId, blueprint } of agents) {
      const first =
        blueprint === ofNode.clientId ? { clientId: managed.clientId } : { federation: 'pod' };
      const application = blueprint === ofNode.clientId ? ofNode : ofPod;
      addChain(testBed, name, application, { ...first, agentIdentity: clientId });
    }
    const orphan = createEntraApplication('orphan', { blueprint: managed.clientId });
    entra.register(orphan);
    addChain(testBed, 'orphan', ofPod, { federation: 'pod', agentIdentity: orphan.clientId });
    const pod = await testBed.addPod({ name: 'app', binding, serviceAccount: account.name });
    await testBed.untilAgentKnows();
    for (const { name, clientId } of agents) {
      const query = `client_id=${clientId}`;
      assertToken(await pod.ask({ query }), name);
      assertToken(await pod.ask({ query, resource: 'https://graph.microsoft.com' }), name);
    }
    const paths = entra.requests().flatMap(({ fmiPath }) => fmiPath ?? []);
    assert.deepEqual(
      paths,
      agents.map(({ clientId }) => clientId),
      'one assertion for each agent identity',
    );
    assert.equal(testBed.imds.requests().length, 1);
    const says = /^AADSTS700213: .*must be the blueprint of this agent identity/;
    assertRefused(await pod.ask({ query: `client_id=${orphan.clientId}` }), { status: 503, says });
    const ofBlueprint = await pod.ask({ query: `client_id=${ofNode.clientId}` });
    assertRefused(ofBlueprint, { status: 400, says: /selector_not_bound/ });
    assertUnprinted(testBed);
    return 'three agent identities of two blueprints, each by its own fmi_path; a foreign one is refused';
  },
};

const chainByFederation: Scenario = {
  name: 'chain-by-federation',
  title:
    'Entra ID refuses an assertion that came by federation, so a chain that would send one is refused with the reason.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.kube.apply(createServiceAccount(account));
    const managed = createEntraApplication('managed', federatedTo(account));
    const application = createEntraApplication('application', trusting(managed));
    for (const each of [managed, application]) testBed.entra.register(each);
    const { clientId } = managed;
    addChain(testBed, 'application', application, { clientId, federation: 'pod' });
    const pod = await testBed.addPod({ name: 'app', binding, serviceAccount: account.name });
    await testBed.untilAgentKnows();
    const reply = await pod.ask({ query: `client_id=${application.clientId}` });
    assertRefused(reply, { status: 400, says: /AADSTS700231.*assign the managed identity/ });
    assert.deepEqual(testBed.entra.requests(), [], 'Entra ID was asked');
    return 'refused with AADSTS700231 before Entra ID was asked';
  },
};

export const chainScenarios: readonly Scenario[] = [
  applicationChain,
  agentIdentity,
  chainByFederation,
];
