import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { readCredentialTarget, readIssuer } from '../../../src/kubectl/cluster/issuer.ts';
import { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import { createAgentPod, ok } from '../support/recorded-kubectl.ts';
import { createIo } from '../support/silent-io.ts';

const issuerFrom = (text: string) =>
  readIssuer(new Kubectl(createIo(() => Promise.resolve(ok(text)))));

describe('the issuer of service account tokens', () => {
  it('is one that Entra ID can read, and nothing that az takes for a file or two words', async () => {
    const { issuer } = { issuer: 'https://oidc.example/1/' };
    assert.equal(await issuerFrom(JSON.stringify({ issuer })), issuer);
    for (const wrong of ['http://x/', 'kubernetes.default.svc', '@file', 'https://x y', '']) {
      await assert.rejects(issuerFrom(JSON.stringify({ issuer: wrong })), {
        message: 'the cluster has no issuer that Entra ID could read',
      });
    }
    await assert.rejects(issuerFrom('no JSON'));
  });
});

describe('the target of federated credentials', () => {
  const kubectl = new Kubectl(
    createIo(() => Promise.resolve(ok('{"issuer":"https://oidc.example/"}'))),
  );
  const targetOf = (...args: readonly string[]) =>
    readCredentialTarget(kubectl, [viewAgent(createAgentPod('node-1', { args }))]);

  it('has the audience of the agents: their own, or that of their cloud', async () => {
    const [gov, own] = [
      await targetOf('--cloud=usgovernment'),
      await targetOf('--entra-audience=api://corp'),
    ];
    assert.deepEqual(
      [gov.audience, own.audience],
      ['api://AzureADTokenExchangeUSGov', 'api://corp'],
    );
    assert.deepEqual(
      [gov.legAudience, own.legAudience],
      ['api://AzureADTokenExchangeUSGov', 'api://AzureADTokenExchange'],
      'Entra ID takes no other for a managed identity',
    );
    assert.deepEqual([gov.notes, own.notes], [[], []]);
  });

  it('is assumed, and says so, where no agent shows its options', async () => {
    const { issuer, audience, notes } = await readCredentialTarget(kubectl, []);
    assert.deepEqual([issuer, audience], ['https://oidc.example/', 'api://AzureADTokenExchange']);
    assert.match(String(notes), /the audience is assumed/);
  });
});
