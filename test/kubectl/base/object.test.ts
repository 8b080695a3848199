import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  conditionOf,
  itemsOf,
  labelsOf,
  recordsAt,
  templateOf,
  textsAt,
  titleOf,
} from '../../../src/kubectl/base/object.ts';

describe('a raw object', () => {
  it('is read without trusting its shape', () => {
    assert.equal(titleOf({ metadata: { name: 'a', namespace: 'n' } }), 'n/a');
    assert.equal(titleOf({ metadata: { name: 'node-1' } }), 'node-1');
    assert.equal(titleOf({ metadata: 7 }), '');
    assert.deepEqual([...labelsOf({ metadata: { labels: { a: 'b', c: 1 } } })], [['a', 'b']]);
    assert.equal(labelsOf({ metadata: { labels: {} } }).get('constructor'), undefined);
    assert.deepEqual(recordsAt({ list: [{ a: 1 }, 2, null, [3]] }, 'list'), [{ a: 1 }]);
    assert.deepEqual(recordsAt({ list: 'x' }, 'list'), []);
    assert.deepEqual(textsAt({ list: ['a', 1] }, 'list'), ['a']);
    assert.deepEqual(textsAt(undefined, 'list'), []);
  });

  it('has the template of its pods, a CronJob in the template of its jobs', () => {
    const template = { metadata: { labels: { app: 'web' } } };
    assert.deepEqual(templateOf({ kind: 'Job', spec: { template } }), template);
    assert.deepEqual(
      templateOf({ kind: 'CronJob', spec: { jobTemplate: { spec: { template } } } }),
      template,
    );
    assert.equal(templateOf({ kind: 'Pod', spec: {} }), undefined);
  });

  it('has the condition of a type, if it has one', () => {
    const ready = { type: 'Ready', status: 'True' };
    const status = { conditions: [{ type: 'Synced' }, ready] };
    assert.deepEqual(conditionOf({ status }, 'Ready'), ready);
    assert.equal(conditionOf({ status }, 'Valid'), undefined);
  });

  it('becomes the items of a list, or itself', () => {
    assert.deepEqual(itemsOf({ kind: 'List', items: [{ a: 1 }] }), [{ a: 1 }]);
    assert.deepEqual(itemsOf({ kind: 'Pod' }), [{ kind: 'Pod' }]);
  });
});
