import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loggableId, loggablePath, loggableResource, redactClientId } from '../../src/base/log.ts';

describe('the text of a caller in a log line', () => {
  it('is a path of the metadata service, without segments that may be a token', () => {
    const deep = '/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress';
    for (const path of ['/metadata/versions', '/metadata/instance/', deep]) {
      assert.equal(loggablePath(path), path);
    }
    const token = `/metadata/instance/eyJhbGciOiJub25lIn0.${'x'.repeat(30)}.`;
    for (const odd of [token, '/metadata/"', `/metadata${'/x'.repeat(12)}`, '', 'metadata']) {
      assert.equal(loggablePath(odd), '[unusual]');
    }
  });

  it('is an id in the format of one', () => {
    const guid = '12345678-1234-abcd-ABCD-1234567890ab';
    const path = `/subscriptions/${guid}/resourceGroups/g_(1).x/providers/P/identities/i`;
    for (const id of [guid, path, path.slice(1)]) assert.equal(loggableId(id), id);
    const token = 'eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ4In0.c2ln';
    const dashes = '-'.repeat(36);
    for (const odd of ['', token, `${guid}x`, dashes, `${path}?sig=x`, `/subscriptions/${guid}/`]) {
      assert.equal(loggableId(odd), '[unusual]');
    }
    assert.equal(loggableId(`/subscriptions${'/x'.repeat(13)}`), '[unusual]');
  });

  it('is a resource in the format of one, and a shortened client id', () => {
    for (const resource of [
      'https://vault.azure.net',
      'api://0000-x/.default',
      '00000003-0000-0000-c000-000000000000',
    ]) {
      assert.equal(loggableResource(resource), resource);
    }
    for (const odd of [
      'eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ4In0.c2ln',
      'https://x?sig=secret',
      'https://user:pa%20ss@x',
      `https://${'x'.repeat(300)}`,
      '?https://vault.azure.net',
      'x 00000003-0000-0000-c000-000000000000',
      '00000003-0000-0000-c000-000000000000/secret',
    ]) {
      assert.equal(loggableResource(odd), '[unusual]');
    }
    assert.equal(redactClientId('12345678-1234'), '1234##### REDACTED #####1234');
    assert.equal(redactClientId('1234567'), '1234567');
    assert.equal(redactClientId('12345678'), '1234##### REDACTED #####5678');
  });
});
