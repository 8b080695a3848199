/** The whole agent with chains of credentials: what pods get, what is cached, and what is said. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createEntraApplication,
  type EntraApplication,
} from '../../lab/fakes/entra/applications.ts';
import { exchangeAudience } from '../../lab/fakes/exchange-tokens.ts';
import { labTenantId } from '../../lab/fakes/identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzureIdentityGrant,
  type AzureIdentityOptions,
} from '../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { inMovedTime, MovedTime } from '../conformance/own-agent.ts';
import { ask as askClient } from '../support/ask.ts';
import {
  bindPod,
  federatedTo,
  openEntraAgent,
  podAccount,
  trusting,
  type EntraAgent,
  type EntraTestBed,
} from '../support/entra-agent.ts';
import { identityA, identityB } from '../support/loopback-agent.ts';
import { OwnTime } from '../../lab/pods/own-time.ts';

const otherTenant = '7e570000-1ab0-4000-8000-0000000000aa';
const tokenPath = '/metadata/identity/oauth2/token?api-version=2018-02-01';
const resources = ['https://vault.azure.net', 'https://graph.microsoft.com'];

function applicationOf({ tenantId, clientId }: EntraApplication) {
  return { tenantID: tenantId, clientID: clientId };
}

function bind({ kube }: Pick<EntraTestBed, 'kube'>, identity: AzureIdentityOptions): void {
  const { name } = identity;
  kube.apply(createAzureIdentity(identity));
  kube.apply(createAzureIdentityBinding({ name, azureIdentity: name, selector: 'app' }));
}

const abroad = createEntraApplication('abroad', {
  ...trusting(identityA),
  tenantId: otherTenant,
  homeTenantId: labTenantId,
});
const blueprint = createEntraApplication('blueprint', trusting(identityA));
const agentOfNode = createEntraApplication('agent-1', { blueprint: blueprint.clientId });
const podBlueprint = createEntraApplication('pod-blueprint', federatedTo(podAccount));
const agentOfPod = createEntraApplication('agent-2', { blueprint: podBlueprint.clientId });

/** Each of the three chains, and a pod that is bound to all. */
function bindAll(testBed: EntraTestBed): void {
  bindPod(testBed.kube);
  for (const each of [abroad, blueprint, agentOfNode, podBlueprint, agentOfPod]) {
    testBed.entra.register(each);
  }
  const { clientId } = identityA;
  bind(testBed, { name: 'abroad', type: 4, clientId, application: applicationOf(abroad) });
  bind(testBed, {
    name: 'agent-1',
    type: 4,
    resourceId: identityA.resourceId,
    application: applicationOf(blueprint),
    agentIdentity: agentOfNode.clientId,
  });
  bind(testBed, {
    name: 'agent-2',
    type: 4,
    federation: 'pod',
    application: applicationOf(podBlueprint),
    agentIdentity: agentOfPod.clientId,
  });
}

function ask(agent: EntraAgent, clientId: string, resource = resources[0] ?? '') {
  const query = new URLSearchParams({ resource, client_id: clientId });
  return askClient(agent.client('127.0.0.11'), `${tokenPath}&${query.toString()}`);
}

/** Refused by the agent with these words; no token of any leg is in an answer or the log. */
async function assertSaid(agent: EntraAgent, clientId: string, status: number, says: RegExp) {
  const reply = await ask(agent, clientId);
  assert.equal(reply.status, status, reply.text);
  assert.match(String(reply.body['error_description']), says);
  assertUntold(agent, reply.text);
  return reply;
}

function assertUntold(agent: EntraAgent, text: string): void {
  const told = [text, ...agent.log].join('\n');
  for (const token of [...agent.imds.issuedTokens(), ...agent.entra.issuedTokens()]) {
    assert.ok(!told.includes(token.split('.')[2] ?? token), 'a token leaked');
  }
}

