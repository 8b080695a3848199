import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refusals, type RefusalReason } from '../../../src/nmi/base/answers.ts';
import { allCodes, findPage, pageOf } from '../../../src/kubectl/findings/runbook.ts';

describe('the runbook', () => {
  it('has a page for every reason of the agent, and no code twice', () => {
    for (const reason of Object.keys(refusals) as RefusalReason[]) {
      assert.notEqual(pageOf(reason).means, '', reason);
      assert.equal(pageOf(reason).link, `docs/reasons.md#${reason}`);
    }
    assert.equal(pageOf('label_on_owner').link, 'docs/kubectl.md#label_on_owner');
    assert.equal(new Set(allCodes).size, allCodes.length);
    assert.equal(findPage('constructor'), undefined);
  });

  it('is written in sentences', () => {
    for (const code of allCodes) {
      assert.match(findPage(code)?.means ?? '', /^[A-Z].*[.]$/, code);
      assert.match(findPage(code)?.fix ?? '', /^(?:[A-Z]|kubectl )/, code);
    }
  });
});
