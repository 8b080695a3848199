/** The whole agent with chains of credentials: what pods get, what is cached, and what is said. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createEntraApplication,
  type EntraApplication,
} from '../../../lab/fakes/entra/applications.ts';
import { exchangeAudience } from '../../../lab/fakes/exchange-tokens.ts';
import { labTenantId } from '../../../lab/fakes/identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  type AzureIdentityOptions,
} from '../../../lab/fakes/kube/manifests.ts';
import { OwnTime } from '../../../lab/pods/own-time.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { inMovedTime, MovedTime } from '../../conformance/own-agent.ts';
import { ask as askClient, tokenTarget } from '../../support/ask.ts';
import {
  bindPod,
  federatedTo,
  openEntraAgent,
  podAccount,
  trusting,
  type EntraAgent,
  type EntraTestBed,
} from '../../support/entra-agent.ts';
import { identityA, identityB } from '../../support/loopback-agent.ts';

const otherTenant = '7e570000-1ab0-4000-8000-0000000000aa';
const abroad = createEntraApplication('abroad', {
  ...trusting(identityA),
  tenantId: otherTenant,
  homeTenantId: labTenantId,
});
const blueprint = createEntraApplication('blueprint', trusting(identityA));
const agentOfNode = createEntraApplication('agent-1', { blueprint: blueprint.clientId });
const podBlueprint = createEntraApplication('pod-blueprint', federatedTo(podAccount));
const agentOfPod = createEntraApplication('agent-2', { blueprint: podBlueprint.clientId });

/** Binds an AzureIdentity of type 4 that goes over this application. */
function bind(
  kube: EntraTestBed['kube'],
  name: string,
  { tenantId, clientId }: EntraApplication,
  fields: Partial<AzureIdentityOptions> = { clientId: identityA.clientId },
): void {
  const application = { tenantID: tenantId, clientID: clientId };
  kube.apply(createAzureIdentity({ name, type: 4, application, ...fields }));
  kube.apply(createAzureIdentityBinding({ name, azureIdentity: name, selector: 'app' }));
}

const ofNode = {
  resourceId: identityA.resourceId,
  agentIdentity: agentOfNode.clientId,
};

/** Each of the three chains, and a pod that is bound to all. */
function bindAll({ kube, entra }: EntraTestBed): void {
  bindPod(kube);
  for (const each of [abroad, blueprint, agentOfNode, podBlueprint, agentOfPod]) {
    entra.register(each);
  }
  bind(kube, 'abroad', abroad);
  bind(kube, 'agent-1', blueprint, ofNode);
  const ofPod = { federation: 'pod', agentIdentity: agentOfPod.clientId };
  bind(kube, 'agent-2', podBlueprint, ofPod);
}

function ask(agent: EntraAgent, { clientId }: EntraApplication, resource = 'vault') {
  const target = `${tokenTarget.replace('vault', resource)}&client_id=${clientId}`;
  return askClient(agent.client('127.0.0.11'), target);
}

/** No token of any leg is in an answer or the log. */
function assertUntold(agent: EntraAgent, text: string): void {
  const told = [text, ...agent.log].join('\n');
  for (const token of [...agent.imds.issuedTokens(), ...agent.entra.issuedTokens()]) {
    assert.ok(!told.includes(token.split('.')[2] ?? token), 'a token leaked');
  }
}

async function assertSaid(agent: EntraAgent, of: EntraApplication, status: number, says: RegExp) {
  const reply = await ask(agent, of);
  assert.equal(reply.status, status, reply.text);
  assert.match(String(reply.body['error_description']), says);
  assertUntold(agent, reply.text);
  return reply;
}

