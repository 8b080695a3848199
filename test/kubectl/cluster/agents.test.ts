import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { defaultConfig, versionOf, viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { createAgentPod, createPod } from '../support/recorded-kubectl.ts';

describe('the agent of a node', () => {
  it('is read from its pod: node, state, version, options', () => {
    const agent = viewAgent(
      createAgentPod('node-1', {
        args: ['--node=$(NODE_NAME)', '--strict-identity', '--cloud=china'],
      }),
    );
    assert.equal(agent.node, 'node-1');
    assert.equal(agent.isReady, true);
    assert.equal(versionOf(agent), '0.1.0');
    assert.equal(agent.config?.strictIdentity, true);
    assert.equal(agent.config?.cloud, 'china');
    assert.equal(defaultConfig.strictIdentity, false);
    assert.equal(agent.isOldNmi, false);
  });

  it('is not ready with the kubelet’s reason for its container, or for the pod', () => {
    const view = (state: object) =>
      viewAgent(createPod('nmi', { status: { containerStatuses: [{ state }] } }));
    const waiting = view({ waiting: { reason: 'ImagePullBackOff', message: 'no such image' } });
    assert.equal(waiting.problem, 'ImagePullBackOff: no such image');
    assert.equal(view({ running: {} }).problem, 'phase Running');
    assert.match(viewAgent(createAgentPod('n', { isReady: false })).problem, /unready status/);
  });

  it('has the options of its variables, but not of empty ones', () => {
    const env = [
      { name: 'NMI_CLOUD', value: 'china' },
      { name: 'NMI_IDENTITY_OWNERS', value: '' },
      { name: 'NMI_STRICT_IDENTITY', valueFrom: {} },
    ];
    const { config } = viewAgent(
      createPod('nmi', { spec: { containers: [{ name: 'nmi', env }] } }),
    );
    const { cloud, identityOwners, strictIdentity } = defaultConfig;
    assert.notEqual(cloud, 'china');
    assert.deepEqual(
      [config?.cloud, config?.identityOwners, config?.strictIdentity],
      ['china', identityOwners, strictIdentity],
    );
  });

  it('has unknown options if they are another program’s', () => {
    assert.equal(viewAgent(createAgentPod('n', { args: ['--no-such-flag=1'] })).config, undefined);
  });

  it('is recognized as the old NMI by its image', () => {
    const image = 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17';
    const old = viewAgent(createAgentPod('n', { image }));
    assert.equal(old.isOldNmi, true);
    assert.equal(versionOf(old), 'v1.8.17');
    assert.equal(versionOf({ image: 'host:5000/nmi@sha256:abc' }), 'host:5000/nmi@sha256:abc');
    const pushed = 'host:5000/nmi:1.2.3';
    assert.equal(viewAgent(createAgentPod('n', { image: pushed })).isOldNmi, false, 'by its label');
    const viewUnlabelled = (unlabelledImage: string) =>
      viewAgent(
        createPod('nmi', {
          spec: {
            containers: [
              { name: 'a', image: unlabelledImage },
              { name: 'b', image: 'x' },
            ],
          },
        }),
      );
    assert.equal(viewUnlabelled(pushed).isOldNmi, true);
    assert.equal(viewUnlabelled('example/entra-pod-identity:0.1.0').isOldNmi, false);
  });
});
