import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hasExceptedLabel, podLabelsOf } from '../../../src/kubectl/cluster/exceptions.ts';
import { createObject, createPod } from '../support/recorded-kubectl.ts';

function exception(podLabels: unknown) {
  return createObject('AzurePodIdentityException', 'x', { podLabels });
}

describe('a stored exception', () => {
  const pod = createPod('web', { labels: { app: 'Proxy' } });

  it('names a label of a pod as the agent compares them', () => {
    assert.ok(hasExceptedLabel(pod, exception({ app: 'proxy', tier: 'x' })));
    assert.ok(!hasExceptedLabel(pod, exception({ app: 'other' })));
    assert.ok(!hasExceptedLabel(pod, exception({})));
  });

  it('has the labels that are texts', () => {
    assert.deepEqual([...podLabelsOf(exception({ app: 'a', n: 1 }))], [['app', 'a']]);
    assert.deepEqual([...podLabelsOf(exception(undefined))], []);
  });
});
