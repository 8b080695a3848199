import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nameOf } from '../../../src/kubectl/base/object.ts';
import { findIdentity, readBound } from '../../../src/kubectl/cluster/bound.ts';
import { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import {
  createBinding,
  createIdentity,
  createPod,
  failed,
  ok,
} from '../support/recorded-kubectl.ts';
import { createIo } from '../support/silent-io.ts';

const bound = (name: string, fields: object = {}) =>
  createPod(name, { labels: { aadpodidbinding: 'orders' }, ...fields });

async function podsOf(...specs: readonly object[]) {
  const lists = {
    azureidentities: [createIdentity('orders')],
    azureidentitybindings: [
      ...specs.map((spec) => createBinding('b', { azureIdentity: 'orders', ...spec })),
      createBinding('other', { azureIdentity: 'other', selector: 'plain' }),
    ],
    pods: [
      bound('web'),
      bound('robot', { spec: { serviceAccountName: 'robot' } }),
      createPod('plain', { labels: { aadpodidbinding: 'plain' } }),
      createPod('empty', { labels: { aadpodidbinding: '' } }),
    ],
  };
  const kubectl = new Kubectl(
    createIo((_program, args) => {
      const [, items] = Object.entries(lists).find(([kind]) => args[1]?.endsWith(`/${kind}`)) ?? [];
      return Promise.resolve(ok(JSON.stringify({ items })));
    }),
  );
  const { pods } = await findIdentity(kubectl, 'shop', 'orders');
  return pods.map(nameOf);
}

describe('the pods of an identity', () => {
  it('have the label of one of its bindings, each once', async () => {
    const selector = { selector: 'orders' };
    assert.deepEqual(await podsOf(selector, selector), ['web', 'robot']);
    assert.deepEqual(await podsOf({ selector: 'Orders' }), []);
  });

  it('have the service account that a binding names', async () => {
    assert.deepEqual(await podsOf({ selector: 'orders', serviceAccount: 'robot' }), ['robot']);
  });

  it('are none for a selector that is empty or no text', async () => {
    for (const selector of ['', 7, undefined]) assert.deepEqual(await podsOf({ selector }), []);
  });
});

describe('a list of bound pods that cannot be read', () => {
  it('fails with the kind and the namespace, or all namespaces', async () => {
    const kubectl = new Kubectl(createIo(() => Promise.resolve(failed('no'))));
    await assert.rejects(readBound(kubectl, 'shop'), /list azureidentit\S+ in namespace shop/);
    await assert.rejects(readBound(kubectl, undefined), /list azureidentit\S+ in all namespaces/);
  });
});
