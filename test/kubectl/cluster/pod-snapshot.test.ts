import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  boundTestBed,
  createAgentPod,
  createBinding,
  createPod,
  kinds,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const bound = { labels: { aadpodidbinding: 'orders' } };

const explain = async (recorded: Recorded, ...more: readonly string[]) => {
  const { stdout, stderr } = await play(['explain', 'pod', 'web', '-o', 'json', ...more], recorded);
  assert.notEqual(stdout, '', stderr);
  return JSON.parse(stdout) as {
    verdict: string;
    summary: string;
    findings: readonly { code: string; details: readonly string[] }[];
    unread: readonly { loses: string; why: string }[];
  };
};

describe('reading for one pod', () => {
  it('needs get of pods and list of the three kinds, and names the rule when they are forbidden', async () => {
    for (const [kind, verb] of [
      ['pods', 'get'],
      [kinds.identities, 'list'],
      [kinds.bindings, 'list'],
      [kinds.exceptions, 'list'],
    ] as const) {
      const recorded = { ...boundTestBed(), forbidden: { [kind]: 'everywhere' as const } };
      const { code, stderr } = await play(['explain', 'pod', 'web'], recorded);
      assert.equal(code, 77, kind);
      assert.match(stderr, new RegExp(`Ask for this RBAC rule: .*"${verb}"\\] in namespace shop`));
    }
  });

  it('is of the namespace of the context, and only there', async () => {
    const pods = [createPod('web', { ...bound, namespace: 'other' }), createAgentPod('node-1')];
    const { stderr } = await play(['explain', 'pod', 'web'], boundTestBed({ pods }));
    assert.match(stderr, /^error: namespace shop has no pod web\n/);
    const found = await explain({ ...boundTestBed(), currentNamespace: 'shop' });
    assert.equal(found.verdict, 'granted');
  });

  it('finds another pod with the address, for users of all pods and of those of a namespace', async () => {
    const pods = [createPod('web', bound), createPod('twin'), createAgentPod('node-1')];
    for (const forbidden of [
      {},
      { pods: 'other-namespaces', [kinds.grants]: 'everywhere' },
    ] as const) {
      const { summary } = await explain({ ...boundTestBed({ pods }), forbidden });
      assert.equal(summary, 'gets 503 pod_ambiguous');
    }
    const elsewhere = createPod('twin', { ...bound, spec: { nodeName: 'node-2' } });
    const apart = boundTestBed({
      pods: [createPod('web', bound), elsewhere, createAgentPod('node-1')],
    });
    assert.equal((await explain(apart)).verdict, 'granted', 'an agent knows the pods of its node');
  });

  it('finds what is meant in other namespaces, if the pod is refused', async () => {
    const far = createBinding('far', undefined, { namespace: 'other' });
    const recorded = boundTestBed({ [kinds.bindings]: [far] });
    const [finding] = (await explain(recorded)).findings;
    assert.equal(finding?.code, 'binding_missing');
    assert.match(finding.details.join(), /AzureIdentityBinding other\/far has that selector/);
    const forbidden = { [kinds.bindings]: 'all-namespaces' } as const;
    const { unread } = await explain({ ...recorded, forbidden });
    assert.deepEqual(
      unread.map(({ loses }) => loses),
      ['objects of other namespaces'],
    );
  });

  it('looks at the node if no agent is there: none runs on Windows', async () => {
    const nodes = [{ metadata: { name: 'node-1', labels: { 'kubernetes.io/os': 'windows' } } }];
    const recorded = boundTestBed({ pods: [createPod('web', bound)], nodes });
    const codesOf = async (changes: Recorded = {}) =>
      (await explain({ ...recorded, ...changes })).findings.map(({ code }) => code);
    assert.deepEqual(await codesOf(), ['pod_on_windows']);
    const forbidden = { nodes: 'everywhere' } as const;
    assert.deepEqual(await codesOf({ forbidden }), ['agent_missing']);
    const losesNodes = async (changes: Recorded) =>
      (await explain({ ...recorded, ...changes })).unread.some(({ loses }) => loses === 'nodes');
    assert.equal(await losesNodes({ forbidden }), true);
    const gone = boundTestBed({ pods: [createPod('web', bound)], nodes: [] });
    assert.equal(await losesNodes(gone), false, 'the pod has outlived its node');
  });

  it('uses the options of a verified agent alone, and of one that cannot be verified', async () => {
    const args = ['--strict-identity'];
    const forged = { ...createAgentPod('node-1', { args }), metadata: {} };
    const { labels } = (createAgentPod('node-1')['metadata'] ?? {}) as { labels: object };
    const metadata = { name: 'forged', namespace: 'kube-system', uid: 'u', labels };
    const pods = [createPod('web', bound), { ...forged, metadata }];
    assert.equal((await explain(boundTestBed({ pods }))).summary, 'is not served: agent_missing');
    const forbidden = { [kinds.daemonSets]: 'everywhere' } as const;
    const unverified = await play(['explain', 'pod', 'web'], {
      ...boundTestBed({ pods }),
      forbidden,
    });
    assert.match(unverified.stderr, /cannot verify the agents: .* in namespace kube-system/);
  });

  it('verifies agents by the DaemonSets of their namespace if it may list no others', async () => {
    const forbidden = { [kinds.daemonSets]: 'all-namespaces' } as const;
    const { code, stderr } = await play(['explain', 'pod', 'web'], {
      ...boundTestBed(),
      forbidden,
    });
    assert.deepEqual([code, stderr], [0, '']);
  });

  it('continues without a kind that the server lacks', async () => {
    const { verdict, unread } = await explain({ ...boundTestBed(), missing: [kinds.grants] });
    assert.equal(verdict, 'granted');
    assert.match(unread.at(-1)?.why ?? '', /the server does not have this kind of object/);
    const { code, stderr } = await play(['explain', 'pod', 'web'], {
      ...boundTestBed(),
      missing: [kinds.bindings],
    });
    assert.equal(code, 1);
    assert.match(
      stderr,
      /does not have this kind of object\nInstall the custom resource definitions/,
    );
  });
});
