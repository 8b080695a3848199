import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { rightsForIdentities, rightsOfAgent } from '../../../src/kubectl/findings/agent-rights.ts';
import { createAgentPod, createIdentity } from '../support/recorded-kubectl.ts';

const agent = viewAgent(createAgentPod('node-1'));

describe('the rights of the agent', () => {
  it('are list and watch of pods and the four kinds, and Events if they are on', () => {
    const resources = rightsOfAgent(agent).map(({ verb, resource }) => `${verb} ${resource}`);
    assert.equal(resources.length, 11);
    assert.ok(resources.includes('watch azureidentitygrants.aadpodidentity.k8s.io'));
    assert.ok(resources.includes('create events.events.k8s.io'));
    const quiet = viewAgent(createAgentPod('node-1', { args: ['--events=false'] }));
    assert.equal(rightsOfAgent(quiet).length, 10);
  });

  it('are those that --startup-taint and --workload-identity need', () => {
    const rightsWith = (arg: string) =>
      rightsOfAgent(viewAgent(createAgentPod('node-1', { args: [arg] }))).slice(11);
    assert.deepEqual(rightsWith('--startup-taint=example.com/starting'), [
      { verb: 'get', resource: 'nodes', mayBeAsNode: true },
      { verb: 'patch', resource: 'nodes' },
    ]);
    assert.deepEqual(rightsWith('--workload-identity'), [
      { verb: 'get', resource: 'serviceaccounts', isPerNamespace: true },
      {
        verb: 'create',
        resource: 'serviceaccounts/token',
        mayBeAsNode: true,
        isPerNamespace: true,
      },
    ]);
  });

  it('are what every agent needs, if its flags cannot be read', () => {
    const rights = rightsOfAgent({ ...agent, config: undefined });
    assert.deepEqual(
      [...new Set(rights.map(({ verb }) => verb))],
      ['list', 'watch'],
      'it may write nothing',
    );
    assert.equal(rights.length, 10);
  });

  it('are those of the node as well, for what the agent may ask as its own node', () => {
    assert.deepEqual(
      rightsOfAgent(agent).flatMap(({ verb, resource, mayBeAsNode }) =>
        mayBeAsNode === true ? [`${verb} ${resource}`] : [],
      ),
      ['list pods', 'watch pods'],
    );
  });

  it('are fewer for the replaced system, which has no grants', () => {
    const old = viewAgent(createAgentPod('n', { image: 'example/aad-pod-identity/nmi:v1.8.17' }));
    assert.deepEqual(
      rightsOfAgent(old).filter(({ resource }) => /grants|events/.test(resource)),
      [],
    );
  });

  it('are those of each identity, each once for a namespace', () => {
    const rights = rightsForIdentities(
      [
        createIdentity('plain'),
        createIdentity('a', { type: 1 }),
        createIdentity('b', { type: 2 }),
        createIdentity('c', { type: 1 }, { namespace: 'other' }),
        createIdentity('d', { type: 3 }),
        createIdentity('e', { type: 3, federation: 'node' }),
        createIdentity('f', { type: 4 }),
        createIdentity('g', { type: 4, federation: 'pod' }),
        createIdentity('unknown', { type: 'x' }),
        createIdentity('untyped', { type: undefined }),
      ],
      agent,
    );
    assert.deepEqual(
      rights.map(({ verb, resource, namespace, mayBeAsNode = false, identities }) => [
        ...[verb, resource, namespace, mayBeAsNode],
        ...identities,
      ]),
      [
        ['get', 'secrets', 'shop', false, 'shop/a', 'shop/b'],
        ['get', 'secrets', 'other', false, 'other/c'],
        ['create', 'serviceaccounts/token', 'shop', true, 'shop/d', 'shop/g'],
        ['create', 'serviceaccounts/token', 'kube-system', true, 'shop/e'],
      ],
    );
  });
});
