/**
 * `doctor` beside the other tellers: for the same cluster, `doctor`, `explain` and the runbook
 * name the same code and the same fix.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { rowOf, type Code } from '../../../src/nmi/diagnosis/codes.ts';
import type { Finding } from '../../../src/nmi/diagnosis/finding.ts';
import {
  agentSet,
  boundTestBed,
  createAgentPod,
  createAgentSet,
  createIdentity,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from '../../kubectl/support/recorded-kubectl.ts';

const crds = 'customresourcedefinitions.apiextensions.k8s.io';
const node = { metadata: { name: 'node-1' }, status: { nodeInfo: { kernelVersion: '6.8.0' } } };
const other = createAgentSet('other');
const bound = createPod('web', { labels: { aadpodidbinding: 'orders' } });

interface Situation {
  readonly name: string;
  readonly code: Code;
  readonly objects: Readonly<Record<string, readonly RawObject[]>>;
  /** `explain` names it too. */
  readonly isExplained?: true;
  /** Resources that `can-i` denies. */
  readonly denied?: RegExp;
}

const situations: readonly Situation[] = [
  {
    name: 'a node without an agent',
    code: 'agent_missing',
    objects: { pods: [bound] },
    isExplained: true,
  },
  {
    name: 'an agent that is not ready',
    code: 'agent_not_ready',
    objects: { pods: [bound, createAgentPod('node-1', { isReady: false })] },
    isExplained: true,
  },
  {
    name: 'two agents on a node',
    code: 'agents_on_node',
    objects: {
      pods: [createAgentPod('node-1'), createAgentPod('node-1', { name: 'other-1', set: other })],
      [kinds.daemonSets]: [agentSet, other],
    },
  },
  {
    name: 'the replaced NMI',
    code: 'old_nmi',
    objects: {
      pods: [createAgentPod('node-1', { image: 'example/aad-pod-identity/nmi:v1.8.17' })],
    },
  },
  {
    name: 'no node',
    code: 'nodes_missing',
    objects: { nodes: [], pods: [createAgentPod('node-1')] },
  },
  {
    name: 'an agent without the right to the Secret of an identity',
    code: 'agent_rights',
    objects: { [kinds.identities]: [createIdentity('orders', { type: 1 })] },
    denied: /^secrets$/,
  },
  {
    name: 'agents that may read the Secrets of all namespaces',
    code: 'agent_rights_wide',
    objects: { [kinds.identities]: [createIdentity('orders', { type: 1 })] },
  },
  {
    name: 'a cluster without the definitions',
    code: 'crd_missing',
    objects: { [crds]: [] },
  },
  {
    name: 'a user without rights',
    code: 'own_rights',
    objects: {},
    denied: /^pods$/,
  },
];

async function tell(words: readonly string[], situation: Situation): Promise<readonly Finding[]> {
  const { objects, denied } = situation;
  const recorded: Recorded = {
    ...boundTestBed({ nodes: [node], ...objects }),
    other: (_program, args) => {
      if (args[0] === 'version') return ok('{"serverVersion":{"gitVersion":"v1.37.2"}}');
      if (args[0] !== 'auth') return ok('');
      const isDenied = denied?.test(args[3] ?? '') === true;
      return { code: isDenied ? 1 : 0, stdout: isDenied ? 'no' : 'yes', stderr: '' };
    },
  };
  const { stdout } = await play([...words, '-o', 'json'], recorded);
  return (JSON.parse(stdout) as { readonly findings: readonly Finding[] }).findings;
}

describe('doctor names the code of the table', () => {
  for (const situation of situations) {
    it(situation.name, async () => {
      const { code, isExplained } = situation;
      const found = (await tell(['doctor'], situation)).find((each) => each.code === code);
      assert.ok(found !== undefined);
      assert.equal(found.page, rowOf(code).link);
      assert.equal((await play(['reasons', code])).code, 0);
      if (isExplained !== true) return;
      const all = await tell(['explain', 'pod', 'web'], situation);
      const same = all.find((each) => each.code === code);
      assert.ok(same !== undefined);
      assert.deepEqual({ ...same, text: '' }, { ...found, text: '' });
    });
  }
});
