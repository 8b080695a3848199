import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { createContexts } from '../../../src/kubectl/findings/contexts.ts';
import { bound, agentWith, web } from '../support/assess.ts';
import {
  createAgentPod,
  createPod,
  createSnapshot,
  nowWallMs,
  terminating,
} from '../support/recorded-kubectl.ts';

describe('the contexts of agents', () => {
  const node2 = createPod('api', { ...bound, ip: '10.244.2.7', spec: { nodeName: 'node-2' } });
  const strict = viewAgent(createAgentPod('node-2', { args: ['--strict-identity'] }));
  const both = [...agentWith(), { ...strict, isVerified: true }];
  const open = (agents: ReturnType<typeof createSnapshot>['agents']) =>
    createContexts(createSnapshot({ pods: [web, node2], agents }), nowWallMs);

  it('follow the agent of the node of each pod', () => {
    const contexts = open(both);
    assert.equal(contexts.agentOf(node2)?.name, 'nmi-node-2');
    assert.deepEqual(
      [web, node2].map((pod) => contexts.of(pod).config.strictIdentity),
      [false, true],
    );
    assert.equal(contexts.of(web), contexts.of(web), 'each is made once');
    assert.equal(contexts.all().length, 2);
  });

  it('follow the agent that serves, of two that an update has on a node', () => {
    const options = { name: 'nmi-next', args: ['--strict-identity'] };
    const [present] = agentWith();
    assert.ok(present !== undefined);
    const next = viewAgent(createAgentPod('node-1', options));
    const starting = viewAgent(createAgentPod('node-1', { ...options, isReady: false }));
    const ending = viewAgent(terminating(createAgentPod('node-1', options)));
    const creationTimestamp = '2026-11-20T00:00:00Z';
    const newer = { ...next, pod: { metadata: { creationTimestamp } } };
    for (const [other, served] of [
      [starting, present],
      [ending, present],
      [newer, newer],
    ] as const) {
      for (const agents of [
        [present, other],
        [other, present],
      ]) {
        const contexts = open(agents);
        assert.equal(contexts.agentOf(web), served);
        assert.equal(contexts.of(web).config, served.config);
        assert.equal(contexts.all().length, 1);
      }
    }
  });

  it('assume the options of other agents, or those of an agent by default', () => {
    const far = createPod('far', { spec: { nodeName: 'node-3' } });
    const [, second] = both;
    assert.ok(second !== undefined);
    const assumed = open([second]).of(far);
    assert.deepEqual([assumed.config.strictIdentity, assumed.knowsOptions], [true, false]);
    const unseen = open(undefined);
    assert.deepEqual(
      unseen.all().map(({ config, knowsOptions }) => [config.strictIdentity, knowsOptions]),
      [[false, false]],
    );
    assert.equal(open([strict]).of(node2).knowsOptions, false, 'it is not verified');
  });
});
