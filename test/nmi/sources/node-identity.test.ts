import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseNodeIdentity } from '../../../src/nmi/sources/node-identity.ts';

const clientId = 'AAAAAAAA-1111-4111-8111-111111111111';
const resourceId =
  '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i';

describe('an identity of the node', () => {
  it('is named by its client id, or by its resource id if it has none', () => {
    const since = { notBeforeWallMs: 7 };
    const byClient = { kind: 'client_id', value: clientId, ...since };
    assert.deepEqual(parseNodeIdentity({ clientId, resourceId }, since), byClient);
    const byResource = { kind: 'resource_id', value: resourceId };
    assert.deepEqual(parseNodeIdentity({ clientId: '', resourceId }, {}), byResource);
  });

  it('is none without a well-formed id', () => {
    const problemOf = (client: string, resource: string): string => {
      const parsed = parseNodeIdentity({ clientId: client, resourceId: resource }, {});
      return typeof parsed === 'string' ? parsed : 'none';
    };
    assert.match(problemOf('', ''), /names neither/);
    // .NET takes it for blank.
    assert.match(problemOf('\u0085', resourceId), /spec\.clientID that is no GUID/);
    assert.match(problemOf('', '/subscriptions/s'), /spec\.resourceID that is not/);
  });
});
