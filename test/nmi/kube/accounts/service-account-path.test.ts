import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { serviceAccountPath } from '../../../../src/nmi/kube/accounts/service-account-path.ts';

describe('the path of a service account', () => {
  it('has its namespace and its name', () => {
    assert.equal(
      serviceAccountPath({ namespace: 'ns', name: 'robot.1' }),
      '/api/v1/namespaces/ns/serviceaccounts/robot.1',
    );
  });

  it('is missing for a name that could lead to another path', () => {
    for (const [namespace, name] of [
      ['ns', '../../secrets/x'],
      ['ns', ''],
      ['ns', 'a/b'],
      ['ns', 'A'],
      ['../x', 'robot'],
      ['n.s', 'robot'],
      ['', 'robot'],
    ] as const) {
      assert.equal(serviceAccountPath({ namespace, name }), undefined, `${namespace} ${name}`);
    }
  });
});
