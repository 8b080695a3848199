import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { askRight, everywhere } from '../../../src/kubectl/cluster/rights.ts';
import { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import { failed, ok } from '../support/recorded-kubectl.ts';
import { createIo } from '../support/silent-io.ts';

/** @param run its answer, or that for a verb. */
function kubectlThat(run: ProgramRun | ((verb: string) => ProgramRun)) {
  const calls: (readonly string[])[] = [];
  const kubectl = new Kubectl(
    createIo((_program, args) => {
      calls.push(args);
      return Promise.resolve(typeof run === 'function' ? run(args[2] ?? '') : run);
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

  it('may be the user’s as the node of the agent, if it is not the user’s in general', async () => {
    const pods = { ...list, mayBeAsNode: true };
    const no = { code: 1, stdout: 'no\n', stderr: '' };
    const ask = async (asNode: ProgramRun) => {
      const { kubectl, calls } = kubectlThat((verb) => (verb === 'list' ? no : asNode));
      const answer = await askRight(kubectl, pods, everywhere);
      assert.equal(calls[1]?.[2], 'impersonate-on:associated-node:list');
      assert.deepEqual(answer.right, pods);
      return answer.kind;
    };
    assert.equal(await ask(ok('yes\n')), 'as_node');
    assert.equal(await ask(no), 'no');
    assert.equal(await ask(failed('error: timed out')), 'unknown');
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
