import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { readSeenClients } from '../../../src/kubectl/cluster/seen-clients.ts';
import type { Unread } from '../../../src/kubectl/cluster/unread.ts';
import type { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import { createAgentPod, failed, ok } from '../support/recorded-kubectl.ts';

describe('the clients that agents saw', () => {
  const agents = ['node-1', 'node-2'].map((node) => ({
    ...viewAgent(createAgentPod(node)),
    isVerified: true,
  }));

  it('are read pod by pod from each agent, and missing answers are named', async () => {
    const pods = [
      { namespace: 'shop', name: 'web', clients: ['azsdk-js-identity/4.2.1', 7] },
      { namespace: 'shop', name: 'quiet' },
    ];
    const calls: string[] = [];
    const run: Kubectl['run'] = (args) => {
      calls.push(args.join(' '));
      const isFirst = args.includes('nmi-node-1');
      return Promise.resolve(
        isFirst
          ? ok(JSON.stringify({ kind: 'node', pods }))
          : failed('error: unable to upgrade connection: container not found ("nmi")'),
      );
    };
    const unread: Unread[] = [];
    const seen = await readSeenClients({ run } as Kubectl, agents, unread);
    assert.deepEqual(
      [...seen],
      [
        ['shop/web', ['azsdk-js-identity/4.2.1']],
        ['shop/quiet', []],
      ],
    );
    assert.equal(
      calls[0],
      'exec --namespace=kube-system nmi-node-1 --container=nmi -- nmi explain --output=json',
    );
    assert.deepEqual(
      unread.map(({ what }) => what),
      ['ask the agent kube-system/nmi-node-2'],
    );
  });
});
