import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bindingLabelOf, matchesPod } from '../../../src/cache/index/binding-label.ts';
import type { Binding, Pod } from '../../../src/cache/index/objects.ts';
import { createBinding, createPod } from '../../support/cache-objects.ts';

describe('the binding label of a pod', () => {
  it('is its value, which may be empty', () => {
    assert.equal(bindingLabelOf(createPod({ labels: { aadpodidbinding: 'a' } })), 'a');
    assert.equal(bindingLabelOf(createPod({ labels: { aadpodidbinding: '' } })), '');
  });

  it('is none when the pod itself has none, whatever it inherits', () => {
    const inherited = Object.create({ aadpodidbinding: 'a' }) as Record<string, string>;
    assert.equal(bindingLabelOf(createPod({ labels: { app: 'a' } })), undefined);
    assert.equal(bindingLabelOf(createPod({ labels: inherited })), undefined);
  });
});

describe('a binding', () => {
  it('is for pods of its namespace with its label, and under its service account if it names one', () => {
    const labels = { aadpodidbinding: 'app' };
    const pod = createPod({ labels, serviceAccount: 'robot' });
    const matches = (binding: Partial<Binding>, of: Partial<Pod> = {}) =>
      matchesPod(createBinding({ selector: 'app', ...binding }), { ...pod, ...of });
    assert.deepEqual(
      [{}, { serviceAccount: 'robot' }].map((each) => matches(each)),
      [true, true],
    );
    for (const [binding, of] of [
      [{ namespace: 'other' }, {}],
      [{ selector: 'other' }, {}],
      [{ selector: '' }, { labels: { aadpodidbinding: '' } }],
      [{ serviceAccount: 'other' }, {}],
      [{}, { labels: {} }],
    ] as const) {
      assert.equal(matches(binding, of), false, JSON.stringify([binding, of]));
    }
  });
});
