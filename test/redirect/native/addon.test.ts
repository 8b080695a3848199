import assert from 'node:assert/strict';
import { existsSync, openSync } from 'node:fs';
import { describe, it } from 'node:test';
import {
  asRedirectError,
  isMissing,
  kernelAccountOf,
  withMap,
  type NativeModule,
} from '../../../src/redirect/native/addon.ts';
import { RedirectError } from '../../../src/redirect/redirect.ts';

function failure(fields: object): Error {
  return Object.assign(new Error('No such file or directory'), fields);
}

describe('an error of a call of the native module', () => {
  it('is translated if the native module reports it, and returned unchanged otherwise', () => {
    const fields = { code: 'ENOENT', step: 'open pin' };
    const translated = asRedirectError(failure(fields));
    assert.ok(translated instanceof RedirectError);
    assert.deepEqual([translated.code, translated.step], ['BUSY', 'open pin']);
    assert.equal(isMissing(failure(fields)), true);
    // As an error of the file system has it, which has no step.
    const others = Object.keys(fields).map((name) => failure({ ...fields, [name]: undefined }));
    const { step, ...ofFileSystem } = fields;
    // Of a pin: it has its code, and a caller that may retry knows it by that.
    const busy = new RedirectError('BUSY', step, 'another process installs');
    for (const other of [failure(ofFileSystem), ...others, { ...fields, message: step }, busy]) {
      assert.equal(asRedirectError(other), other);
      assert.equal(isMissing(other), false);
    }
  });

  it('has a code by what a retry or another user could change', () => {
    for (const [code, step, expected] of [
      ['EPERM', 'load', 'NOT_PERMITTED'],
      ['EACCES', 'load', 'UNSUPPORTED'],
      ['EACCES', 'open pin', 'NOT_PERMITTED'],
      ['ENOENT', 'list sockets', 'UNSUPPORTED'],
      ['EOPNOTSUPP', 'attach', 'UNSUPPORTED'],
      ['EINVAL', 'attach', 'UNSUPPORTED'],
      ['EINVAL', 'open pin', 'KERNEL_REFUSED'],
      ['EAGAIN', 'list flows', 'BUSY'],
      ['ETIMEDOUT', 'list flows', 'TIMEOUT'],
      ['ENOMEM', 'load', 'KERNEL_REFUSED'],
    ] as const) {
      const translated = asRedirectError(failure({ code, step }));
      assert.equal(translated instanceof RedirectError && translated.code, expected, code + step);
    }
  });

  it('keeps the kernel’s full log', () => {
    const refused = failure({ code: 'EACCES', step: 'load', detail: 'the log' });
    assert.equal(kernelAccountOf(refused), 'the log');
    assert.equal(kernelAccountOf(asRedirectError(refused)), 'the log');
    assert.equal(kernelAccountOf(new Error('another')), undefined);
  });
});

describe('a map', () => {
  it('is open while it is used, for reading only unless it is written', () => {
    const opened: unknown[] = [];
    let map = -1;
    const native = {
      openMap: (pin: string, readOnly: boolean) => {
        opened.push([pin, readOnly]);
        return (map = openSync('/dev/null', 'r'));
      },
    } as unknown as NativeModule;
    const isOpen = () => existsSync(`/proc/self/fd/${map}`);
    assert.equal(withMap(native, '/pin', 'read', isOpen), true);
    assert.equal(isOpen(), false);
    const failing = () => {
      throw new RangeError('no');
    };
    assert.throws(() => withMap(native, '/pin', 'write', failing), /no/);
    assert.equal(isOpen(), false);
    assert.deepEqual(opened, [
      ['/pin', true],
      ['/pin', false],
    ]);
  });
});
