import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { azLine, readAz, renderAz } from '../../../src/kubectl/azure/az.ts';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { createIo } from '../support/silent-io.ts';

const ioOf = (answer: ProgramRun) => createIo(() => Promise.resolve(answer));
const line = ['role', 'assignment', 'create', '--role', 'Key Vault Secrets User'];
const failing = (stderr: string) => readAz(ioOf({ code: 1, stdout: '', stderr }), line);

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

  it('reads JSON, whatever format the user has configured', async () => {
    const read = (stdout: string) => readAz(ioOf({ code: 0, stdout, stderr: 'WARNING: x' }), line);
    assert.deepEqual(await read('[1]'), [1]);
    await assert.rejects(read('Name\n----'), { exitCode: 1, message: 'az printed no JSON' });
  });

  it('fails with the next step', async () => {
    await assert.rejects(readAz(ioOf({ code: undefined, stdout: '', stderr: '' }), line), {
      exitCode: 69,
    });
    await assert.rejects(failing("ERROR: Please run 'az login' to setup account."), {
      exitCode: 77,
      nextStep: 'Run: az login',
    });
    await assert.rejects(
      failing('ERROR: (AuthorizationFailed) The client x does not have authorization'),
      { exitCode: 77, message: /^az has no right: \(AuthorizationFailed\)/ },
    );
    await assert.rejects(failing('WARNING: old\nERROR: (ResourceNotFound) nothing\n'), {
      exitCode: 1,
      message: 'az failed: (ResourceNotFound) nothing',
    });
    await assert.rejects(failing(''), { message: 'az failed: az gave no reason' });
  });
});
