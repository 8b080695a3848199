import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseIdentityId, showClientIdLine } from '../../../src/kubectl/azure/identity-id.ts';
import { ordersId, subscription } from '../support/fake-az.ts';

describe('the resource id of a user-assigned identity', () => {
  it('is read in any letter case, with or without its outer slashes', () => {
    const expected = { subscription, resourceGroup: 'shop', name: 'orders' };
    for (const id of [ordersId, ordersId.slice(1), `${ordersId}/`, ` ${ordersId}`]) {
      assert.deepEqual(parseIdentityId(id), expected, id);
    }
    const upper = parseIdentityId(ordersId.replace('resourcegroups', 'RESOURCEGROUPS'));
    assert.deepEqual(upper, expected);
    assert.equal(
      parseIdentityId(ordersId.replace('/shop/', '/(eu).shop_1-a/'))?.resourceGroup,
      '(eu).shop_1-a',
    );
  });

  it('is nothing else', () => {
    for (const id of [
      '',
      '[system]',
      '@/etc/passwd',
      ordersId.replace('userAssignedIdentities', 'other'),
      ordersId.replace('Microsoft.ManagedIdentity', 'Microsoft.Web'),
      `${ordersId}/more`,
      ordersId.replace('/orders', '/@orders'),
      ordersId.replace('/orders', '/-orders'),
      ordersId.replace('/shop/', '/sh op/'),
      `${ordersId}\nx`,
    ]) {
      assert.equal(parseIdentityId(id), undefined, id);
    }
  });

  it('leads to the client id, or to a list', () => {
    assert.match(showClientIdLine(ordersId).join(' '), /^identity show --ids \S+ --query clientId/);
    for (const id of ['', '@/etc/passwd']) {
      assert.equal(showClientIdLine(id).join(' '), 'identity list --output table');
    }
  });
});