describe('chains of credentials', () => {
  it('end with the application or agent identity that the pod names', async () => {
    await using agent = await openEntraAgent({}, bindAll);
    const ends = [abroad, agentOfNode, agentOfPod];
    for (const resource of ['vault', 'graph']) {
      for (const end of ends) {
        const { identity, text, body } = await ask(agent, end, resource);
        assert.deepEqual([identity, body['client_id']], [end.name, end.clientId], text);
      }
    }
    const asked = agent.entra.requests();
    const once = ({ tenantId, clientId }: EntraApplication, fmiPath?: string) => {
      return [tenantId, clientId, fmiPath];
    };
    assert.deepEqual(
      asked.map(({ tenantId, clientId, fmiPath }) => [tenantId, clientId, fmiPath]),
      [
        once(abroad),
        once(blueprint, agentOfNode.clientId),
        once(agentOfNode),
        once(podBlueprint, agentOfPod.clientId),
        once(agentOfPod),
        // Their assertions are in the cache.
        ...ends.map((each) => once(each)),
      ],
    );
    const queries = agent.imds
      .requests()
      .map(({ target }) => new URL(target, 'http://i').searchParams);
    assert.deepEqual(
      queries.map((query) =>
        ['resource', 'client_id', 'msi_res_id'].map((name) => query.get(name)),
      ),
      [
        [exchangeAudience, identityA.clientId, null],
        [exchangeAudience, null, identityA.resourceId],
      ],
    );
    assertUntold(agent, '');
  });

  it('fetch a leg anew when its own life ends', async () => {
    using time = new MovedTime();
    await using agent = await openEntraAgent(inMovedTime, bindAll);
    assert.equal((await ask(agent, agentOfNode)).identity, 'agent-1');
    agent.entra.clear();
    agent.imds.clear();
    // An hour is the life of both tokens of Entra ID, and a day that of the managed identity's.
    time.pass(2 * 3_600_000);
    assert.equal((await ask(agent, agentOfNode)).identity, 'agent-1');
    assert.equal(agent.entra.requests().length, 2);
    assert.deepEqual(agent.imds.requests(), []);
  });

  it('go on with the legs in memory while the service of an earlier one fails', async () => {
    await using agent = await openEntraAgent({}, bindAll);
    assert.equal((await ask(agent, abroad)).identity, 'abroad');
    await agent.imds.setFaults({ fail: { status: 500 }, paths: 'token' });
    assert.equal((await ask(agent, abroad, 'graph')).identity, 'abroad');
    const says = /^No token for the moment: .*\[earlier leg of the chain: managed identity a\]/;
    const failed = await assertSaid(agent, agentOfNode, 503, says);
    assert.ok(Number(failed.headers.get('retry-after')) >= 1);
    await agent.imds.setFaults({});
    await eventually(async () => {
      assert.equal((await ask(agent, agentOfNode)).identity, 'agent-1');
    });
  });

  it('name the leg that failed and its fix', async () => {
    const untrusting = createEntraApplication('untrusting', trusting(identityB));
    const orphan = createEntraApplication('orphan', { blueprint: untrusting.clientId });
    const there = { ...trusting(identityA), tenantId: otherTenant };
    const rows: readonly (readonly [EntraApplication, number, RegExp])[] = [
      [createEntraApplication('unknown'), 400, /^AADSTS700016: .*application .* in tenant/],
      [
        untrusting,
        503,
        /^AADSTS700213: .*leg of the chain: application .*it needs a federated credential with issuer https:\/\/login.*, subject /,
      ],
      [createEntraApplication('there', there), 400, /^AADSTS700236: .*multi-tenant/],
      [orphan, 503, /^AADSTS700213: .*must be the blueprint of this agent identity/],
      [agentOfNode, 400, /^AADSTS700016: .*leg of the chain: blueprint \S+/],
    ];
    await using agent = await openEntraAgent({}, (testBed) => {
      const { kube, entra } = testBed;
      bindAll(testBed);
      for (const [end] of rows) {
        if (end.name !== 'unknown') entra.register(end);
        if (end !== orphan && end !== agentOfNode) bind(kube, end.name, end);
      }
      bind(kube, 'orphan', podBlueprint, { federation: 'pod', agentIdentity: orphan.clientId });
      entra.unregister(blueprint);
    });
    for (const [end, status, says] of rows) {
      const { text } = await assertSaid(agent, end, status, says);
      if (end === untrusting) assert.ok(text.includes(identityA.objectId));
    }
  });

  it('of more identities than fetches run at once do not wait for each other', async () => {
    const agents = Array.from({ length: 20 }, (_, index) =>
      createEntraApplication(`crowd-${index}`, { blueprint: blueprint.clientId }),
    );
    const { clientId } = identityA;
    await using agent = await openEntraAgent({}, (testBed) => {
      bindAll(testBed);
      for (const each of agents) {
        testBed.entra.register(each);
        bind(testBed.kube, each.name, blueprint, { clientId, agentIdentity: each.clientId });
      }
    });
    agent.entra.setFaults({ delayMs: 100 });
    using time = new OwnTime();
    const replies = await Promise.all(agents.map((each) => ask(agent, each)));
    const names = replies.map(({ identity }) => identity);
    assert.deepEqual(
      names,
      agents.map(({ name }) => name),
    );
    assert.ok(time.nowMs() < 5_000, `${time.nowMs()} ms`);
    assert.equal(agent.imds.requests().length, 1, 'one assertion for all');
  });

  it('do not storm Entra ID when the application does not trust the managed identity', async () => {
    const untrusting = createEntraApplication('untrusting');
    await using agent = await openEntraAgent({}, ({ kube, entra }) => {
      bindPod(kube);
      entra.register(untrusting);
      bind(kube, 'u', untrusting);
    });
    const untilMs = performance.now() + 3_000;
    while (performance.now() < untilMs) {
      const all = Array.from({ length: 20 }, () => ask(agent, untrusting));
      for (const { status } of await Promise.all(all)) assert.equal(status, 503);
    }
    const asked = agent.entra.requests().length;
    assert.ok(asked <= 6, `${asked} requests`);
    assert.equal(agent.imds.requests().length, 1);
  });

  it('are revoked as a whole', async () => {
    await using agent = await openEntraAgent({}, bindAll);
    await ask(agent, agentOfNode);
    agent.entra.clear();
    const spec = { notBefore: new Date().toISOString() };
    agent.kube.patch({ kind: 'AzureIdentity', namespace: 'default', name: 'agent-1' }, { spec });
    await eventually(async () => {
      await ask(agent, agentOfNode);
      assert.equal(agent.entra.requests().length, 2);
    }, 5_000);
  });
});
