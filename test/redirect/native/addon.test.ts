import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRedirectError, isMissing } from '../../../src/redirect/native/addon.ts';
import { RedirectError } from '../../../src/redirect/redirect.ts';

function failure(fields: object): Error {
  return Object.assign(new Error('No such file or directory'), fields);
}

describe('an error of a call of the native module', () => {
  it('is translated if the native module reports it, and returned unchanged otherwise', () => {
    const fields = { code: 'ENOENT', errno: 2, step: 'open pin' };
    const translated = asRedirectError(failure(fields));
    assert.ok(translated instanceof RedirectError);
    assert.deepEqual([translated.code, translated.step], ['KERNEL_REFUSED', 'open pin']);
    assert.equal(isMissing(failure(fields)), true);
    // As an error of the file system has it, which has no step.
    const others = Object.keys(fields).map((name) => failure({ ...fields, [name]: undefined }));
    const { step, ...ofFileSystem } = fields;
    for (const other of [failure(ofFileSystem), ...others, { ...fields, message: step }]) {
      assert.equal(asRedirectError(other), other);
      assert.equal(isMissing(other), false);
    }
  });
});
