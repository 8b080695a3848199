import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { azLine, renderAz } from '../../../src/kubectl/azure/az.ts';

const line = ['role', 'assignment', 'create', '--role', 'Key Vault Secrets User'];

describe('a command line for az', () => {
  it('is quoted for a shell', () => {
    assert.equal(renderAz(line), "az role assignment create --role 'Key Vault Secrets User'");
  });

  it('has no value that az reads as a file, a flag, or the machine itself', () => {
    for (const value of [
      '@/etc/passwd',
      '-h',
      '--debug',
      '[system]',
      '',
      ' x',
      'a\nb',
      'a\u2028b',
    ]) {
      assert.throws(() => azLine(['vm', 'identity', 'assign'], { identities: ['x', value] }), {
        exitCode: 1,
        message: /^az would not take ".*" as the value of --identities$/,
      });
    }
    assert.deepEqual(azLine(['a'], { name: 'n', ids: ['x', '/y'] }), [
      ...['a', '--name', 'n', '--ids', 'x', '/y'],
    ]);
  });
});
