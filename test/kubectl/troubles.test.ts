/**
 * The most frequent problems of users: each is answered by one command, with the fix in its output.
 * The table is that of docs/kubectl.md.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ordersId } from './support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  createAgentPod,
  createIdentity,
  createObject,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from './support/recorded-kubectl.ts';

interface Trouble {
  readonly words: readonly string[];
  readonly testBed: Recorded;
  readonly fix: RegExp;
}

const bound = { labels: { aadpodidbinding: 'orders' } };
const node = (name: string, spec: object = {}) => ({ metadata: { name, labels: {} }, spec });
const scaleSet = {
  providerID:
    'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
};
const ofServer: Recorded['other'] = (_program, args) =>
  ok(args[0] === 'version' ? '{"serverVersion":{"gitVersion":"v1.34.2"}}' : 'yes\n');

/** An agent with a watch that has no list yet. */
const notSynced: Recorded = {
  ...boundTestBed({
    nodes: [node('node-1')],
    pods: [createAgentPod('node-1', { isReady: false })],
  }),
  other: ofServer,
};

/** By the wording of their rows in the page. */
const troubles: Readonly<Record<string, Trouble>> = {
  'a pod gets 400, 403 or an identity that it should not have': {
    words: ['explain', 'pod', 'web'],
    testBed: boundTestBed({
      pods: [createPod('web', { labels: { aadpodidbinding: 'oders' } }), createAgentPod('node-1')],
    }),
    fix: /^ +fix: Did you mean "orders"\? Correct the label of the pod template\.$/m,
  },
  'the first request of a new pod fails': {
    words: ['explain', 'pod', 'web'],
    testBed: boundTestBed({
      pods: [
        {
          ...createPod('web', bound),
          metadata: {
            ...{ name: 'web', namespace: 'shop', uid: 'u', labels: bound.labels },
            creationTimestamp: '2026-11-27T05:59:55Z',
          },
        },
        createAgentPod('node-1'),
      ],
      [kinds.bindings]: [],
    }),
    fix: /binding_pending\n[^]*^ +fix: /m,
  },
  'requests time out': {
    words: ['explain', 'pod', 'web'],
    testBed: boundTestBed({
      [kinds.policies]: [
        createObject('NetworkPolicy', 'deny', { podSelector: {}, policyTypes: ['Egress'] }),
      ],
    }),
    fix: /network_policy\n[^]*^ +fix: Allow egress to ipBlock 169\.254\.25\.79\/32, TCP ports 2579 and 2580/m,
  },
  'pods of a new node get nothing, or the identities of the node': {
    words: ['doctor'],
    testBed: {
      ...boundTestBed({ nodes: [node('node-1'), node('node-2')] }),
      other: ofServer,
    },
    fix: /Node node-2: agent_missing\n[^]*^ +fix: Look at the DaemonSet/m,
  },
  'new pods get 503 while old ones work': {
    words: ['doctor'],
    testBed: notSynced,
    fix: /agent_not_ready\n[^]*^ +fix: See why: kubectl -n kube-system logs nmi-node-1 -c nmi$/m,
  },
  'pods of a new node pool get `identity_not_assigned`': {
    words: ['identity', 'assign', 'orders'],
    testBed: boundTestBed({
      nodes: [node('node-1', scaleSet)],
      [kinds.identities]: [
        createIdentity('orders', { type: 0, clientID: clientA, resourceID: ordersId }),
      ],
    }),
    fix: /^# az vmss identity assign .*--name pool .*--identities /m,
  },
  'two pods have one address': {
    words: ['explain', 'ip', '10.244.1.7'],
    testBed: boundTestBed({
      pods: [createPod('web', bound), createPod('twin', bound), createAgentPod('node-1')],
    }),
    fix: /pod_ambiguous\n[^]*^ +fix: Delete the pod that should not have it/m,
  },
  'something of the old system is left': {
    words: ['doctor'],
    testBed: {
      ...boundTestBed({
        nodes: [node('node-1')],
        pods: [
          createAgentPod('node-1', {
            image: 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17',
          }),
        ],
      }),
      other: ofServer,
    },
    fix: /old_nmi\n[^]*^ +fix: /m,
  },
};

describe('the most frequent troubles of users', () => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/kubectl.md'), 'utf8');
  const rows = [...page.matchAll(/^\| (.+?) +\| `kubectl nmi ([a-z ]+)/gm)];

  it('are those of the page of the plugin', () => {
    assert.equal(rows.length, 8);
    assert.deepEqual(
      rows.map(([, trouble = '']) => trouble),
      Object.keys(troubles),
    );
  });

  for (const [trouble, { words, testBed, fix }] of Object.entries(troubles)) {
    it(`${trouble}: kubectl nmi ${words.join(' ')}`, async () => {
      const [, , command = ''] = rows.find(([, text]) => text === trouble) ?? [];
      const [verb = ''] = words;
      assert.equal(command.trim().split(' ')[0], verb);
      const { stdout, stderr } = await play(words, testBed);
      assert.match(stdout, fix, stderr);
    });
  }
});
