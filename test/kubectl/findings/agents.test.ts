import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { examineAgents, findMic } from '../../../src/kubectl/findings/agents.ts';
import {
  createAgentPod,
  createAgentSet,
  createPod,
  terminating,
} from '../support/recorded-kubectl.ts';

const node = (name: string, labels = {}, kernelVersion = '6.8.0-1021-azure') => ({
  metadata: { name, labels },
  status: { nodeInfo: { kernelVersion } },
});
const linesOf = (...args: Parameters<typeof examineAgents>) =>
  examineAgents(...args).map(({ code, object }) => `${code} ${object}`);
const agent = (...args: Parameters<typeof createAgentPod>) => viewAgent(createAgentPod(...args));

describe('the agents of a cluster', () => {
  it('are one for each Linux node', () => {
    const nodes = [
      node('node-1'),
      node('win', { 'kubernetes.io/os': 'windows' }),
      node('virtual', { type: 'virtual-kubelet' }),
    ];
    assert.deepEqual(linesOf(nodes, [agent('node-1')]), []);
    assert.deepEqual(linesOf(nodes, []), ['agent_missing Node node-1']);
    const other = agent('node-1', { name: 'other', set: createAgentSet('other') });
    assert.deepEqual(linesOf(nodes, [agent('node-1'), other]), ['agents_on_node Node node-1']);
    assert.deepEqual(linesOf([], []), ['nodes_missing Cluster']);
  });

  it('are not beside those of another release, in whatever namespace that is', () => {
    const nodes = [node('node-1'), node('node-2')];
    const foreign = (name: string, image?: string) =>
      viewAgent({
        ...createAgentPod(name, { ...(image === undefined ? {} : { image }) }),
        metadata: { name: 'second', namespace: 'other' },
      });
    const own = [agent('node-1'), agent('node-2')];
    const [found, ...rest] = examineAgents(nodes, own, [foreign('node-2')]);
    assert.deepEqual([found?.code, found?.object, rest], ['agents_on_node', 'Node node-2', []]);
    assert.equal(
      found?.text,
      'The agents kube-system/nmi-node-2 and other/second are on the node.',
    );
    const old = 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17';
    assert.deepEqual(examineAgents(nodes, own, [foreign('node-2', old)]), []);
    assert.deepEqual(linesOf([node('node-1')], [], [foreign('node-1')]), [
      'agent_missing Node node-1',
    ]);
  });

  it('may be two of one DaemonSet on a node while it is updated', () => {
    const next = createAgentPod('a', { name: 'nmi-next', isReady: false });
    const present = agent('a');
    assert.deepEqual(linesOf([node('a')], [present, viewAgent(terminating(next))]), []);
    for (const agents of [
      [present, viewAgent(next)],
      [viewAgent(next), present],
    ]) {
      const [found, ...others] = examineAgents([node('a')], agents);
      assert.deepEqual(others, []);
      assert.deepEqual([found?.code, found?.severity], ['agent_not_ready', 'warning']);
      assert.deepEqual(found?.details, ['Pod kube-system/nmi-a serves the node meanwhile.']);
    }
    const ended = viewAgent(createAgentPod('a', { isReady: false }));
    const [first] = examineAgents([node('a')], [ended, viewAgent(next)]);
    assert.deepEqual([first?.code, first?.severity], ['agent_not_ready', 'error'], 'none serves');
  });

  it('are not ready, cannot be pulled, differ, or are the old ones', () => {
    const nodes = [node('a'), node('b')];
    assert.deepEqual(
      linesOf(nodes, [agent('a', { isReady: false }), agent('b', { image: 'x:2' })]),
      ['agent_not_ready Pod kube-system/nmi-a', 'agent_versions Cluster'],
    );
    const pull = { containerStatuses: [{ state: { waiting: { reason: 'ErrImagePull' } } }] };
    const unpulled = {
      ...agent('a'),
      ...viewAgent(createPod('nmi-a', { spec: { nodeName: 'a' }, status: pull })),
      isOldNmi: false,
    };
    assert.match(linesOf([node('a')], [unpulled]).join(), /image_not_pulled/);
    assert.deepEqual(
      linesOf(
        [node('a')],
        [
          agent('a'),
          agent('a', { image: 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17' }),
        ],
      ),
      ['old_nmi Pod kube-system/nmi-a'],
    );
  });

  it('have a finding for an old kernel', () => {
    const isOld = (version: string) => linesOf([node('a', {}, version)], [agent('a')]).length > 0;
    assert.deepEqual(linesOf([node('a', {}, '5.4.0-1')], [agent('a')]), ['kernel_old Node a']);
    assert.deepEqual(['4.19', '5.9', '3.10.0-1160', '5'].map(isOld), [true, true, true, false]);
    assert.deepEqual(['5.10.1', '5.15', '6.1', '10.2', ''].map(isOld), Array(5).fill(false));
  });

  it('need no MIC', () => {
    const mic = createPod('mic-1', {
      spec: { containers: [{ image: 'mcr.microsoft.com/oss/azure/aad-pod-identity/mic:v1.8.17' }] },
    });
    assert.deepEqual(
      findMic([mic, createPod('web')]).map(({ object }) => object),
      ['Pod shop/mic-1'],
    );
  });
});
