import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bindingObject } from '../../../src/kubectl/azure/objects.ts';

describe('a binding', () => {
  it('is for every service account, or for one', () => {
    const specOf = (account: string) =>
      (bindingObject('n', 'b', 'i', 's', account) as { spec: object }).spec;
    assert.deepEqual(specOf(''), { azureIdentity: 'i', selector: 's' });
    assert.deepEqual(specOf('robot'), {
      azureIdentity: 'i',
      selector: 's',
      serviceAccount: 'robot',
    });
  });
});
