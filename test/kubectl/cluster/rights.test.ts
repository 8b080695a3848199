import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { askRight, everywhere } from '../../../src/kubectl/cluster/rights.ts';
import { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import { failed, ok } from '../support/recorded-kubectl.ts';
import { createIo } from '../support/silent-io.ts';

function kubectlThat(run: ProgramRun) {
  const calls: (readonly string[])[] = [];
  const kubectl = new Kubectl(
    createIo((_program, args) => {
      calls.push(args);
      return Promise.resolve(run);
    }),
  );
  return { kubectl, calls };
}

describe('a right', () => {
  const list = { verb: 'list', resource: 'pods' };

  it('is yes, no or unknown', async () => {
    const ask = async (run: ProgramRun) =>
      (await askRight(kubectlThat(run).kubectl, list, everywhere)).kind;
    assert.equal(await ask(ok('yes\n')), 'yes');
    assert.equal(await ask({ code: 1, stdout: 'no - no RBAC policy matched\n', stderr: '' }), 'no');
    assert.equal(await ask(failed('error: timed out')), 'unknown');
    assert.equal(await ask({ code: undefined, stdout: '', stderr: '' }), 'unknown');
  });

  it('is asked for in all namespaces, one, or the current one, and with a subresource', async () => {
    const { kubectl, calls } = kubectlThat(ok('yes'));
    await askRight(kubectl, list, everywhere);
    await askRight(kubectl, list, ['--namespace=shop'], 'robot');
    await askRight(kubectl, { verb: 'create', resource: 'serviceaccounts/token' }, []);
    const words = calls.map((args) => args.filter((word) => !word.startsWith('--request-timeout')));
    assert.deepEqual(words, [
      ['auth', 'can-i', 'list', 'pods', '--all-namespaces'],
      ['auth', 'can-i', 'list', 'pods', '--namespace=shop', '--as=robot'],
      ['auth', 'can-i', 'create', 'serviceaccounts', '--subresource=token'],
    ]);
  });
});
