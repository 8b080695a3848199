import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { StatusSupport } from '../../../src/nmi/conditions/status-support.ts';
import { keptLog } from '../kube/kube-test-bed.ts';

const listOf = (...names: string[]) => ({ resources: names.map((name) => ({ name })) });
const both = listOf('azureidentities/status', 'azureidentitybindings/status', 'azureidentities');

describe('kinds that accept conditions', () => {
  it('are those with a status subresource', () => {
    const log = keptLog();
    const support = new StatusSupport(log);
    assert.ok(!support.has('identity'));
    assert.deepEqual(support.learn(listOf('azureidentities/status', 'azureidentitybindings')), [
      'identity',
    ]);
    assert.deepEqual([support.has('identity'), support.has('binding')], [true, false]);
    assert.deepEqual(support.learn(both), ['binding'], 'applied since');
    assert.deepEqual(support.learn(both), []);
  });

  it('are none for a server with another answer', () => {
    for (const list of [undefined, 'text', { resources: 7 }, { resources: [7, null] }]) {
      const support = new StatusSupport(keptLog());
      support.learn(both);
      assert.deepEqual(support.learn(list), []);
      assert.ok(!support.has('identity') && !support.has('binding'));
    }
  });

  it('are logged once each when they are missing, with the fix', () => {
    const log = keptLog();
    const support = new StatusSupport(log);
    for (let look = 0; look < 5; look++) {
      support.learn(both);
      support.refuse('binding');
      support.learn(listOf('azureidentities/status'));
    }
    assert.deepEqual(
      log.lines.map(({ message, fields }) => [message, fields['kind']]),
      [
        [
          'custom resource definition has no status conditions, apply deploy/crds.yaml',
          'AzureIdentityBinding',
        ],
      ],
    );
  });
});
