import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { snapshotOf } from '../../../src/kubectl/cluster/manifests.ts';
import { analyze } from '../../../src/kubectl/findings/analyze.ts';
import { createContexts } from '../../../src/kubectl/findings/contexts.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { agentWith } from '../support/assess.ts';
import {
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  nowWallMs,
} from '../support/recorded-kubectl.ts';

function analyzeAll(objects: readonly RawObject[]) {
  const snapshot = snapshotOf(objects);
  return analyze(snapshot, createContexts(snapshot, nowWallMs));
}

describe('an analysis', () => {
  it('has the nodes of running pods that want an identity, or all of a whole cluster', () => {
    const labels = { aadpodidbinding: 'orders' };
    const on = (nodeName: string, status = {}) =>
      createPod(`on-${nodeName}`, { labels, spec: { nodeName }, status, ip: '10.1.0.9' });
    const pods = [
      on('bare'),
      on('unread'),
      on('done', { phase: 'Failed' }),
      createPod('plain', { spec: { nodeName: 'idle' } }),
    ];
    const nodes = ['node-1', 'bare', 'done', 'idle'].map((name) => ({ metadata: { name } }));
    const missingIn = (scope: string | undefined) => {
      const snapshot = createSnapshot({ pods, nodes, agents: agentWith(), scope });
      return analyze(snapshot, createContexts(snapshot, nowWallMs))
        .filter(({ code }) => code === 'agent_missing')
        .map(({ object }) => object);
    };
    assert.deepEqual(missingIn('shop'), ['Node bare', 'Node unread']);
    assert.deepEqual(
      missingIn(undefined),
      ['bare', 'done', 'idle', 'unread'].map((name) => `Node ${name}`),
    );
  });

  it('has one finding of a pod for Windows, and none of its node', () => {
    const labels = { aadpodidbinding: 'orders' };
    const windows = { metadata: { name: 'win', labels: { 'kubernetes.io/os': 'windows' } } };
    for (const [spec, nodes] of [
      [{}, [windows]],
      [{ os: { name: 'windows' } }, undefined],
    ] as const) {
      const pods = [createPod('web', { labels, spec: { nodeName: 'win', ...spec } })];
      const snapshot = createSnapshot({ pods, nodes, agents: agentWith() });
      const found = analyze(snapshot, createContexts(snapshot, nowWallMs));
      assert.deepEqual(
        found.map(({ code }) => code),
        ['pod_on_windows'],
      );
    }
  });

  it('leaves out pods that want no identity, and pods that have ended', () => {
    const ended = createPod('job', {
      labels: { aadpodidbinding: 'nobody' },
      status: { phase: 'Succeeded' },
    });
    assert.deepEqual(analyzeAll([createPod('plain'), ended]), []);
  });

  it('has each finding once, the worst first', () => {
    const labels = { aadpodidbinding: 'orders' };
    const owner = { kind: 'StatefulSet', name: 'db' };
    const found = analyzeAll([
      createObject('StatefulSet', 'db', { template: {} }, { labels }),
      createPod('db-0', { owner, ip: '10.1.0.1' }),
      createPod('db-1', { owner, ip: '10.1.0.2' }),
      createIdentity('idle'),
    ]);
    assert.equal(found.filter(({ code }) => code === 'label_on_owner').length, 1);
    assert.equal(found.at(-1)?.code, 'identity_unbound');
  });

  it('finds identities of type 0 on nodes that Karpenter made', () => {
    const snapshot = createSnapshot({
      nodes: [{ metadata: { name: 'node-1', labels: { 'karpenter.sh/nodepool': 'default' } } }],
    });
    const found = analyze(snapshot, createContexts(snapshot, nowWallMs));
    assert.ok(found.some(({ code }) => code === 'type_0_on_karpenter'));
  });
});
