/** A user of a namespace names another team's identity: client IDs are not secret. */
import assert from 'node:assert/strict';
import { createEntraApplication } from '../../fakes/entra/applications.ts';
import { createServiceAccount } from '../../fakes/kube/manifests.ts';
import { OwnTime } from '../../pods/own-time.ts';
import { addApplication, federatedTo } from '../../test-bed/entra-objects.ts';
import { eventually } from '../../test-bed/eventually.ts';
import {
  assertRefused,
  assertToken,
  assertUpstream,
  untilRefused,
  untilToken,
  type Refusal,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { agentAccount, type TestBed } from '../../test-bed/test-bed.ts';

/** Used only here, so that no other scenario has cached a token. */
const resource = 'https://owners.lab';
const ask = { resource };
/** Old enough that no related object can still be on its way. */
const objectAgeMs = 3_600_000;
const notOwned: Refusal = {
  status: 400,
  says: /^Identity not found: AzureIdentity thief\/loot of pod thief\/thief has the client id .* no AzureIdentityGrant gives to namespace thief\. .*spec\.clientIDs/,
};
const notExcepted: Refusal = {
  status: 400,
  says: /^Identity not found: AzurePodIdentityException thief\/all .*spec\.nodeIdentities/,
};

/** Namespace `shop` has an identity; a user of `thief` has an AzureIdentity for the same one. */
async function arrange(testBed: TestBed) {
  const { clientId } = testBed.bind('till', 'till', 'shop');
  testBed.addIdentity('loot', 'thief', 'till');
  testBed.addBinding('loot', 'loot', 'loot', 'thief');
  testBed.addGrant('shop', { namespaces: ['shop'], clientIDs: [clientId] });
  const shop = await testBed.addPod({ name: 'shop', namespace: 'shop', binding: 'till' });
  const thief = await testBed.addPod({ name: 'thief', namespace: 'thief', binding: 'loot' });
  await testBed.untilAgentKnows();
  return { clientId, shop, thief };
}

const warned: Scenario = {
  name: 'identity-not-owned-warned',
  title: 'By default an identity without a grant is served, and counted in a metric.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    const { clientId, shop, thief } = await arrange(testBed);
    assertToken(await shop.ask(ask), 'till');
    assertToken(await thief.ask(ask), 'till');
    const counted = (wanted: number) =>
      eventually(async () => {
        assert.equal(await testBed.agent.metric('nmi_identities_not_owned{mode="warn"}'), wanted);
      }, 12_000);
    await counted(1);
    testBed.addGrant('thief', { namespaces: ['thief'], clientIDs: [clientId.toUpperCase()] });
    await counted(0);
    assertToken(await thief.ask(ask), 'till');
    assertUpstream(testBed, ['till']);
    return 'served with and without a grant, counted until there was one';
  },
};

const enforced: Scenario = {
  name: 'identity-not-owned',
  title:
    'With enforced owners, a pod gets an identity only while a grant gives it to its namespace.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  agentFlags: ['--identity-owners=enforce'],
  run: async (testBed) => {
    const { clientId, shop, thief } = await arrange(testBed);
    const kept = { ...ask, connection: 'kept' };
    assertToken(await shop.ask(ask), 'till');
    // Its token is cached by now: neither the cache nor an explicit ID gives access.
    for (const query of ['', `client_id=${clientId}`]) {
      assertRefused(await thief.ask({ ...kept, query }), notOwned);
    }
    testBed.addGrant('thief', { namespaces: ['thief'], clientIDs: [clientId.toUpperCase()] });
    await untilToken(thief, 'till', kept);
    testBed.deleteObject('AzureIdentityGrant', 'thief');
    using time = new OwnTime();
    await untilRefused(thief, notOwned, ask);
    const afterMs = time.nowMs();
    assert.ok(afterMs < 1_000, `still served ${Math.round(afterMs)} ms later`);
    assertRefused(await thief.ask(kept), notOwned);
    assertToken(await shop.ask(ask), 'till');
    assertUpstream(testBed, ['till']);
    return `refused, served with a grant, refused ${Math.round(afterMs)} ms after its deletion`;
  },
};

const aroundByException: Scenario = {
  name: 'exception-not-owned',
  title: 'With enforced owners, an exception gives the node’s identities only by a grant.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  agentFlags: ['--identity-owners=enforce'],
  run: async (testBed) => {
    const { clientId, thief } = await arrange(testBed);
    const named = { ...ask, query: `client_id=${clientId}` };
    testBed.addException('all', { aadpodidbinding: 'loot' }, 'thief');
    await testBed.untilAgentKnows();
    assertRefused(await thief.ask(ask), notExcepted);
    assertRefused(await thief.ask(named), notExcepted);
    testBed.addGrant('ops', { namespaces: ['thief'], nodeIdentities: true });
    await untilToken(thief, 'till', named);
    testBed.deleteObject('AzureIdentityGrant', 'ops');
    await untilRefused(thief, notExcepted, named);
    assertUpstream(testBed, ['till']);
    return 'an exception opened nothing until an administrator granted the node’s identities';
  },
};

const application: Scenario = {
  name: 'application-not-owned',
  title: 'With enforced owners, node federation needs a grant, and pod federation does not.',
  needs: 'any',
  inTour: false,
  agentFlags: ['--identity-owners=enforce'],
  run: async (testBed) => {
    const robot = { namespace: 'default', name: 'robot' };
    for (const account of [agentAccount, robot]) testBed.kube.apply(createServiceAccount(account));
    const createdAtWallMs = Date.now() - objectAgeMs;
    const byAgent = createEntraApplication('by-agent', federatedTo(agentAccount));
    addApplication(testBed, byAgent, { type: 3, federation: 'node', createdAtWallMs });
    const byPod = createEntraApplication('by-pod', federatedTo(robot));
    addApplication(testBed, byPod, { type: 3, createdAtWallMs });
    const agents = await testBed.addPod({ name: 'agents', binding: 'by-agent' });
    const own = await testBed.addPod({ name: 'own', binding: 'by-pod', serviceAccount: 'robot' });
    await testBed.untilAgentKnows();
    assertToken(await own.ask(ask), 'by-pod');
    const says =
      /AzureIdentity default\/by-agent .*no AzureIdentityGrant gives to namespace default/;
    const refused: Refusal = { status: 400, says };
    assertRefused(await agents.ask(ask), refused);
    testBed.addGrant('robots', { namespaces: ['default'], clientIDs: [byAgent.clientId] });
    await untilToken(agents, 'by-agent', ask);
    testBed.deleteObject('AzureIdentityGrant', 'robots');
    await untilRefused(agents, refused, ask);
    assertToken(await own.ask(ask), 'by-pod');
    return 'node federation was refused without a grant, pod federation was served';
  },
};

export const ownerScenarios: readonly Scenario[] = [
  warned,
  enforced,
  aroundByException,
  application,
];
