import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { renderAz, runAz } from '../../../src/kubectl/azure/az.ts';
import type { Io, ProgramRun } from '../../../src/kubectl/base/io.ts';

function ioOf(answer: ProgramRun): Io {
  return {
    environment: {},
    stdout: () => undefined,
    stderr: () => undefined,
    run: () => Promise.resolve(answer),
    post: () => Promise.resolve(undefined),
    readText: () => Promise.resolve(undefined),
    writeNew: () => Promise.resolve(false),
    wallMs: () => 0,
    sleep: () => Promise.resolve(),
    stop: new AbortController().signal,
  };
}

const line = ['role', 'assignment', 'create', '--role', 'Key Vault Secrets User'];
const failing = (stderr: string) => runAz(ioOf({ code: 1, stdout: '', stderr }), line);

describe('a command line for az', () => {
  it('is quoted for a shell', () => {
    assert.equal(renderAz(line), "az role assignment create --role 'Key Vault Secrets User'");
  });

  it('returns the output of az', async () => {
    assert.equal(await runAz(ioOf({ code: 0, stdout: 'out', stderr: 'WARNING: x' }), line), 'out');
  });

  it('fails with the next step', async () => {
    await assert.rejects(runAz(ioOf({ code: undefined, stdout: '', stderr: '' }), line), {
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
