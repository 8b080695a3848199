/**
 * What depends on more than one pod in one namespace, or on what the user may not see. What a pod gets, and
 * the words of findings, are in the corpus of test/situations.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord } from '../../../src/base/json-value.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { defaultConfig, unverified, viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import {
  anyRequest,
  createClusterState,
  type PodRequest,
} from '../../../src/kubectl/cluster/cluster-state.ts';
import type { Snapshot } from '../../../src/kubectl/cluster/snapshot.ts';
import { sourceReportsOf } from '../../../src/kubectl/cluster/source-reports.ts';
import { losses } from '../../../src/kubectl/cluster/unread.ts';
import { rightsForIdentities, rightsOfAgent } from '../../../src/kubectl/findings/agent-rights.ts';
import { examineAgents, findMic } from '../../../src/kubectl/findings/agents.ts';
import { analyze } from '../../../src/kubectl/findings/analyze.ts';
import { assessPod } from '../../../src/kubectl/findings/assessment.ts';
import { createContexts } from '../../../src/kubectl/findings/contexts.ts';
import { findUserAssigned } from '../../../src/kubectl/findings/karpenter.ts';
import { matchesSelector } from '../../../src/kubectl/findings/label-selector.ts';
import { policiesAgainst } from '../../../src/kubectl/findings/network-policy.ts';
import { examineObjects } from '../../../src/kubectl/findings/objects.ts';
import { findOwnerLabels, ownersOf } from '../../../src/kubectl/findings/owners.ts';
import {
  hasExceptedLabel,
  namedClientId,
  podLabelsOf,
  wantsIdentity,
} from '../../../src/kubectl/findings/pods.ts';
import { sourceRefusalOf } from '../../../src/kubectl/findings/source-refusals.ts';
import { findingsOfStatus, isReadyByStatus } from '../../../src/kubectl/findings/status.ts';
import {
  bound,
  clientA,
  clientB,
  createAgentPod,
  createAgentSet,
  createBinding,
  createEvent,
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  nowWallMs,
  terminating,
  type EventFields,
} from './recorded-kubectl.ts';

const agent = (...args: Parameters<typeof createAgentPod>) => viewAgent(createAgentPod(...args));
const agentWith = (...args: readonly string[]) => [
  { ...agent('node-1', { args }), isVerified: true },
];
const web = createPod('web', bound);
const node = (name: string, labels = {}, kernelVersion = '6.8.0-1021-azure') => ({
  metadata: { name, labels },
  status: { nodeInfo: { kernelVersion } },
});
const exceptionFor = (podLabels: unknown, name = 'x', namespace = 'shop') =>
  createObject('AzurePodIdentityException', name, { podLabels }, { namespace });
const two = {
  identities: [createIdentity('orders'), createIdentity('stock', { clientID: clientB })],
  bindings: [
    createBinding('orders'),
    createBinding('stock', { azureIdentity: 'stock', selector: 'orders' }),
  ],
};
const byClient = (value: string) =>
  ({ selector: { kind: 'client_id', value }, resource: undefined }) as const;

function assess(pod: RawObject, changes: Partial<Snapshot> = {}, request: PodRequest = anyRequest) {
  const snapshot = createSnapshot({ pods: [pod], agents: agentWith(), ...changes });
  const assessed = assessPod(pod, createContexts(snapshot, nowWallMs), request);
  assert.ok(assessed !== undefined);
  const { verdict, findings, unread } = assessed;
  return {
    verdict: `${verdict.kind} ${verdict.summary}`,
    findings,
    codes: findings.map(({ code, object }) => `${code} ${object}`),
    unread,
    lost: unread.map(({ loses }) => loses),
  };
}

function analyzed(changes: Partial<Snapshot>) {
  const snapshot = createSnapshot({ agents: agentWith(), ...changes });
  return analyze(snapshot, createContexts(snapshot, nowWallMs));
}

describe('the rights of the agent', () => {
  it('are those that its options need', () => {
    const kinds = [
      'pods',
      ...['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'].map(
        (kind) => `${kind}.aadpodidentity.k8s.io`,
      ),
    ];
    const reads = (...all: readonly string[]) =>
      all.flatMap((each) => [`list ${each}`, `watch ${each}`]);
    const usual = reads(...kinds, 'azureidentitygrants.aadpodidentity.k8s.io');
    const events = 'create events.events.k8s.io';
    const args = (...all: readonly string[]) => agent('node-1', { args: all });
    for (const [of, expected] of [
      [args(), [...usual, events]],
      [args('--events=false'), usual],
      [args('--startup-taint=a/b'), [...usual, events, 'get nodes', 'patch nodes']],
      [
        args('--workload-identity'),
        [...usual, events, 'get serviceaccounts', 'create serviceaccounts/token'],
      ],
      // It may write nothing where its flags cannot be read.
      [args('--no-such-flag=1'), usual],
    ] as const) {
      const rights = rightsOfAgent(of).map(({ verb, resource }) => `${verb} ${resource}`);
      assert.deepEqual(rights, expected);
    }
    const asNode = rightsOfAgent(args('--startup-taint=a/b', '--workload-identity'))
      .filter(({ mayBeAsNode }) => mayBeAsNode)
      .map(({ verb, resource }) => `${verb} ${resource}`);
    const created = 'create serviceaccounts/token';
    assert.deepEqual(asNode, [...reads('pods'), 'get nodes', created]);
  });

  it('are those of each identity, each once for a namespace', () => {
    const identities = [
      createIdentity('plain'),
      createIdentity('a', { type: 1 }),
      createIdentity('b', { type: 2 }),
      createIdentity('c', { type: 1 }, { namespace: 'other' }),
      createIdentity('d', { type: 3 }),
      createIdentity('e', { type: 3, federation: 'node' }),
      createIdentity('f', { type: 4 }),
      createIdentity('g', { type: 4, federation: 'pod' }),
      createIdentity('unknown', { type: 'x' }),
      createIdentity('untyped', { type: undefined }),
    ];
    const rights = rightsForIdentities(identities, agent('node-1'));
    assert.deepEqual(
      rights.map(({ verb, resource, namespace, mayBeAsNode = false, identities: of }) =>
        [verb, resource, namespace, mayBeAsNode, ...of].join(' '),
      ),
      [
        'get secrets shop false shop/a shop/b',
        'get secrets other false other/c',
        'create serviceaccounts/token shop true shop/d shop/g',
        'create serviceaccounts/token kube-system true shop/e',
      ],
    );
  });
});

describe('the agents of a cluster', () => {
  const old = 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17';
  const linesOf = (...args: Parameters<typeof examineAgents>) =>
    examineAgents(...args).map(({ code, object }) => `${code} ${object}`);
  const second = agent('a', { name: 'other', set: createAgentSet('other') });
  const foreign = (image?: string) =>
    viewAgent({
      ...createAgentPod('a', image === undefined ? {} : { image }),
      metadata: { name: 'second', namespace: 'other' },
    });
  const pull = { containerStatuses: [{ state: { waiting: { reason: 'ErrImagePull' } } }] };
  const unpulled = viewAgent(createPod('nmi-a', { spec: { nodeName: 'a' }, status: pull }));
  const next = createAgentPod('a', { name: 'nmi-next', isReady: false });

  it('are one for each Linux node, ready, of one version and one release', () => {
    const windows = node('win', { 'kubernetes.io/os': 'windows' });
    const nodes = [node('a'), windows, node('virtual', { type: 'virtual-kubelet' })];
    const cases: readonly (readonly [Parameters<typeof linesOf>, readonly string[]])[] = [
      [[nodes, [agent('a')]], []],
      [[nodes, []], ['agent_missing Node a']],
      [[[windows], []], ['nodes_missing Cluster']],
      [[undefined, []], []],
      [[nodes, [agent('a'), second]], ['agents_on_node Node a']],
      [[nodes, [agent('a')], [foreign()]], ['agents_on_node Node a']],
      [[nodes, [agent('a')], [foreign(old)]], []],
      [[nodes, [], [foreign()]], ['agent_missing Node a']],
      [[nodes, [agent('a', { isReady: false })]], ['agent_not_ready Pod kube-system/nmi-a']],
      [[nodes, [agent('a'), agent('b', { image: 'x:2' })]], ['agent_versions Cluster']],
      [[nodes, [agent('a'), agent('a', { image: old })]], ['old_nmi Pod kube-system/nmi-a']],
      [[nodes, [{ ...unpulled, isOldNmi: false }]], ['image_not_pulled Pod shop/nmi-a']],
      [[[node('a', {}, '5.4.0-1')], [agent('a')]], ['kernel_old Node a']],
      // An update has two of one DaemonSet.
      [[nodes, [agent('a'), viewAgent(terminating(next))]], []],
    ];
    for (const [args, expected] of cases) {
      assert.deepEqual(linesOf(...args), expected);
    }
    const [releases] = examineAgents(nodes, [agent('a')], [foreign()]);
    assert.equal(releases?.text, 'The agents kube-system/nmi-a and other/second are on the node.');
  });

  it('need Linux 5.10', () => {
    const isOld = (version: string) => linesOf([node('a', {}, version)], [agent('a')]).length > 0;
    const versions = ['4.19', '5.9', '3.10.0-1160', '5', '5.10.1', '5.15', '6.1', '10.2', ''];
    assert.deepEqual(versions.filter(isOld), ['4.19', '5.9', '3.10.0-1160']);
  });

  it('are a warning while another of the same node serves', () => {
    const [present, coming] = [agent('a'), viewAgent(next)];
    for (const agents of [
      [present, coming],
      [coming, present],
    ]) {
      const [found, ...others] = examineAgents([node('a')], agents);
      assert.deepEqual([found?.code, found?.severity], ['agent_not_ready', 'warning']);
      assert.deepEqual(found?.details, ['Pod kube-system/nmi-a serves the node meanwhile.']);
      assert.deepEqual(others, []);
    }
    const ended = agent('a', { isReady: false });
    const [none] = examineAgents([node('a')], [ended, coming]);
    assert.deepEqual([none?.code, none?.severity], ['agent_not_ready', 'error']);
  });

  it('need no MIC', () => {
    const image = old.replace('/nmi:', '/mic:');
    const mic = createPod('mic-1', { spec: { containers: [{ image }] } });
    assert.deepEqual(
      findMic([mic, web]).map(({ object }) => object),
      ['Pod shop/mic-1'],
    );
  });
});

describe('the contexts of agents', () => {
  const api = createPod('api', { ...bound, ip: '10.244.2.7', spec: { nodeName: 'node-2' } });
  const strict = agent('node-2', { args: ['--strict-identity'] });
  const verified = { ...strict, isVerified: true };
  const open = (agents: Snapshot['agents']) =>
    createContexts(createSnapshot({ pods: [web, api], agents }), nowWallMs);

  it('follow the agent of the node of each pod', () => {
    const contexts = open([...agentWith(), verified]);
    assert.equal(contexts.agentOf(api)?.name, 'nmi-node-2');
    const isStrict = [web, api].map((pod) => contexts.of(pod).config.strictIdentity);
    assert.deepEqual(isStrict, [false, true]);
    assert.equal(contexts.of(web), contexts.of(web), 'each is made once');
    assert.equal(contexts.all().length, 2);
  });

  it('follow the agent that serves, of two that an update has on a node', () => {
    const options = { name: 'nmi-next', args: ['--strict-identity'] };
    const [present] = agentWith();
    assert.ok(present !== undefined);
    const starting = agent('node-1', { ...options, isReady: false });
    const ending = viewAgent(terminating(createAgentPod('node-1', options)));
    const creationTimestamp = '2026-11-20T00:00:00Z';
    const newer = { ...agent('node-1', options), pod: { metadata: { creationTimestamp } } };
    for (const [other, served] of [
      [starting, present],
      [ending, present],
      [newer, newer],
    ] as const) {
      for (const contexts of [open([present, other]), open([other, present])]) {
        assert.equal(contexts.agentOf(web), served);
        assert.equal(contexts.of(web).config, served.config);
        assert.equal(contexts.all().length, 1);
      }
    }
  });

  it('assume the options of other agents, or those of an agent by default', () => {
    for (const [agents, pod, isStrict] of [
      [[verified], createPod('far', { spec: { nodeName: 'node-3' } }), true],
      [undefined, web, false],
      // It is not verified.
      [[strict], api, true],
    ] as const) {
      const { config, knowsOptions } = open(agents).of(pod);
      assert.deepEqual([config.strictIdentity, knowsOptions], [isStrict, false]);
    }
    assert.equal(open(undefined).all().length, 1);
  });
});

describe('an analysis', () => {
  it('has the nodes of running pods that want an identity, or all of a whole cluster', () => {
    const on = (nodeName: string, status = {}) =>
      createPod(`on-${nodeName}`, { ...bound, spec: { nodeName }, status, ip: '10.1.0.9' });
    const done = on('done', { phase: 'Failed' });
    const plain = createPod('plain', { spec: { nodeName: 'idle' } });
    const pods = [on('bare'), on('unread'), done, plain];
    const nodes = ['node-1', 'bare', 'done', 'idle'].map((name) => node(name));
    const missingIn = (scope: string | undefined) =>
      analyzed({ pods, nodes, scope })
        .filter(({ code }) => code === 'agent_missing')
        .map(({ object }) => object.replace('Node ', ''));
    assert.deepEqual(missingIn('shop'), ['bare', 'unread']);
    assert.deepEqual(missingIn(undefined), ['bare', 'done', 'idle', 'unread']);
  });

  it('has each finding once, the worst first', () => {
    const owner = { kind: 'StatefulSet', name: 'db' };
    const found = analyzed({
      workloads: [createObject('StatefulSet', 'db', { template: {} }, bound)],
      pods: ['1', '2'].map((at) => createPod(`db-${at}`, { owner, ip: `10.1.0.${at}` })),
      identities: [createIdentity('idle')],
      bindings: [],
    });
    const codes = found.map(({ code }) => code);
    assert.equal(codes.filter((code) => code === 'label_on_owner').length, 1);
    assert.equal(codes.at(-1), 'identity_unbound');
  });

  it('leaves out pods that have ended', () => {
    const labels = { aadpodidbinding: 'nobody' };
    const ended = ['Failed', 'Succeeded'].map((phase) =>
      createPod(phase, { labels, status: { phase } }),
    );
    assert.deepEqual(analyzed({ pods: [web, ...ended] }), []);
  });
});

describe('a pod', () => {
  const withEnv = (...values: readonly object[]) =>
    createPod('web', {
      spec: {
        containers: values.map((each) => ({ env: [{ name: 'AZURE_CLIENT_ID', ...each }] })),
      },
    });

  it('names the identity that all its containers name in AZURE_CLIENT_ID', () => {
    const use = { 'azure.workload.identity/use': 'true' };
    for (const [pod, named] of [
      [withEnv({ value: clientA }), clientA],
      [withEnv({ value: clientA }, { value: clientA }), clientA],
      [withEnv({ value: clientA }, { value: clientB }), undefined],
      [withEnv({ valueFrom: {} }), undefined],
      [withEnv({ value: '$(ID)' }), undefined],
      [withEnv({ name: 'HOME', value: '/' }), undefined],
      [{ ...withEnv({ value: clientA }), metadata: { labels: use } }, undefined],
      [web, undefined],
    ] as const) {
      assert.equal(namedClientId(pod), named);
    }
  });

  it('wants an identity if any of its fields shows it', () => {
    for (const [pod, wants] of [
      [createPod('web'), false],
      [web, true],
      [withEnv({ value: clientA }), true],
      [createPod('web', { labels: { AadPodIdBinding: 'orders' } }), true],
    ] as const) {
      assert.equal(wantsIdentity(pod, assess(pod).findings), wants);
    }
  });

  it('is compared with an exception as the agent compares them', () => {
    const pod = createPod('web', { labels: { app: 'Proxy' } });
    assert.ok(hasExceptedLabel(pod, exceptionFor({ app: 'proxy', tier: 'x' })));
    for (const labels of [{ app: 'other' }, {}])
      assert.ok(!hasExceptedLabel(pod, exceptionFor(labels)));
    assert.deepEqual([...podLabelsOf(exceptionFor({ app: 'a', n: 1 }))], [['app', 'a']]);
    assert.equal(podLabelsOf(exceptionFor(undefined)).size, 0);
  });

  it('does not get an assessment if it is not in the cluster', () => {
    const contexts = createContexts(createSnapshot({ pods: [] }), nowWallMs);
    assert.equal(assessPod(web, contexts, anyRequest), undefined);
  });

  it('has a second release on the node, whose options may be the ones that count', () => {
    const other = agent('node-1', { name: 'other', set: createAgentSet('other') });
    const agents = [...agentWith(), { ...other, isVerified: true }];
    assert.deepEqual(assess(web, { agents }).codes, ['agents_on_node Node node-1']);
  });

  it('on a node without an agent is told from one that the user cannot see', () => {
    const waiting = { ...agent('node-1', { isReady: false }), problem: 'ErrImagePull: none' };
    for (const [agents, expected] of [
      [[], /^not-ready is not served: agent_missing$/],
      [undefined, /^granted /],
      [[waiting], /^not-ready is not served: image_not_pulled$/],
    ] as const) {
      assert.match(assess(web, { agents }).verdict, expected);
    }
    const elsewhere = createPod('web', { ...bound, spec: { nodeName: 'node-2' } });
    const old = agent('node-1', { image: 'example/aad-pod-identity/nmi:v1' });
    assert.deepEqual(assess(elsewhere, { agents: [old] }).codes, ['agent_missing Node node-2']);
  });

  it('on the host network depends on options that are not known', () => {
    const host = createPod('web', { ...bound, spec: { hostNetwork: true } });
    const plain = createPod('web', { spec: { hostNetwork: true } });
    const ofNode = "gets a token of the node's own identities (host network)";
    const [ebpf] = agentWith('--redirect=ebpf');
    for (const [pod, agents, expected] of [
      [host, agentWith('--redirect=iptables'), /^unknown gets the answer of the node/],
      [plain, agentWith(), new RegExp(`^granted ${ofNode.replaceAll(/[()]/g, '.')}$`)],
      [
        plain,
        [agent('node-1', { args: ['--redirect=ebpf'] })],
        / if the agent has --host-network=refuse$/,
      ],
      [plain, ebpf && [ebpf], /^granted /],
    ] as const) {
      assert.match(assess(pod, { agents }).verdict, expected);
    }
  });

  it('with an exception depends on grants and on the owners’ mode', () => {
    const addon = createPod('addon', { labels: { app: 'addon' } });
    const grant = (namespaces: readonly string[]) => [
      createObject(
        'AzureIdentityGrant',
        'g',
        { namespaces, nodeIdentities: true },
        { namespace: '' },
      ),
    ];
    const enforcing = agentWith('--identity-owners=enforce');
    for (const [agents, grants, expected] of [
      [undefined, [], /^unknown .* if the agent has --identity-owners=enforce$/],
      [enforcing, [], /^refused gets 400 identity_not_owned$/],
      [agentWith('--identity-owners=warn'), undefined, /^granted /],
      [enforcing, grant(['shop']), /^granted /],
      [undefined, grant(['shop']), /^granted /],
    ] as const) {
      const changes = { exceptions: [exceptionFor({ app: 'addon' })], agents, grants };
      assert.match(assess(addon, changes).verdict, expected);
    }
    const hidden = { agents: enforcing, grants: undefined };
    assert.match(assess(web, hidden).verdict, /^granted /, 'its status would show it');
  });

  it('is warned of ignored objects of its namespace, and of no other', () => {
    const bad = createBinding('bad', { selector: 7 });
    const far = createBinding('bad', { selector: 7 }, { namespace: 'other' });
    const { findings } = assess(web, { bindings: [createBinding('orders'), bad, far] });
    assert.deepEqual(
      findings.map(({ severity, object }) => `${severity} ${object}`),
      ['warning AzureIdentityBinding shop/bad'],
    );
  });

  it('gets a not yet while the binding may be on its way', () => {
    const creationTimestamp = new Date(nowWallMs).toISOString();
    const young = { ...web, metadata: { ...asRecord(web['metadata']), creationTimestamp } };
    const { verdict, findings } = assess(young, { bindings: [] });
    assert.equal(verdict, 'not-ready gets 503 binding_pending: not yet');
    assert.equal(findings[0]?.severity, 'warning');
  });
});

describe('what a verdict does not know', () => {
  it('is AZURE_CLIENT_ID of a container, where the pod itself does not have its value', () => {
    const name = 'AZURE_CLIENT_ID';
    const ref = { name: 'ids', key: 'id' };
    const secretRef = { name: 'ids' };
    const from = (
      env: readonly object[],
      envFrom: readonly object[] = [],
      labels: object = bound.labels,
    ) =>
      createPod('web', {
        labels: { ...labels },
        spec: { containers: [{ name: 'main', env, envFrom }] },
      });
    const fieldRef = { fieldPath: 'metadata.uid' };
    const hidden = [{ name, valueFrom: { secretKeyRef: ref } }];
    const use = { ...bound.labels, 'azure.workload.identity/use': 'true' };
    for (const [pod, what, request] of [
      [from([{ name, valueFrom: { configMapKeyRef: ref } }]), 'read ConfigMap ids'],
      [from(hidden), 'read Secret ids'],
      [from([{ name, valueFrom: { fieldRef } }]), 'read the field metadata.uid'],
      [from([{ name, value: '$(ID)' }]), 'work out $(ID)'],
      [from([], [{ configMapRef: secretRef }]), 'read ConfigMap ids'],
      [from([], [{ prefix: 'AZURE_', secretRef }]), 'read Secret ids'],
      [from([{ name, value: clientA }], [{ secretRef }]), ''],
      [from([{ name: 'OTHER', valueFrom: { secretKeyRef: ref } }]), ''],
      [from([], [{ prefix: 'X_', secretRef }]), ''],
      // The user names one, Workload Identity does, or the pod gets the identities of the node.
      [from(hidden), '', byClient(clientA)],
      [from(hidden, [], use), ''],
      [from(hidden, [], { app: 'addon' }), ''],
    ] as const) {
      const exceptions = [exceptionFor({ app: 'addon' })];
      const { verdict, unread } = assess(pod, { exceptions }, request);
      const found = unread.filter(({ loses }) => loses === `${name} of container main`);
      assert.equal(found.map((each) => each.what).join(), what);
      assert.match(verdict, /^granted /);
    }
  });

  it('is that of the identity which the request gets', () => {
    const tenantID = 'contoso.example';
    const [orders = {}] = two.identities;
    const federated = createIdentity('stock', { clientID: clientB, tenantID, type: 3 });
    const changes = { ...two, identities: [orders, federated] };
    const { lost } = assess(web, changes, byClient(clientB));
    assert.deepEqual(lost, ['federated credential in Entra ID']);
    const spec = { clientID: clientA, tenantID, type: 3, federation: 'binding' };
    const { unread } = assess(web, { identities: [createIdentity('orders', spec)] });
    const command = `kubectl auth can-i use-managed-identity ${clientA}.cid.wi.aks.azure.com`;
    assert.equal(unread[1]?.why, `${command} --as=system:serviceaccount:shop:default shows it`);
  });

  it('is what the user may not read, if it can change the verdict', () => {
    const { policies, grants, agents, twins, nodes, refusals, rights } = losses;
    const { accounts, elsewhere, workloads } = losses;
    const all = new Set<string>(Object.values(losses));
    const unread = [...all].map((loses) => ({ loses, what: 'x', why: 'y' }));
    const usual = [policies, grants, agents, twins, nodes, refusals, rights];
    const host = createPod('web', { ...bound, spec: { hostNetwork: true } });
    const use = { ...bound.labels, 'azure.workload.identity/use': 'true' };
    const except = (...less: readonly string[]) => usual.filter((each) => !less.includes(each));
    const addon = createPod('web', { labels: { app: 'addon' } });
    for (const [pod, options, expected] of [
      [web, '', usual],
      [web, '--identity-owners=off', except(grants)],
      [web, '--workload-identity', [policies, accounts, ...except(policies)]],
      [createPod('web', { labels: use }), '', [policies, accounts, ...except(policies)]],
      [addon, '', [policies, grants, workloads, agents, twins, nodes, refusals, rights]],
      [host, '--redirect=ebpf', except(policies)],
      [createPod('web'), '', [grants, workloads, agents, elsewhere, twins, nodes, rights]],
    ] as const) {
      const exceptions = [exceptionFor({ app: 'addon' })];
      const read = { unread, exceptions, agents: agentWith(...options.split(' ').filter(Boolean)) };
      const { lost } = assess(pod, read);
      assert.deepEqual(
        lost.filter((each) => all.has(each)),
        expected,
      );
    }
    const pending = createPod('web', { ...bound, status: { phase: 'Pending' } });
    const { lost } = assess(pending, { agents: [agent('node-1')] });
    assert.deepEqual(lost, [], 'the next state shows it');
  });

  it('is a policy with a CIDR that cannot be read, if all depends on it', () => {
    const azure = 'see whether Azure assigned it to the node';
    const host = createPod('web', { ...bound, spec: { hostNetwork: true } });
    for (const [cidr, app, pod, expected] of [
      ['010.0.0.0/8', 'web', web, ['judge NetworkPolicy p', azure]],
      ['010.0.0.0/8', 'db', web, [azure]],
      ['010.0.0.0/8', 'web', host, [azure]],
      ['0.0.0.0/0', 'web', web, [azure]],
      ['10.0.0.0/8', 'web', web, []],
    ] as const) {
      const podSelector = app === 'web' ? {} : { matchLabels: { app } };
      const spec = { podSelector, egress: [{ to: [{ ipBlock: { cidr } }] }] };
      const policies = [createObject('NetworkPolicy', 'p', spec)];
      const { unread } = assess(pod, { policies, agents: agentWith('--redirect=ebpf') });
      assert.deepEqual(
        unread.map(({ what }) => what),
        expected,
      );
    }
  });

  it('is the options of an agent that is not verified, or has some of another version', () => {
    const [, later] = assess(web, { agents: agentWith('--of-a-later-version=1') }).unread;
    assert.equal(later?.what, 'know the options of the agent kube-system/nmi-node-1');
    assert.match(later.why, /^this version does not know/);
    const { unread, lost } = assess(web, { agents: [agent('node-1')] });
    assert.deepEqual([unread[1]?.why, lost.slice(1)], [unverified, [losses.agents]]);
    assert.match(assess(web, { ...two, agents: [agent('node-1')] }).verdict, /^unknown /);
  });
});

describe('a refusal by the source of an identity', () => {
  const orders = createIdentity('orders');
  const minute = 60_000;
  const reason = 'CredentialRefused';
  const reportsOf = (events: readonly RawObject[]) => sourceReportsOf(events, nowWallMs);
  const of = (...fields: readonly EventFields[]) => fields.map((each) => createEvent(orders, each));
  const ofPod = (fields: EventFields, pod = web) =>
    createEvent(pod, { related: orders, ...fields });
  const accepted = { reason: 'IdentityAccepted', agoMs: minute };
  const before = { reason, agoMs: 2 * minute };
  const again = { reason, agoMs: 30_000 };
  const cached = { reason, note: 'Cached tokens are valid until 2026-11-27T06:40:00Z.' };
  const pending = { reason: 'FederationPending' };
  const refused = /^refused gets 400 credential_refused$/;
  const granted = /^granted gets a token of AzureIdentity orders/;

  it('is in force until a later acceptance', () => {
    const until = / for new tokens; cached ones are valid until 2026-11-27T06:40:00Z$/;
    const replaced = { ...web, metadata: { ...asRecord(web['metadata']), uid: 'before' } };
    const [, stock = {}] = two.identities;
    for (const [events, expected] of [
      [of({ reason }), refused],
      [of(cached), until],
      // The pod itself has none in the cache.
      [[...of(cached), ofPod({ reason })], refused],
      [[ofPod({ reason })], refused],
      [of(before, accepted), granted],
      [[ofPod(before), ...of(accepted)], granted],
      [of(before, accepted, again), refused],
      [of({ reason, agoMs: minute }, accepted), refused],
      [of(accepted), granted],
      [of({ reason: 'IdentityRefused', agoMs: 3 * minute }, { reason }), refused],
      [of({ reason }, { reason: 'IdentityRefused', agoMs: 3 * minute }), refused],
      [[ofPod(pending)], /^not-ready gets 503 federation_pending: not yet$/],
      [
        [ofPod(pending), ofPod({ reason: 'FederationRefused', agoMs: 1 })],
        /^refused gets 400 federation_refused$/,
      ],
      [of({ reason: 'ResourceRefused' }), granted],
      [[ofPod({ reason: 'ResourceRefused' })], granted],
      // Of another pod, object or identity of the same name.
      [[ofPod({ reason }, replaced)], granted],
      [
        [
          createEvent(
            { ...orders, metadata: { ...asRecord(orders['metadata']), uid: 'before' } },
            { reason },
          ),
        ],
        granted,
      ],
      [[createEvent(stock, { reason }), ofPod({ reason, related: stock })], granted],
      [[createEvent(web, { reason })], granted],
    ] as const) {
      assert.match(assess(web, { reports: reportsOf(events) }).verdict, expected);
    }
    const unbound = assess(createPod('web'), { reports: reportsOf(of(accepted)) });
    assert.equal(unbound.verdict, 'refused gets 400 no_binding_label');
    const reports = reportsOf(of({ reason }));
    assert.match(assess(web, { reports, agents: [] }).verdict, /^refused|agent_missing$/);
  });

  it('is one finding of the identity, a warning for a pod that does not get it', () => {
    const [, stock = {}] = two.identities;
    const found = (events: readonly RawObject[]) =>
      assess(web, { ...two, reports: reportsOf(events) })
        .findings.filter(({ code }) => code !== 'identity_by_age')
        .map(({ severity, code, object }) => `${severity} ${code} ${object}`);
    const ofOrders = 'AzureIdentity shop/orders';
    for (const [events, expected] of [
      [[...of({ reason }), ofPod({ reason })], [`error credential_refused ${ofOrders}`]],
      [[createEvent(stock, { reason })], ['warning credential_refused AzureIdentity shop/stock']],
      [of({ reason: 'ResourceRefused' }), [`warning resource_refused ${ofOrders}`]],
      [[ofPod({ reason: 'ResourceRefused' })], []],
      [[ofPod(pending)], [`warning federation_pending ${ofOrders}`]],
    ] as const) {
      assert.deepEqual(found(events), expected);
    }
    const ofAccount = sourceRefusalOf(web, undefined, reportsOf([createEvent(web, { reason })]));
    assert.equal(ofAccount?.finding.object, 'Pod shop/web');
    assert.equal(sourceRefusalOf(web, undefined, undefined), undefined);
  });

  it('is of a scale set, if the identity is not assigned to it', () => {
    const ofPool = (instance: string) => `aks-pool1-1-vmss${instance}`;
    const on = (name: string, at = 60_000) => ({
      reason: 'IdentityNotAssigned',
      node: name,
      agoMs: at,
    });
    const acceptedOn = (name: string) => ({ ...accepted, node: name });
    const early = 2 * minute;
    for (const [nodeName, events, severity] of [
      ['node-1', [on('node-2')], 'warning'],
      ['node-1', [on('node-2'), on('node-1', early)], 'error'],
      ['node-1', [on('node-1', early), acceptedOn('node-2')], 'error'],
      ['node-1', [on('node-1', early), acceptedOn('node-1')], undefined],
      [ofPool('00000a'), [on(ofPool('000001'), early)], 'error'],
      [ofPool('00000a'), [on(ofPool('000001'), early), acceptedOn(ofPool('00000b'))], undefined],
      // Of other kinds, any node's acceptance counts.
      ['node-1', [before, acceptedOn('node-2')], undefined],
    ] as const) {
      const pod = createPod('web', { spec: { nodeName } });
      const refusal = sourceRefusalOf(pod, orders, reportsOf(of(...events)));
      assert.equal(refusal?.finding.severity, severity);
    }
  });
});

describe('objects', () => {
  const examine = (changes: Partial<Snapshot>, config = defaultConfig, knowsOptions = true) => {
    const snapshot = createSnapshot(changes);
    const view = createClusterState(snapshot, config, nowWallMs);
    return examineObjects({ snapshot, view, config, knowsOptions });
  };
  const linesOf = (...args: Parameters<typeof examine>) =>
    examine(...args).map(({ code, object }) => `${code} ${object}`);
  const excepted = (count: number, name = 'db') =>
    Array.from({ length: count }, (_, at) => createPod(`${name}-${at}`, { labels: { app: name } }));

  it('show what their status says, unless grants decide it', () => {
    const withStatus = (reason: string) => {
      const conditions = [{ type: 'Ready', status: 'False', reason }];
      return { ...createIdentity('orders'), status: { conditions } };
    };
    const unowned = { identities: [withStatus('identity_not_owned')] };
    assert.deepEqual(linesOf(unowned), []);
    const lines = ['identity_not_owned AzureIdentity shop/orders'];
    assert.deepEqual(linesOf({ ...unowned, grants: undefined }), lines);
    assert.deepEqual(linesOf(unowned, defaultConfig, false), lines);
  });

  it('are exceptions for at least three pods, and most of the namespace', () => {
    const done = createPod('done', { status: { phase: 'Succeeded' } });
    const rest = [createPod('far', { namespace: 'x' }), done];
    for (const [matching, others, isBroad] of [
      [2, 0, false],
      [3, 3, false],
      [3, 2, true],
    ] as const) {
      const pods = [...excepted(matching), ...excepted(others, 'web'), ...rest];
      const found = examine({ exceptions: [exceptionFor({ app: 'db' })], pods });
      const texts = found.filter(({ code }) => code === 'exception_broad').map(({ text }) => text);
      assert.equal(texts.length, isBroad ? 1 : 0);
      for (const text of texts)
        assert.match(text, /^It matches 3 of the 5 pods of namespace shop:/);
    }
  });

  it('are exceptions in doubt where grants decide that are not known', () => {
    const enforcing = { ...defaultConfig, identityOwners: 'enforce' } as const;
    const only = { pods: excepted(1), bindings: [], identities: [] };
    const changes = { ...only, exceptions: [exceptionFor({ app: 'db' })], grants: undefined };
    const doubts = ['identity_not_owned AzurePodIdentityException shop/x'];
    assert.deepEqual(linesOf(changes, enforcing), doubts);
    assert.deepEqual(linesOf(changes, defaultConfig, false), doubts);
    assert.deepEqual(linesOf(changes), []);
    assert.deepEqual(linesOf({ ...changes, grants: [] }, enforcing), []);
  });

  it('of other namespaces are checked when all are requested', () => {
    const far = { namespace: 'x' };
    const objects = {
      identities: [createIdentity('orders'), createIdentity('idle', {}, far)],
      bindings: [
        createBinding('orders'),
        createBinding('lost', { azureIdentity: 'none', selector: '' }, far),
      ],
      exceptions: [exceptionFor({}, 'open', 'x')],
    };
    assert.deepEqual(linesOf(objects), []);
    assert.deepEqual(linesOf({ ...objects, scope: undefined }), [
      'identity_invalid AzureIdentity x/idle',
      'identity_unbound AzureIdentity x/idle',
      'selector_unusable AzureIdentityBinding x/lost',
      'identity_missing AzureIdentityBinding x/lost',
      'exception_without_labels AzurePodIdentityException x/open',
    ]);
  });
});

describe('the status of an identity', () => {
  const withReady = (fields: object, generation = 2) => {
    const identity = createIdentity('orders');
    const ready = { type: 'Ready', status: 'False', reason: 'credential_missing', message: 'No.' };
    const conditions = [
      { type: 'Valid', status: 'True' },
      { ...ready, observedGeneration: 2, ...fields },
    ];
    const metadata = { ...asRecord(identity['metadata']), generation };
    return { ...identity, metadata, status: { conditions } };
  };

  it('shows Secrets, the rest where options are not known, and nothing of an older spec', () => {
    for (const [identity, isDecided, expected] of [
      [withReady({}), true, 'credential_missing'],
      [withReady({ reason: 'identity_not_owned' }), false, 'identity_not_owned'],
      [withReady({ reason: 'identity_not_owned' }), true, undefined],
      [withReady({ status: 'True', reason: 'ok' }), false, undefined],
      [withReady({}, 3), false, undefined],
      [withReady({ reason: 'Waiting' }), false, undefined],
      [createIdentity('orders'), false, undefined],
    ] as const) {
      assert.equal(findingsOfStatus(identity, isDecided)[0]?.code, expected);
    }
    const isReady = [
      withReady({ status: 'True' }),
      withReady({}),
      withReady({ status: 'True' }, 3),
    ];
    assert.deepEqual(isReady.map(isReadyByStatus), [true, false, false]);
  });
});

describe('identities of type 0 on nodes that Karpenter makes', () => {
  const nodes = [node('fixed'), node('made', { 'karpenter.sh/nodepool': 'default' })];
  const podOn = (nodeName: string, status = {}, name = 'web') =>
    createPod(name, { ...bound, spec: { nodeName }, status });
  const found = (changes: Partial<Snapshot>) => {
    const snapshot = createSnapshot({ nodes, pods: [podOn('made')], ...changes });
    return findUserAssigned(snapshot.nodes, snapshot);
  };
  const typed = (spec: object) => ({ identities: [createIdentity('orders', spec)] });
  const unbound = createBinding('orders', { azureIdentity: 'orders', selector: 'other' });

  it('need such a node, a bound pod that lives, and type 0', () => {
    for (const [changes, fix] of [
      [{}, /kubectl nmi migrate to-federation orders -n shop/],
      [typed({ clientID: clientA }), /to-federation/],
      [typed({ type: 4, clientID: clientA }), /^Run its pods on other nodes/],
      [typed({ type: 4, federation: 'pod' }), undefined],
      ...[1, 2, 3].map((type) => [typed({ type, clientID: clientA }), undefined] as const),
      [{ nodes: nodes.slice(0, 1) }, undefined],
      [{ nodes: undefined }, undefined],
      [{ pods: [podOn('fixed'), podOn('')] }, undefined],
      [{ pods: [podOn('made', { phase: 'Succeeded' })] }, undefined],
      [{ bindings: [unbound] }, undefined],
    ] as readonly (readonly [Partial<Snapshot>, RegExp | undefined])[]) {
      const fixes = found(changes).map((each) => each.fix);
      assert.equal(fixes.length, fix === undefined ? 0 : 1);
      if (fix !== undefined) assert.match(fixes.join(), fix);
    }
  });

  it('name ten pods at most', () => {
    const pods = Array.from({ length: 12 }, (_, at) => podOn('made', {}, `web-${at}`));
    assert.equal(found({ pods })[0]?.details.length, 10);
  });
});

describe('the label on an owner', () => {
  const selector = { matchLabels: { app: 'web' } };
  const template = { metadata: bound };
  const job = createObject('Job', 'nightly-1', { template: {} }, bound);
  const ofCronJob = { ...asRecord(job['metadata']), ownerReferences: [{ kind: 'CronJob' }] };

  it('is found where the template has none, with the command that moves it', () => {
    const jobTemplate = { spec: { template: {} } };
    for (const [workload, fix] of [
      [
        createObject('Deployment', 'web', { selector, template: {} }, bound, 'apps/v1'),
        `kubectl -n shop patch deployment web -p '{"spec":{"template":{"metadata":{"labels":{"aadpodidbinding":"orders"}}}}}'`,
      ],
      [createObject('CronJob', 'x', { jobTemplate }, bound), 'spec.jobTemplate.spec.template.meta'],
      [job, ''],
      [createObject('Deployment', 'a', { template }, bound), undefined],
      [createObject('Deployment', 'b', { template: {} }), undefined],
      [createObject('Deployment', 'c', {}, bound), undefined],
      [{ ...job, metadata: ofCronJob }, undefined],
    ] as const) {
      const [found] = findOwnerLabels([workload]).map((each) => each.fix);
      assert.equal(found?.includes(fix ?? ''), fix === undefined ? undefined : true);
    }
  });

  it('is of an owner that a pod has through others', () => {
    const deployment = createObject('Deployment', 'web', { selector });
    const cronJob = createObject('CronJob', 'nightly', {});
    const set = createObject('StatefulSet', 'db', { selector });
    const other = createObject('StatefulSet', 'other', { selector });
    const far = createObject('Deployment', 'web', { selector }, { namespace: 'x' });
    for (const [kind, name, app, owner] of [
      ['ReplicaSet', 'web-7d4b9', 'web', deployment],
      ['ReplicaSet', 'web-7d4b9', 'other', undefined],
      ['ReplicaSet', 'nightly-1', '', undefined],
      ['Job', 'nightly-123', '', cronJob],
      ['Job', 'web-1', '', undefined],
      ['StatefulSet', 'db', '', set],
      ['DaemonSet', 'web', 'web', undefined],
    ] as const) {
      const pod = createPod('p', { labels: { app }, owner: { kind, name } });
      const owners = ownersOf(pod, [deployment, cronJob, set, other, far]);
      assert.deepEqual(owners, owner === undefined ? [] : [owner], `${kind} ${name}`);
    }
  });
});

describe('a label selector', () => {
  const labels = new Map(Object.entries({ app: 'web', tier: 'front' }));
  const of = (operator: string, key = 'app', ...values: readonly string[]) => ({
    matchExpressions: [{ key, operator, values }],
  });
  for (const [selector, matches] of [
    [undefined, false],
    [{}, true],
    [{ matchLabels: { app: 'web' } }, true],
    [{ matchLabels: { app: 'Web' } }, false],
    [{ matchLabels: { app: 'web', x: 'y' } }, false],
    [of('In', 'app', 'a', 'web'), true],
    [of('In', 'app', 'a'), false],
    [of('In', 'x', 'a'), false],
    [of('NotIn', 'app', 'a'), true],
    [of('NotIn', 'app', 'web'), false],
    [of('NotIn', 'x', 'web'), true],
    [of('Exists'), true],
    [of('Exists', 'x'), false],
    [of('DoesNotExist'), false],
    [of('DoesNotExist', 'x'), true],
    [of('Near'), false],
  ] as const) {
    it(`${matches ? 'matches' : 'does not match'} with ${JSON.stringify(selector ?? null)}`, () =>
      assert.equal(matchesSelector(selector, labels), matches));
  }
});

describe('network policies', () => {
  const pod = createPod('web', { labels: { app: 'web' } });
  const target = { ip: '169.254.25.79', port: 2579 };
  const to = (cidr: string, ...except: readonly string[]) => ({
    to: [{ ipBlock: { cidr, except } }],
  });
  const port = (fields: object) => ({ ports: [fields] });
  const egress = (...rules: readonly object[]) => ({ egress: rules });

  /** With a block in doubt that forbids the connection, and with one that allows it. */
  function against(...specs: readonly object[]) {
    const policies = specs.map((spec, at) =>
      createObject('NetworkPolicy', `p${at}`, { podSelector: {}, ...spec }),
    );
    return [false, true].map((isInDoubt) => policiesAgainst(pod, policies, target, isInDoubt));
  }
  const [denied, open, doubtful] = [
    [['p0'], ['p0']],
    [[], []],
    [['p0'], []],
  ];

  const cases: readonly (readonly [what: string, spec: object, expected: readonly unknown[]])[] = [
    ['egress to nothing', { policyTypes: ['Egress'] }, denied],
    ['egress to pods', egress({ to: [{ podSelector: {} }, { namespaceSelector: {} }] }), denied],
    ['another address', egress(to('169.254.169.254/32')), denied],
    ['an exception of the block', egress(to('0.0.0.0/0', '169.254.0.0/16')), denied],
    ['IPv6 alone', egress(to('::/0')), denied],
    ['another port', egress(port({ port: 80 })), denied],
    ['UDP', egress(port({ protocol: 'UDP' })), denied],
    ['a named port', egress(port({ port: 'metadata' })), denied],
    ['a range below', egress(port({ port: 1, endPort: 2578 })), denied],
    ['no rule at all', {}, open],
    ['ingress alone', { ingress: [], policyTypes: ['Ingress'] }, open],
    ['another pod', { podSelector: { matchLabels: { app: 'db' } }, policyTypes: ['Egress'] }, open],
    ['a rule without limits', egress({}), open],
    ['the address', egress({ ...to('169.254.25.79/32'), ...port({ port: 2579 }) }), open],
    ['a range', egress({ ...to('169.254.0.0/16'), ...port({ port: 2000, endPort: 3000 }) }), open],
    ['TCP', egress(port({ protocol: 'TCP' })), open],
    ...[
      'everything',
      '',
      '10.0.0.0',
      '010.0.0.0/8',
      '10.0.0.0/33',
      '10.0.0.0/08',
      '${POD}/16',
    ].flatMap(
      (cidr) =>
        [
          [`the block "${cidr}"`, egress(to(cidr)), doubtful],
          [`the exception "${cidr}"`, egress(to('0.0.0.0/0', cidr)), doubtful],
          [`the exception "${cidr}" elsewhere`, egress(to('10.0.0.0/8', cidr)), denied],
          [`an exception of "${cidr}"`, egress(to(cidr, '169.254.0.0/16')), denied],
          [`the address beside "${cidr}"`, egress(to(cidr), to('169.254.0.0/16')), open],
          [`another port of "${cidr}"`, egress({ ...to(cidr), ...port({ port: 80 }) }), denied],
        ] as const,
    ),
  ];
  for (const [what, spec, expected] of cases) {
    it(`with ${what} are read as Kubernetes defines them`, () =>
      assert.deepEqual(against(spec), expected));
  }

  it('allow what any one of them allows, and apply only to their namespace', () => {
    assert.deepEqual(against({ policyTypes: ['Egress'] }, egress({})), open);
    const spec = { podSelector: {}, policyTypes: ['Egress'] };
    const other = createObject('NetworkPolicy', 'p', spec, { namespace: 'x' });
    assert.deepEqual(policiesAgainst(pod, [other], target, false), []);
  });
});
