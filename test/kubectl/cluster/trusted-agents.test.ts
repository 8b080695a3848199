/** A user who may create a pod can give it the agents' label: no verb may take it for an agent. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { specOf, templateOf, type RawObject } from '../../../src/kubectl/base/object.ts';
import { createFakeAz, ordersId, tenant } from '../support/fake-az.ts';
import {
  agentSet,
  boundTestBed,
  clientA,
  createAgentPod,
  createIdentity,
  createObject,
  createPod,
  kinds,
  ok,
  play,
  type Played,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const image = 'evil.example/steal:1';
const labels = { component: 'nmi', tier: 'node' };
const web = createPod('web', {
  labels: { aadpodidbinding: 'orders' },
  spec: { serviceAccountName: 'robot' },
});

/** A pod of a user, as much like an agent as its author can make it. */
function createForgery(namespace: string, name = `forged-${namespace}`) {
  const args = ['--entra-audience=evil', '--cloud=china'];
  return createPod(name, {
    namespace,
    labels,
    spec: { serviceAccountName: 'thief', containers: [{ name: 'nmi', image, args }] },
    owner: { kind: 'DaemonSet', name: 'nmi', uid: 'uid-of-another', controller: true },
  });
}

interface Hostile {
  readonly agents?: readonly ReturnType<typeof createAgentPod>[];
  readonly forgeries?: readonly ReturnType<typeof createPod>[];
  readonly changes?: Recorded;
}

const testName = `nmi-test-${Date.parse('2026-11-27T06:00:00Z').toString(36)}`;

/** The forged pods come first, as the API server sorts namespaces by name. */
function testBedOf({ agents = [], forgeries, changes = {} }: Hostile = {}): Recorded {
  const forged = forgeries ?? [createForgery('attack'), createForgery('kube-system')];
  const pods = [...forged, ...agents, web, createPod(testName, { status: { phase: 'Succeeded' } })];
  const identity = {
    type: 3,
    clientID: clientA,
    tenantID: tenant,
    resourceID: ordersId,
    federation: 'node',
  };
  const { objects = {} } = boundTestBed({
    pods,
    nodes: [{ kind: 'Node', metadata: { name: 'node-1' } }],
    [kinds.identities]: [
      createIdentity('orders', { ...identity, federation: 'pod' }),
      createIdentity('shared', identity),
    ],
    ...changes.objects,
  });
  const az = createFakeAz();
  return {
    other: (program, args) => {
      if (program === 'az') return az.run(args);
      if (args[1]?.includes('openid') === true) return ok('{"issuer":"https://oidc.example/"}');
      if (args[0] === 'logs') return ok('successfully acquired a token\n');
      return ok(args[0] === 'version' ? '{"serverVersion":{"gitVersion":"v1.34.2"}}' : 'yes\n');
    },
    ...changes,
    objects,
  };
}

const verbs: Readonly<Record<string, readonly string[]>> = {
  explain: ['explain', 'pod', 'web'],
  'identity federate of pods': ['identity', 'federate', 'orders'],
  'identity federate of the agent': ['identity', 'federate', 'shared'],
  'migrate to-workload-identity': ['migrate', 'to-workload-identity'],
  'migrate to-federation': ['migrate', 'to-federation', '--tenant-id', 'contoso.example'],
  test: ['test', '--pod', 'web'],
  sysdump: ['sysdump'],
  doctor: ['doctor', '-A'],
  analyze: ['analyze'],
};

const traces = /forged|evil|thief|attack|China/;

/** Where a verb used a forged pod; its warning may name the namespace, and a dump the pod's logs. */
function usesOf({ calls, inputs, stdout }: Played): readonly string[] {
  const texts = [...calls.map((words) => words.join(' ')), ...inputs, stdout];
  return texts.filter((text) => traces.test(text));
}

const warning =
  /^warning: ignored pods labelled component=nmi that no DaemonSet of agents in namespace kube-system controls: 1 in attack, 1 in kube-system\. Agents in another namespace need --agent-namespace\.$/gm;

describe('a pod that only looks like an agent', () => {
  for (const [verb, words] of Object.entries(verbs)) {
    it(`is not used by ${verb} beside an agent, and one line names it`, async () => {
      const played = await play(words, testBedOf({ agents: [createAgentPod('node-1')] }));
      assert.deepEqual(usesOf(played), []);
      assert.equal([...played.stderr.matchAll(warning)].length, 1, played.stderr);
    });

    it(`is not used by ${verb} where there is no agent`, async () => {
      assert.deepEqual(usesOf(await play(words, testBedOf())), []);
    });
  }

  it('gives neither image nor account where there is no agent', async () => {
    const tested = await play(['test', '--pod', 'web'], testBedOf());
    assert.equal(tested.code, 2);
    assert.match(
      tested.stderr,
      /no verified agent is visible to you in namespace kube-system\nGive --image/,
    );
    const federated = await play(['identity', 'federate', 'shared'], testBedOf());
    assert.equal(federated.code, 2);
    assert.match(
      federated.stderr,
      /no verified agent is in namespace kube-system.*\n.*--agent-namespace/,
    );
  });
});

