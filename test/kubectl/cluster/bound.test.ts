import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nameOf } from '../../../src/kubectl/base/object.ts';
import { podsByBinding } from '../../../src/kubectl/cluster/bound.ts';
import { createBinding, createPod } from '../support/recorded-kubectl.ts';

const bound = (name: string, fields: object = {}) =>
  createPod(name, { labels: { aadpodidbinding: 'orders' }, ...fields });

describe('the pods of bindings', () => {
  const pods = [
    bound('web'),
    bound('robot', { spec: { serviceAccountName: 'robot' } }),
    bound('far', { namespace: 'other' }),
    createPod('plain'),
    createPod('empty', { labels: { aadpodidbinding: '' } }),
  ];
  const names = (...bindings: readonly object[]) =>
    podsByBinding(pods)(bindings.map((spec) => createBinding('b', spec))).map(nameOf);

  it('have the label and the namespace, each once', () => {
    const selector = { azureIdentity: 'orders', selector: 'orders' };
    assert.deepEqual(names(selector, selector), ['web', 'robot']);
    assert.deepEqual(names({ ...selector, selector: 'Orders' }), []);
  });

  it('have the service account that a binding names', () => {
    assert.deepEqual(names({ selector: 'orders', serviceAccount: 'robot' }), ['robot']);
  });

  it('are none for a selector that is empty or no text', () => {
    for (const selector of ['', 7, undefined]) assert.deepEqual(names({ selector }), []);
  });
});
