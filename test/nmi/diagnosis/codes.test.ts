import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refusals, type RefusalReason } from '../../../src/nmi/base/answers.ts';
import { allCodes, isCode, rowOf } from '../../../src/nmi/diagnosis/codes.ts';

describe('the table of codes', () => {
  it('has a row for every reason of answers, and no code twice', () => {
    for (const reason of Object.keys(refusals) as RefusalReason[]) {
      assert.equal(rowOf(reason).link, `docs/reasons.md#${reason}`);
      assert.equal(rowOf(reason).status, refusals[reason].status);
    }
    assert.equal(rowOf('label_on_owner').link, 'docs/kubectl.md#label_on_owner');
    assert.equal(new Set(allCodes).size, allCodes.length);
    assert.equal(isCode('constructor'), false);
  });

  it('is written in sentences', () => {
    for (const code of allCodes) {
      assert.ok(isCode(code));
      assert.match(rowOf(code).means, /^[A-Z].*[.]$/, code);
      assert.match(rowOf(code).fix, /^(?:[A-Z]|kubectl )/, code);
    }
  });

  it('has fixes that are right for every type of identity', () => {
    assert.doesNotMatch(rowOf('identity_unsupported').fix, /[0-9]/, 'a list of types grows old');
    // A chain has no tenantID, and its clientID, if any, is that of the managed identity.
    assert.match(
      rowOf('identity_refused').fix,
      /of a chain, spec\.application and spec\.agentIdentity/,
    );
    for (const text of [rowOf('credential_refused').fix, rowOf('credential_refused').check]) {
      assert.match(text ?? '', /ypes 3 and 4\b.*\berror/, 'they have no Secret');
    }
    assert.match(rowOf('identity_not_assigned').fix, /use type 3, and no chain that begins/);
  });
});
