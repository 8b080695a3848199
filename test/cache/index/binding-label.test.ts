import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bindingLabelOf } from '../../../src/cache/index/binding-label.ts';
import { createPod } from '../../support/cache-objects.ts';

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
