import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { readAgentExplanation } from '../../../src/kubectl/cluster/agent-explanation.ts';
import { unverified, viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import type { Unread } from '../../../src/kubectl/cluster/unread.ts';
import type { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import { createAgentPod, failed, ok } from '../support/recorded-kubectl.ts';

async function read(isVerified: boolean, answer: ProgramRun) {
  const calls: string[] = [];
  const run: Kubectl['run'] = (args) => {
    calls.push(args.join(' '));
    return Promise.resolve(answer);
  };
  const unread: Unread[] = [];
  const agent = { ...viewAgent(createAgentPod('node-1')), isVerified };
  const text = await readAgentExplanation({ run } as Kubectl, agent, 'its flags', unread);
  return { text, calls, unread };
}

describe('the explanation of an agent', () => {
  it('is what nmi explain prints in its container', async () => {
    const { text, calls, unread } = await read(true, ok('{"kind":"node"}'));
    assert.equal(text, '{"kind":"node"}');
    assert.deepEqual(calls, [
      'exec --namespace=kube-system nmi-node-1 --container=nmi -- nmi explain --output=json',
    ]);
    assert.deepEqual(unread, []);
  });

  it('is unread with the reason and the loss if exec fails', async () => {
    const { text, unread } = await read(true, failed('error: unable to upgrade connection'));
    assert.equal(text, undefined);
    assert.deepEqual(
      unread.map(({ what, loses }) => [what, loses]),
      [['ask the agent kube-system/nmi-node-1', 'its flags']],
    );
    assert.match(unread[0]?.why ?? '', /unable to upgrade connection/);
  });

  it('is not requested from a pod that is not proven to be an agent', async () => {
    const { text, calls, unread } = await read(false, ok('{}'));
    assert.equal(text, undefined);
    assert.deepEqual(calls, []);
    assert.equal(unread[0]?.why, unverified);
  });
});
