import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { classifySdk, sdkRule } from '../../../src/kubectl/findings/sdk-versions.ts';
import { sdkFamilies } from '../../../src/nmi/telemetry/user-agent.ts';

describe('the version of an SDK', () => {
  it('is compared by numbers, not by letters', () => {
    const kindOf = (client: string) => classifySdk(client).kind;
    for (const version of ['1.13.0', '1.13', '1.100.0', '2', '2.0.0']) {
      assert.equal(kindOf(`azsdk-python-identity/${version}`), 'knows', version);
    }
    for (const version of ['1.12.9', '1.9.0', '1', '0.99.99']) {
      assert.equal(kindOf(`azsdk-python-identity/${version}`), 'too-old', version);
    }
    for (const client of ['other', '', 'azsdk-python-identity', 'azsdk-python-identity/x', 'x/1']) {
      assert.equal(kindOf(client), 'unknown', client);
    }
  });

  it('that is too old is reported with the one to update to', () => {
    assert.deepEqual(classifySdk('azsdk-go-azidentity/1.2.2'), {
      kind: 'too-old',
      title: 'azidentity for Go',
      version: '1.2.2',
      minimum: '1.3.0',
    });
  });

  it('is known for every family that agents report', () => {
    for (const family of sdkFamilies) {
      assert.equal(classifySdk(`${family}/100.0.0`).kind, 'knows', family);
    }
    assert.equal(classifySdk('azsdk-net-core/1.54.0').kind, 'knows');
    assert.match(sdkRule, /Azure\.Identity for \.NET 1\.9\.0/);
    assert.doesNotMatch(sdkRule, /Core|undefined/);
  });
});