describe('the agents', () => {
  it('can be in another namespace, which the user names', async () => {
    const set = createObject(
      'DaemonSet',
      'x',
      { template: { metadata: { labels } } },
      { namespace: 'identity' },
    );
    const pod = createPod('nmi-x', {
      namespace: 'identity',
      labels,
      spec: { containers: [{ name: 'nmi', image: 'example/nmi-x:2' }] },
      owner: { kind: 'DaemonSet', name: 'x', uid: 'uid-identity-x', controller: true },
    });
    const recorded = testBedOf({
      agents: [pod],
      changes: { objects: { [kinds.daemonSets]: [agentSet, set] } },
    });
    const { stdout, stderr } = await play(['doctor', '--agent-namespace', 'identity'], recorded);
    assert.match(stdout, /^agents +0 ready of 1, on 1 nodes$/m);
    assert.match(stdout, /Pod identity\/nmi-x: agent_not_ready/);
    assert.match(stderr, /namespace identity controls: 1 in attack, 1 in kube-system\./);
    assert.match((await play(['doctor'], recorded)).stdout, /Node node-1: agent_missing/);
  });

  it('need a DaemonSet of agents: the pods of another one are not theirs', async () => {
    const other = createObject(
      'DaemonSet',
      'nmi',
      { template: { metadata: { labels: {} } } },
      { namespace: 'kube-system' },
    );
    const recorded = testBedOf({
      agents: [createAgentPod('node-1')],
      forgeries: [],
      changes: { objects: { [kinds.daemonSets]: [other] } },
    });
    const { stdout, stderr } = await play(['doctor'], recorded);
    assert.match(stdout, /Node node-1: agent_missing/);
    assert.match(stderr, /controls: 1 in kube-system\./);
  });

  it('cause no warning where nothing else has their label', async () => {
    const recorded = testBedOf({ agents: [createAgentPod('node-1')], forgeries: [] });
    assert.equal((await play(['doctor'], recorded)).stderr, '');
  });

  it('are named by five namespaces at most', async () => {
    const forgeries = Array.from({ length: 8 }, (_, index) => createForgery(`ns-${index}`));
    const { stderr } = await play(['doctor'], testBedOf({ forgeries }));
    assert.match(stderr, /1 in ns-3, 1 in ns-4 and 3 more namespaces\./);
  });
});

describe('a pod that has opened its node', () => {
  /** From the manifest, as the API server would have the pod. */
  const createOpener = async () => {
    const text = await readFile(
      join(import.meta.dirname, '../../../deploy/open-nodes.yaml'),
      'utf8',
    );
    const spec = specOf(templateOf(parse(text) as RawObject) ?? {});
    const agent = createAgentPod('node-1');
    return { ...agent, spec: { ...spec, nodeName: 'node-1' } };
  };

  it('is no agent: its node counts as one without', async () => {
    const pods = [web, await createOpener()];
    const nodes = [{ kind: 'Node', metadata: { name: 'node-1' } }];
    const warns =
      /^warning: nodes with a pod that opens them \(uninstall\.openNodes, open-nodes\.yaml\) instead of an agent: 1\. Pods there get the node's identities from the real metadata service\.$/m;
    const testBed = testBedOf({ changes: { objects: { pods, nodes } } });
    const { stdout, stderr } = await play(['doctor'], testBed);
    assert.match(stdout, /^agents +0 ready of 0, on 1 nodes$/m);
    assert.match(stdout, /Node node-1: agent_missing/);
    assert.match(stderr, warns);
    assert.doesNotMatch(stderr, /ignored pods/);
    const explained = await play(['explain', 'pod', 'web'], testBed);
    assert.match(explained.stdout, /^pod shop\/web: NOT READY, is not served: agent_missing$/m);
    assert.match(explained.stdout, /or reach the identity of the node where .* was opened\.$/m);
    assert.match(explained.stderr, warns);
  });
});

describe('agents that the user may see and not verify', () => {
  const blind = (words: readonly string[]) =>
    play(
      words,
      testBedOf({
        agents: [createAgentPod('node-1', { args: ['--cloud=usgovernment', '--strict-identity'] })],
        forgeries: [createForgery('attack')],
        changes: { forbidden: { [kinds.daemonSets]: 'everywhere' } },
      }),
    );

  it('are read, and standard error names the right that would verify them', async () => {
    const { stdout, stderr } = await blind(['doctor']);
    assert.match(stdout, /^agents +1 ready of 1, on 1 nodes$/m);
    assert.match(
      stderr,
      /^warning: cannot verify the agents: list daemonsets\.apps in namespace kube-system: .* Ask for this RBAC rule: apiGroups: \["apps"\], resources: \["daemonsets"\], verbs: \["list"\] in namespace kube-system$/m,
    );
    assert.match(stderr, /ignored pods .*: 1 in attack\./);
    const forbidden = { [kinds.daemonSets]: 'everywhere' } as const;
    const none = await play(['doctor'], testBedOf({ forgeries: [], changes: { forbidden } }));
    assert.doesNotMatch(none.stderr, /cannot verify the agents/);
  });

  it('are not run, trusted, or entered', async () => {
    const tested = await blind(['test', '--pod', 'web']);
    assert.deepEqual([tested.code, tested.inputs], [2, []]);
    const shared = await blind(['identity', 'federate', 'shared']);
    assert.equal(shared.code, 2);
    const pods = await blind(['identity', 'federate', 'orders']);
    assert.match(pods.stdout, /the audience is assumed to be the default one\./);
    assert.match(pods.stdout, /--audiences api:\/\/AzureADTokenExchange\n/);
    const dumped = await blind(['sysdump']);
    assert.match(dumped.stdout, /nothing proves that the pod is an agent/);
    assert.deepEqual(
      dumped.calls.filter((words) => words[1] === 'exec'),
      [],
    );
  });

  it('are those of their namespace, for a user who may list no other pods', async () => {
    const recorded = testBedOf({
      agents: [createAgentPod('node-1')],
      changes: { forbidden: { pods: 'all-namespaces' } },
    });
    const { stdout, stderr } = await play(['doctor'], recorded);
    assert.match(stdout, /^agents +1 ready of 1, /m);
    assert.match(stderr, /controls: 1 in kube-system\./);
  });
});