describe('chains of credentials', () => {
  it('end with the application or agent identity that the pod names', async () => {
    await using agent = await openEntraAgent({}, bindAll);
    for (const resource of resources) {
      for (const { name, clientId } of [abroad, agentOfNode, agentOfPod]) {
        const reply = await ask(agent, clientId, resource);
        assert.equal(reply.identity, name, reply.text);
        assert.equal(reply.body['client_id'], clientId);
      }
    }
    const asked = agent.entra
      .requests()
      .map(({ tenantId, clientId, fmiPath }) => [tenantId, clientId, fmiPath]);
    const once = (each: EntraApplication, fmiPath?: string) => [
      each.tenantId,
      each.clientId,
      fmiPath,
    ];
    assert.deepEqual(asked, [
      once(abroad),
      once(blueprint, agentOfNode.clientId),
      once(agentOfNode),
      once(podBlueprint, agentOfPod.clientId),
      once(agentOfPod),
      // Their assertions are in the cache.
      ...[abroad, agentOfNode, agentOfPod].map((each) => once(each)),
    ]);
    const ofNode = agent.imds
      .requests()
      .map(({ target }) => new URL(target, 'http://i').searchParams);
    assert.deepEqual(
      ofNode.map((query) => [
        query.get('resource'),
        query.get('client_id') ?? query.get('msi_res_id'),
      ]),
      [
        [exchangeAudience, identityA.clientId],
        [exchangeAudience, identityA.resourceId],
      ],
    );
    assertUntold(agent, '');
  });

  it('do not give a pod the identities that they begin with', async () => {
    await using agent = await openEntraAgent({}, bindAll);
    await ask(agent, agentOfNode.clientId);
    for (const { clientId } of [identityA, blueprint, podBlueprint]) {
      const reply = await ask(agent, clientId, exchangeAudience);
      assert.equal(reply.status, 400, reply.text);
      assert.match(reply.text, /selector_not_bound/);
    }
  });

  it('fetch a leg anew when its own life ends', async () => {
    using time = new MovedTime();
    await using agent = await openEntraAgent(inMovedTime, bindAll);
    assert.equal((await ask(agent, agentOfNode.clientId)).identity, 'agent-1');
    agent.entra.clear();
    agent.imds.clear();
    // An hour is the life of both tokens of Entra ID, and a day that of the managed identity's.
    time.pass(2 * 3_600_000);
    assert.equal((await ask(agent, agentOfNode.clientId)).identity, 'agent-1');
    assert.equal(agent.entra.requests().length, 2);
    assert.deepEqual(agent.imds.requests(), []);
  });

  it('go on with the legs in memory while the service of an earlier one fails', async () => {
    await using agent = await openEntraAgent({}, bindAll);
    const [first = '', second = ''] = resources;
    assert.equal((await ask(agent, abroad.clientId, first)).identity, 'abroad');
    await agent.imds.setFaults({ fail: { status: 500 }, paths: 'token' });
    assert.equal((await ask(agent, abroad.clientId, second)).identity, 'abroad');
    const says = /^No token for the moment: .*\[earlier leg of the chain: managed identity a\]/;
    const failed = await assertSaid(agent, agentOfNode.clientId, 503, says);
    assert.ok(Number(failed.headers.get('retry-after')) >= 1);
    await agent.imds.setFaults({});
    await eventually(async () => {
      assert.equal((await ask(agent, agentOfNode.clientId)).identity, 'agent-1');
    });
  });

  it('name the leg that failed and its fix', async () => {
    const managed = createEntraApplication('managed', federatedTo(podAccount));
    const unknown = createEntraApplication('unknown');
    const untrusting = createEntraApplication('untrusting', trusting(identityB));
    const there = createEntraApplication('there', {
      ...trusting(identityA),
      tenantId: otherTenant,
    });
    const orphan = createEntraApplication('orphan', { blueprint: untrusting.clientId });
    await using agent = await openEntraAgent({}, (testBed) => {
      bindAll(testBed);
      for (const each of [managed, untrusting, there, orphan]) testBed.entra.register(each);
      const { clientId } = identityA;
      const add = (name: string, more: Partial<AzureIdentityOptions>): void =>
        bind(testBed, { name, type: 4, clientId, ...more, createdAtWallMs: 0 });
      add('unassigned', { clientId: managed.clientId, application: applicationOf(managed) });
      add('unknown', { application: applicationOf(unknown) });
      add('untrusting', { application: applicationOf(untrusting) });
      add('there', { application: applicationOf(there) });
      add('orphan', { application: applicationOf(blueprint), agentIdentity: orphan.clientId });
    });
    await assertSaid(
      agent,
      managed.clientId,
      400,
      /^Identity not found: The managed identity of AzureIdentity default\/unassigned .* is not assigned/,
    );
    await assertSaid(agent, unknown.clientId, 400, /^AADSTS700016: .*application .* in tenant/);
    const refused = await assertSaid(
      agent,
      untrusting.clientId,
      503,
      /^AADSTS700213: .*leg of the chain: application .*it needs a federated credential with issuer https:\/\/login.*, subject /,
    );
    assert.ok(refused.text.includes(identityA.objectId));
    await assertSaid(agent, there.clientId, 400, /^AADSTS700236: .*multi-tenant/);
    await assertSaid(
      agent,
      orphan.clientId,
      503,
      /^AADSTS700213: .*must be the blueprint of this agent identity/,
    );
    const before = agent.entra.requests().length;
    await ask(agent, there.clientId);
    assert.equal(agent.entra.requests().length, before, 'asked again at once');
    agent.imds.unassign(identityA.clientId);
    await using other = await openEntraAgent({}, (testBed) => {
      bindAll(testBed);
      testBed.entra.unregister(blueprint);
    });
    await assertSaid(
      other,
      agentOfNode.clientId,
      400,
      new RegExp(`^AADSTS700016: .*leg of the chain: blueprint ${blueprint.clientId}`),
    );
  });

  const unusable: readonly (readonly [Partial<AzureIdentityOptions>, RegExp])[] = [
    [{ clientId: '' }, /names neither spec\.clientID nor spec\.resourceID/],
    [{ clientId: 'x' }, /has a spec\.clientID that is no GUID/],
    [{ application: { tenantID: '', clientID: abroad.clientId } }, /spec\.application\.tenantID/],
    [{ federation: 'pod' }, /AADSTS700231/],
    [{ federation: 'pod', clientId: '' }, /without spec\.agentIdentity/],
    [
      { federation: 'x', clientId: '', agentIdentity: agentOfPod.clientId },
      /neither .pod. nor .node./,
    ],
  ];
  for (const [index, [change, says]] of unusable.entries()) {
    it(`that cannot work are refused: ${says.source}`, async () => {
      await using agent = await openEntraAgent({}, (testBed) => {
        bindPod(testBed.kube);
        testBed.entra.register(abroad);
        const application = applicationOf(abroad);
        const name = `bad-${index}`;
        bind(testBed, { name, type: 4, clientId: identityA.clientId, application, ...change });
      });
      const reply = await assertSaid(agent, change.agentIdentity ?? abroad.clientId, 400, says);
      assert.match(reply.text, /identity_invalid/);
      assert.deepEqual(agent.entra.requests(), []);
      assert.deepEqual(agent.imds.requests(), []);
    });
  }

  it('of more identities than fetches run at once do not wait for each other', async () => {
    const agents = Array.from({ length: 20 }, (_, index) =>
      createEntraApplication(`crowd-${index}`, { blueprint: blueprint.clientId }),
    );
    await using agent = await openEntraAgent({}, (testBed) => {
      bindAll(testBed);
      for (const each of agents) {
        testBed.entra.register(each);
        bind(testBed, {
          name: each.name,
          type: 4,
          clientId: identityA.clientId,
          application: applicationOf(blueprint),
          agentIdentity: each.clientId,
        });
      }
    });
    agent.entra.setFaults({ delayMs: 100 });
    using time = new OwnTime();
    const replies = await Promise.all(agents.map(({ clientId }) => ask(agent, clientId)));
    assert.deepEqual(
      replies.map(({ identity }) => identity),
      agents.map(({ name }) => name),
    );
    assert.ok(time.nowMs() < 5_000, `${time.nowMs()} ms`);
    assert.equal(agent.imds.requests().length, 1, 'one assertion for all');
  });

  it('do not storm Entra ID when the application does not trust the managed identity', async () => {
    const untrusting = createEntraApplication('untrusting');
    await using agent = await openEntraAgent({}, (testBed) => {
      bindPod(testBed.kube);
      testBed.entra.register(untrusting);
      const application = applicationOf(untrusting);
      bind(testBed, { name: 'u', type: 4, clientId: identityA.clientId, application });
    });
    const untilMs = performance.now() + 3_000;
    while (performance.now() < untilMs) {
      const replies = await Promise.all(
        Array.from({ length: 20 }, () => ask(agent, untrusting.clientId)),
      );
      for (const { status } of replies) assert.equal(status, 503);
    }
    const asked = agent.entra.requests().length;
    assert.ok(asked <= 6, `${asked} requests`);
    assert.equal(agent.imds.requests().length, 1);
  });

  it('need a grant for what they end with, not for the managed identity', async () => {
    await using agent = await openEntraAgent({ 'identity-owners': 'enforce' }, (testBed) => {
      bindAll(testBed);
      const namespaces = ['default'];
      const clientIDs = [identityA.clientId, blueprint.clientId];
      testBed.kube.apply(createAzureIdentityGrant('g', { namespaces, clientIDs }));
    });
    for (const { clientId } of [abroad, agentOfNode]) {
      const reply = await ask(agent, clientId);
      assert.match(reply.text, /identity_not_owned/);
      assert.ok(reply.text.includes(clientId), reply.text);
    }
    assert.equal((await ask(agent, agentOfPod.clientId)).identity, 'agent-2');
    const clientIDs = [abroad.clientId, agentOfNode.clientId];
    agent.kube.apply(createAzureIdentityGrant('h', { namespaces: ['default'], clientIDs }));
    for (const { name, clientId } of [abroad, agentOfNode]) {
      await eventually(async () => {
        assert.equal((await ask(agent, clientId)).identity, name);
      });
    }
  });

  it('are revoked as a whole', async () => {
    await using agent = await openEntraAgent({}, bindAll);
    await ask(agent, agentOfNode.clientId);
    agent.entra.clear();
    const notBefore = new Date().toISOString();
    const identity = createAzureIdentity({
      name: 'agent-1',
      type: 4,
      resourceId: identityA.resourceId,
      application: applicationOf(blueprint),
      agentIdentity: agentOfNode.clientId,
    });
    agent.kube.apply({ ...identity, spec: { ...identity.spec, notBefore } });
    await eventually(async () => {
      await ask(agent, agentOfNode.clientId);
      assert.equal(agent.entra.requests().length, 2);
    }, 5_000);
  });
});
