import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord } from '../../../src/base/json-value.ts';
import { findOwnerLabels, ownersOf } from '../../../src/kubectl/findings/owners.ts';
import { createObject, createPod } from '../support/recorded-kubectl.ts';

const label = { aadpodidbinding: 'orders' };
const selector = { matchLabels: { app: 'web' } };

describe('the label on an owner', () => {
  it('is found where the template has none, with the command that moves it', () => {
    const [finding] = findOwnerLabels([
      createObject('Deployment', 'web', { selector, template: {} }, { labels: label }, 'apps/v1'),
    ]);
    assert.equal(finding?.code, 'label_on_owner');
    assert.equal(finding?.object, 'Deployment shop/web');
    assert.match(
      finding?.fix ?? '',
      /kubectl -n shop patch deployment web -p '\{"spec":\{"template":\{"metadata":\{"labels":\{"aadpodidbinding":"orders"\}\}\}\}\}'/,
    );
  });

  it('is found in the template of a CronJob', () => {
    const cronJob = createObject(
      'CronJob',
      'nightly',
      { jobTemplate: { spec: { template: {} } } },
      { labels: label },
    );
    assert.match(
      findOwnerLabels([cronJob])[0]?.fix ?? '',
      /spec\.jobTemplate\.spec\.template\.metadata\.labels/,
    );
  });

  it('is correct if the template has it too, or nothing has it', () => {
    const template = { metadata: { labels: label } };
    const job = createObject('Job', 'nightly-1', { template: {} }, { labels: label });
    assert.equal(findOwnerLabels([job]).length, 1);
    assert.deepEqual(
      findOwnerLabels([
        createObject('Deployment', 'a', { template }, { labels: label }),
        createObject('Deployment', 'b', { template: {} }),
        createObject('Deployment', 'c', {}, { labels: label }),
        {
          ...job,
          metadata: { ...asRecord(job['metadata']), ownerReferences: [{ kind: 'CronJob' }] },
        },
      ]),
      [],
    );
  });
});

describe('the owners of a pod', () => {
  const deployment = createObject('Deployment', 'web', { selector });
  const cronJob = createObject('CronJob', 'nightly', {});
  const set = createObject('StatefulSet', 'db', { selector });
  const all = [
    deployment,
    cronJob,
    set,
    createObject('StatefulSet', 'other', { selector }),
    createObject('Deployment', 'web', { selector }, { namespace: 'x' }),
  ];

  it('are found through intermediate owners', () => {
    const owned = (kind: string, name: string, labels = {}) =>
      ownersOf(createPod('p', { labels, owner: { kind, name } }), all);
    assert.deepEqual(owned('ReplicaSet', 'web-7d4b9', { app: 'web' }), [deployment]);
    assert.deepEqual(owned('ReplicaSet', 'web-7d4b9', { app: 'other' }), []);
    assert.deepEqual(owned('Job', 'nightly-123'), [cronJob]);
    assert.deepEqual(owned('StatefulSet', 'db'), [set]);
    assert.deepEqual(owned('Job', 'web-1'), []);
    assert.deepEqual(owned('ReplicaSet', 'nightly-1'), []);
    assert.deepEqual(owned('DaemonSet', 'web', { app: 'web' }), []);
    assert.deepEqual(ownersOf(createPod('p', { labels: { app: 'web' } }), all), []);
  });
});
