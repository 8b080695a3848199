import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { findingsOfStatus, isReadyByStatus } from '../../../src/kubectl/findings/status.ts';
import { asRecord } from '../../../src/base/json-value.ts';
import { createIdentity } from '../support/recorded-kubectl.ts';

const message = 'Secret shop/sp does not exist. Create it.';

function withReady(fields: object, generation = 2) {
  const identity = createIdentity('orders');
  const ready = { type: 'Ready', status: 'False', reason: 'credential_missing', message };
  const conditions = [
    { type: 'Valid', status: 'True' },
    { ...ready, observedGeneration: 2, ...fields },
  ];
  return {
    ...identity,
    metadata: { ...asRecord(identity['metadata']), generation },
    status: { conditions },
  };
}

const codesOf = (fields: object, knowsOptions: boolean, generation?: number) =>
  findingsOfStatus(withReady(fields, generation), knowsOptions).map(({ code }) => code);

describe('the status of an identity', () => {
  it('shows what is wrong with its Secret', () => {
    const [finding] = findingsOfStatus(withReady({}), true);
    assert.equal(finding?.object, 'AzureIdentity shop/orders');
    assert.equal(finding.code, 'credential_missing');
    assert.equal(finding.severity, 'error');
    assert.equal(finding.text, `Its status is not ready: ${message}`);
    assert.equal(isReadyByStatus(withReady({})), false);
  });

  it('shows the rest only where the options of the agent are not known', () => {
    const unowned = { reason: 'identity_not_owned' };
    assert.deepEqual(codesOf(unowned, false), ['identity_not_owned']);
    assert.deepEqual(codesOf(unowned, true), []);
  });

  it('shows nothing if it is ready, of an older spec, or of another program', () => {
    assert.deepEqual(codesOf({ status: 'True', reason: 'ok' }, false), []);
    assert.equal(isReadyByStatus(withReady({ status: 'True' })), true);
    assert.deepEqual(codesOf({}, false, 3), []);
    assert.equal(isReadyByStatus(withReady({ status: 'True' }, 3)), false);
    assert.deepEqual(codesOf({ reason: 'Waiting' }, false), []);
    assert.deepEqual(findingsOfStatus(createIdentity('orders'), false), []);
    assert.equal(isReadyByStatus(createIdentity('orders')), false);
  });
});
