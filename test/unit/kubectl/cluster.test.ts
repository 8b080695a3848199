import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { stringAt } from '../../../src/base/json-value.ts';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import {
  type RawObject,
  labelsOf,
  nameOf,
  specOf,
  statusOf,
  templateOf,
  titleOf,
} from '../../../src/kubectl/base/object.ts';
import { defaultConfig, versionOf, viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { findIdentity, readBound } from '../../../src/kubectl/cluster/bound.ts';
import { createClusterState } from '../../../src/kubectl/cluster/cluster-state.ts';
import { readCredentialTarget, readIssuer } from '../../../src/kubectl/cluster/issuer.ts';
import { parseManifests, snapshotOf } from '../../../src/kubectl/cluster/manifests.ts';
import { askRight, everywhere } from '../../../src/kubectl/cluster/rights.ts';
import {
  readSourceReports,
  reportKey,
  sourceReportsOf,
} from '../../../src/kubectl/cluster/source-reports.ts';
import {
  type Unread,
  countUnread,
  describeUnread,
  mergeUnread,
  renderUnread,
} from '../../../src/kubectl/cluster/unread.ts';
import { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import type { Config } from '../../../src/nmi/config/config.ts';
import { type EventFields, createEvent } from '../../kubectl/support/events.ts';
import { createFakeAz, ordersId, tenant } from '../../kubectl/support/fake-az.ts';
import {
  type Played,
  type Recorded,
  agentSet,
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  failed,
  kinds,
  nowWallMs,
  ok,
  play,
} from '../../kubectl/support/recorded-kubectl.ts';
import { createIo } from '../../kubectl/support/silent-io.ts';

describe('the agent of a node', () => {
  it('is read from its pod: node, state, version, options', () => {
    const agent = viewAgent(
      createAgentPod('node-1', {
        args: ['--node=$(NODE_NAME)', '--strict-identity', '--cloud=china'],
      }),
    );
    assert.equal(agent.node, 'node-1');
    assert.equal(agent.isReady, true);
    assert.equal(versionOf(agent), '0.1.0');
    assert.equal(agent.config?.strictIdentity, true);
    assert.equal(agent.config?.cloud, 'china');
    assert.equal(defaultConfig.strictIdentity, false);
    assert.equal(agent.isOldNmi, false);
  });

  it('is not ready with the kubelet’s reason for its container, or for the pod', () => {
    const view = (state: object) =>
      viewAgent(createPod('nmi', { status: { containerStatuses: [{ state }] } }));
    const waiting = view({ waiting: { reason: 'ImagePullBackOff', message: 'no such image' } });
    assert.equal(waiting.problem, 'ImagePullBackOff: no such image');
    assert.equal(view({ running: {} }).problem, 'phase Running');
    assert.match(viewAgent(createAgentPod('n', { isReady: false })).problem, /unready status/);
  });

  it('has the options of its variables, but not of empty ones', () => {
    const env = [
      { name: 'NMI_CLOUD', value: 'china' },
      { name: 'NMI_IDENTITY_OWNERS', value: '' },
      { name: 'NMI_STRICT_IDENTITY', valueFrom: {} },
    ];
    const { config } = viewAgent(
      createPod('nmi', { spec: { containers: [{ name: 'nmi', env }] } }),
    );
    const { cloud, identityOwners, strictIdentity } = defaultConfig;
    assert.notEqual(cloud, 'china');
    assert.deepEqual(
      [config?.cloud, config?.identityOwners, config?.strictIdentity],
      ['china', identityOwners, strictIdentity],
    );
  });

  it('has unknown options if they are another program’s', () => {
    assert.equal(viewAgent(createAgentPod('n', { args: ['--no-such-flag=1'] })).config, undefined);
  });

  it('is recognized as the old NMI by its image', () => {
    const image = 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17';
    const old = viewAgent(createAgentPod('n', { image }));
    assert.equal(old.isOldNmi, true);
    assert.equal(versionOf(old), 'v1.8.17');
    assert.equal(versionOf({ image: 'host:5000/nmi@sha256:abc' }), 'host:5000/nmi@sha256:abc');
    const pushed = 'host:5000/nmi:1.2.3';
    assert.equal(viewAgent(createAgentPod('n', { image: pushed })).isOldNmi, false, 'by its label');
    const viewUnlabelled = (unlabelledImage: string) =>
      viewAgent(
        createPod('nmi', {
          spec: {
            containers: [
              { name: 'a', image: unlabelledImage },
              { name: 'b', image: 'x' },
            ],
          },
        }),
      );
    assert.equal(viewUnlabelled(pushed).isOldNmi, true);
    assert.equal(viewUnlabelled('example/entra-pod-identity:0.1.0').isOldNmi, false);
  });
});

const boundPod = (name: string, fields: object = {}) =>
  createPod(name, { labels: { aadpodidbinding: 'orders' }, ...fields });

async function podsOf(...specs: readonly object[]) {
  const lists = {
    azureidentities: [createIdentity('orders')],
    azureidentitybindings: [
      ...specs.map((spec) => createBinding('b', { azureIdentity: 'orders', ...spec })),
      createBinding('other', { azureIdentity: 'other', selector: 'plain' }),
    ],
    pods: [
      boundPod('web'),
      boundPod('robot', { spec: { serviceAccountName: 'robot' } }),
      createPod('plain', { labels: { aadpodidbinding: 'plain' } }),
      createPod('empty', { labels: { aadpodidbinding: '' } }),
    ],
  };
  const kubectl = new Kubectl(
    createIo((_program, args) => {
      const [, items] = Object.entries(lists).find(([kind]) => args[1]?.endsWith(`/${kind}`)) ?? [];
      return Promise.resolve(ok(JSON.stringify({ items })));
    }),
  );
  const { pods } = await findIdentity(kubectl, 'shop', 'orders');
  return pods.map(nameOf);
}

describe('the pods of an identity', () => {
  it('have the label of one of its bindings, each once', async () => {
    const selector = { selector: 'orders' };
    assert.deepEqual(await podsOf(selector, selector), ['web', 'robot']);
    assert.deepEqual(await podsOf({ selector: 'Orders' }), []);
  });

  it('have the service account that a binding names', async () => {
    assert.deepEqual(await podsOf({ selector: 'orders', serviceAccount: 'robot' }), ['robot']);
  });

  it('are none for a selector that is empty or no text', async () => {
    for (const selector of ['', 7, undefined]) assert.deepEqual(await podsOf({ selector }), []);
  });
});

describe('a list of bound pods that cannot be read', () => {
  it('fails with the kind and the namespace, or all namespaces', async () => {
    const kubectl = new Kubectl(createIo(() => Promise.resolve(failed('no'))));
    await assert.rejects(readBound(kubectl, 'shop'), /list azureidentit\S+ in namespace shop/);
    await assert.rejects(readBound(kubectl, undefined), /list azureidentit\S+ in all namespaces/);
  });
});

const use = { 'azure.workload.identity/use': 'true' };

function viewOf(
  labels: Readonly<Record<string, string>>,
  config: Partial<Config> = {},
  clientId = clientB,
  canReadGrants = true,
) {
  const annotations = {
    'azure.workload.identity/client-id': clientId,
    'azure.workload.identity/tenant-id': 'contoso.example',
  };
  return createClusterState(
    createSnapshot({
      pods: [createPod('web', { labels })],
      identities: [createIdentity('orders'), createIdentity('broken', { type: 'x' })],
      accounts: [createObject('ServiceAccount', 'default', {}, { annotations })],
      grants: canReadGrants ? [] : undefined,
    }),
    { ...defaultConfig, ...config },
    nowWallMs,
  );
}

function outcomeOf(view: ReturnType<typeof viewOf>) {
  const explanation = view.explainPod(createPod('web'));
  return explanation?.requests[0]?.outcome;
}

describe('a snapshot as the agent sees it', () => {
  it('gives the same grants as the agent, and ignores the same objects', () => {
    const view = viewOf({ aadpodidbinding: 'orders' });
    assert.equal(outcomeOf(view)?.kind, 'granted');
    assert.deepEqual(
      view.unusable.map(({ kind, title, reason }) => [kind, title, reason]),
      [['AzureIdentity', 'shop/broken', 'spec.type is not an integer']],
    );
  });

  it('has no other pods', () => {
    const view = viewOf({});
    assert.equal(view.explainPod(createPod('x')), undefined);
  });

  it('finds the owner of an identity, unless the user may not read grants', () => {
    const of = (canReadGrants: boolean) =>
      outcomeOf(
        viewOf(
          { aadpodidbinding: 'orders' },
          { identityOwners: 'enforce' },
          clientB,
          canReadGrants,
        ),
      );
    assert.equal(of(true)?.kind, 'refused');
    assert.equal(of(false)?.kind, 'granted');
    const own = { namespaces: ['shop'], clientIDs: [clientA] };
    const granted = createClusterState(
      createSnapshot({
        pods: [createPod('web', { labels: { aadpodidbinding: 'orders' } })],
        grants: [createObject('AzureIdentityGrant', 'shop', own, { namespace: '' })],
      }),
      { ...defaultConfig, identityOwners: 'enforce' },
      nowWallMs,
    );
    assert.equal(outcomeOf(granted)?.kind, 'granted');
  });

  it('knows the redirect of an agent only if its option names it', () => {
    const modeOf = (redirect: Config['redirect']) =>
      viewOf({}, { redirect }).explainPod(createPod('web'))?.node.redirect.mode;
    assert.deepEqual((['auto', 'pinned', 'iptables', 'ebpf'] as const).map(modeOf), [
      'unknown',
      'unknown',
      'iptables',
      'ebpf',
    ]);
  });

  it('follows the options of the agent', () => {
    assert.equal(outcomeOf(viewOf(use))?.kind, 'refused');
    assert.equal(outcomeOf(viewOf(use, { workloadIdentity: true }))?.kind, 'granted');
    assert.equal(outcomeOf(viewOf(use, { workloadIdentity: true }, ''))?.kind, 'refused');
  });
});

const issuerFrom = (text: string) =>
  readIssuer(new Kubectl(createIo(() => Promise.resolve(ok(text)))));

describe('the issuer of service account tokens', () => {
  it('is one that Entra ID can read, and nothing that az takes for a file or two words', async () => {
    const { issuer } = { issuer: 'https://oidc.example/1/' };
    assert.equal(await issuerFrom(JSON.stringify({ issuer })), issuer);
    for (const wrong of ['http://x/', 'kubernetes.default.svc', '@file', 'https://x y', '']) {
      await assert.rejects(issuerFrom(JSON.stringify({ issuer: wrong })), {
        message: 'the cluster has no issuer that Entra ID could read',
      });
    }
    await assert.rejects(issuerFrom('no JSON'));
  });
});

describe('the target of federated credentials', () => {
  const kubectl = new Kubectl(
    createIo(() => Promise.resolve(ok('{"issuer":"https://oidc.example/"}'))),
  );
  const targetOf = (...args: readonly string[]) =>
    readCredentialTarget(kubectl, [viewAgent(createAgentPod('node-1', { args }))]);

  it('has the audience of the agents: their own, or that of their cloud', async () => {
    const [gov, own] = [
      await targetOf('--cloud=usgovernment'),
      await targetOf('--entra-audience=api://corp'),
    ];
    assert.deepEqual(
      [gov.audience, own.audience],
      ['api://AzureADTokenExchangeUSGov', 'api://corp'],
    );
    assert.deepEqual(
      [gov.legAudience, own.legAudience],
      ['api://AzureADTokenExchangeUSGov', 'api://AzureADTokenExchange'],
      'Entra ID takes no other for a managed identity',
    );
    assert.deepEqual([gov.notes, own.notes], [[], []]);
  });

  it('is assumed, and says so, where no agent shows its options', async () => {
    const { issuer, audience, notes } = await readCredentialTarget(kubectl, []);
    assert.deepEqual([issuer, audience], ['https://oidc.example/', 'api://AzureADTokenExchange']);
    assert.match(String(notes), /the audience is assumed/);
  });
});

const manifest = `
kind: AzureIdentity
metadata: { name: a }
---
# nothing
---
kind: List
items:
  - { kind: AzureIdentityBinding, metadata: { name: b, namespace: x } }
  - { kind: CronJob, metadata: { name: c }, spec: { jobTemplate: { spec: { template: { metadata: { labels: { l: v } } } } } } }
  - { kind: Deployment, metadata: { name: d }, spec: { template: {} } }
`;

describe('manifests in a file', () => {
  it('are the objects that a cluster would have, with the pods of their workloads', () => {
    const snapshot = snapshotOf(parseManifests('f', manifest, 'shop'));
    assert.deepEqual(snapshot.identities.map(titleOf), ['shop/a']);
    assert.deepEqual(snapshot.bindings.map(titleOf), ['x/b']);
    assert.deepEqual(snapshot.pods.map(titleOf), ['shop/c (CronJob)', 'shop/d (Deployment)']);
    assert.equal(labelsOf(snapshot.pods[0] ?? {}).get('l'), 'v');
    assert.equal(new Set(snapshot.pods.map((pod) => JSON.stringify(pod['status']))).size, 2);
  });

  it('have no namespace in a grant, which is of the cluster', () => {
    const grantsOf = (...metadata: readonly object[]) => {
      const items = metadata.map((each) => ({ kind: 'AzureIdentityGrant', metadata: each }));
      const list = JSON.stringify({ kind: 'List', items });
      return snapshotOf(parseManifests('f', list, 'shop')).grants?.map(titleOf);
    };
    assert.deepEqual(grantsOf({ name: 'a' }), ['a']);
    assert.deepEqual(grantsOf({ name: 'a' }, { name: 'b', namespace: 'x' }), ['a', 'b']);
    assert.equal(grantsOf(), undefined, 'the cluster may have some');
  });

  it('have an address for each of many workloads', () => {
    const items = Array.from({ length: 300 }, (_, index) => ({
      kind: 'Deployment',
      metadata: { name: `d${index}` },
    }));
    const { pods } = snapshotOf(
      parseManifests('f', JSON.stringify({ kind: 'List', items }), 'shop'),
    );
    const ips = pods.map((pod) => stringAt(statusOf(pod), 'podIP'));
    assert.equal(new Set(ips).size, 300);
    assert.ok(ips.every(isIPv4), ips.join());
  });

  it('are refused with the line that is not YAML', () => {
    assert.throws(() => parseManifests('f.yaml', 'a: [', 'shop'), /f\.yaml is no YAML: .*line 1/);
  });
});

describe('reading for one pod', () => {
  const bound = { labels: { aadpodidbinding: 'orders' } };
  const explain = async (recorded: Recorded, ...more: readonly string[]) => {
    const { stdout, stderr } = await play(
      ['explain', 'pod', 'web', '-o', 'json', ...more],
      recorded,
    );
    assert.notEqual(stdout, '', stderr);
    return JSON.parse(stdout) as {
      verdict: string;
      summary: string;
      findings: readonly { code: string; details: readonly string[] }[];
      unread: readonly { loses: string; why: string }[];
    };
  };

  it('needs get of pods and list of the three kinds, and names the rule when they are forbidden', async () => {
    for (const [kind, verb] of [
      ['pods', 'get'],
      [kinds.identities, 'list'],
      [kinds.bindings, 'list'],
      [kinds.exceptions, 'list'],
    ] as const) {
      const recorded = { ...boundTestBed(), forbidden: { [kind]: 'everywhere' as const } };
      const { code, stderr } = await play('explain pod web', recorded);
      assert.equal(code, 77, kind);
      assert.match(stderr, new RegExp(`Ask for this RBAC rule: .*"${verb}"\\] in namespace shop`));
    }
  });

  it('is of the namespace of the context, and only there', async () => {
    const pods = [createPod('web', { ...bound, namespace: 'other' }), createAgentPod('node-1')];
    const { stderr } = await play('explain pod web', boundTestBed({ pods }));
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
    const unverified = await play('explain pod web', {
      ...boundTestBed({ pods }),
      forbidden,
    });
    assert.match(unverified.stderr, /cannot verify the agents: .* in namespace kube-system/);
  });

  it('verifies agents by the DaemonSets of their namespace if it may list no others', async () => {
    const forbidden = { [kinds.daemonSets]: 'all-namespaces' } as const;
    const { code, stderr } = await play('explain pod web', {
      ...boundTestBed(),
      forbidden,
    });
    assert.deepEqual([code, stderr], [0, '']);
  });

  it('continues without a kind that the server lacks', async () => {
    const { verdict, unread } = await explain({ ...boundTestBed(), missing: [kinds.grants] });
    assert.equal(verdict, 'granted');
    assert.match(unread.at(-1)?.why ?? '', /the server does not have this kind of object/);
    const { code, stderr } = await play('explain pod web', {
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

const analyzeWith = async (recorded: Recorded) => {
  const { code, stdout, stderr } = await play('analyze -o json', recorded);
  return {
    code,
    stderr,
    answer:
      stdout === ''
        ? undefined
        : (JSON.parse(stdout) as {
            unread: { what: string; why: string; loses: string }[];
          }),
  };
};

describe('reading a cluster', () => {
  it('needs pods and the three kinds, and names the rule when they are forbidden', async () => {
    for (const kind of ['pods', kinds.identities, kinds.bindings, kinds.exceptions]) {
      const { code, stderr } = await analyzeWith({
        ...boundTestBed(),
        forbidden: { [kind]: 'everywhere' },
      });
      assert.equal(code, 77, kind);
      assert.match(
        stderr,
        /Ask for this RBAC rule: apiGroups: .*verbs: \["list"\] in namespace shop/,
      );
    }
  });

  it('needs nothing else, and reports what is unknown without it', async () => {
    const forbidden = Object.fromEntries(
      [
        ...[kinds.policies, kinds.deployments, 'serviceaccounts', 'statefulsets.apps'],
        ...['daemonsets.apps', 'cronjobs.batch', 'jobs.batch'],
      ].map((kind) => [kind, 'everywhere' as const]),
    );
    const { code, answer } = await analyzeWith({ ...boundTestBed(), forbidden });
    assert.equal(code, 0);
    assert.deepEqual(answer?.unread.map(({ loses }) => loses).toSorted(), [
      'network policies',
      'owners of pods',
      'service accounts',
    ]);
    assert.match(answer?.unread[0]?.why ?? '', /no right; RBAC rule: apiGroups/);
  });

  it('has one rule for the kinds of a group, and every kind in a rule', async () => {
    const forbidden = Object.fromEntries(
      ['statefulsets.apps', 'jobs.batch', 'cronjobs.batch'].map(
        (kind) => [kind, 'everywhere'] as const,
      ),
    );
    const { answer } = await analyzeWith({ ...boundTestBed(), forbidden });
    assert.deepEqual(
      answer?.unread.map(({ what, why }) => [what, why]),
      [
        [
          'list cronjobs.batch, list jobs.batch, list statefulsets.apps',
          'no right; RBAC rule: apiGroups: ["batch"], resources: ["cronjobs", "jobs"], verbs: ["list"] in namespace shop; ' +
            'apiGroups: ["apps"], resources: ["statefulsets"], verbs: ["list"] in namespace shop',
        ],
      ],
    );
  });

  it('reads one namespace if the user may not read all', async () => {
    const forbidden = { [kinds.identities]: 'all-namespaces', pods: 'other-namespaces' } as const;
    const { code, answer } = await analyzeWith({ ...boundTestBed(), forbidden });
    assert.equal(code, 0);
    assert.deepEqual(answer?.unread.map(({ loses }) => loses).toSorted(), [
      'objects of other namespaces',
      'options and state of the agents',
    ]);
  });

  it('fails clearly without the definitions of the kinds', async () => {
    const { code, stderr } = await analyzeWith({ ...boundTestBed(), missing: [kinds.identities] });
    assert.equal(code, 1);
    assert.match(
      stderr,
      /azureidentities\.aadpodidentity\.k8s\.io: the server does not have this kind of object\nInstall the custom resource definitions/,
    );
  });

  it('continues without a kind that an old server lacks', async () => {
    const { code, answer } = await analyzeWith({ ...boundTestBed(), missing: ['cronjobs.batch'] });
    assert.equal(code, 0);
    assert.match(answer?.unread[0]?.why ?? '', /cannot list cronjobs.batch/);
  });
});

const orders = createIdentity('orders');

const reason = 'CredentialRefused';

const key = reportKey('AzureIdentity', 'shop', 'uid-shop-orders');

const reportsOf = (...events: readonly RawObject[]) => sourceReportsOf(events, nowWallMs);

const of = (fields: Partial<EventFields>) =>
  reportsOf(createEvent(orders, { reason, ...fields })).get(key)?.[0];

describe('reports of agents about sources', () => {
  it('are Events of our reporter, with a reason of the table and its type, of the last hour', () => {
    assert.deepEqual(of({ note: 'Entra ID refuses it. Fix: Renew it.' }), {
      code: 'credential_refused',
      atWallMs: nowWallMs - 60_000,
      node: 'node-1',
      identityUid: '',
      cachedUntil: undefined,
      text: 'Entra ID refuses it.',
    });
    assert.equal(of({ reason: 'IdentityAccepted' })?.code, 'accepted');
    assert.ok(of({ agoMs: 3_599_000 }));
    assert.ok(of({ agoMs: 299_000, reason: 'FederationPending' }));
    for (const fields of [
      { agoMs: 3_601_000 },
      { agoMs: 301_000, reason: 'FederationPending' },
      { reason: 'BindingMissing' },
      { reason: 'constructor' },
      { changes: { type: 'Normal' } },
      { reason: 'IdentityAccepted', changes: { type: 'Warning' } },
      { changes: { reportingComponent: 'kubelet' } },
      { changes: { eventTime: 'x' } },
      { changes: { metadata: { namespace: 'shop' } } },
      { changes: { involvedObject: { kind: 'Node', uid: 'uid-shop-orders' } } },
    ]) {
      assert.equal(of(fields), undefined, JSON.stringify(fields));
    }
  });

  it('have no time after that of the server, who alone cannot be lied to', () => {
    const eventTime = new Date(nowWallMs + 1e9).toISOString();
    assert.equal(of({ changes: { eventTime } })?.atWallMs, nowWallMs - 59_000);
  });

  it('are about objects of their own namespace', () => {
    const metadata = {
      namespace: 'other',
      creationTimestamp: new Date(nowWallMs).toISOString(),
    };
    assert.equal(of({ changes: { metadata } }), undefined);
  });

  it('name the identity that an Event about a pod is related to', () => {
    const pod = createPod('web');
    const reports = reportsOf(createEvent(pod, { reason, related: orders }));
    const [report] = reports.get(reportKey('Pod', 'shop', 'uid-shop-web')) ?? [];
    assert.equal(report?.identityUid, 'uid-shop-orders');
    const other = reportsOf(createEvent(pod, { reason, related: pod }));
    assert.equal([...other.values()][0]?.[0]?.identityUid, '');
  });

  it('say until when cached tokens are valid, while they are', () => {
    const until = (time: string) => of({ note: `Cached tokens are valid until ${time}.` });
    assert.equal(until('2026-11-27T06:00:01Z')?.cachedUntil, '2026-11-27T06:00:01Z');
    assert.equal(until('2026-11-27T06:00:00Z')?.cachedUntil, undefined);
    assert.equal(until('tomorrow')?.cachedUntil, undefined);
  });

  it('are short lines, whatever was written', () => {
    const report = of({ note: `a\u001b[31m\nb\u202e${'x'.repeat(9_999)}`, node: '\u0007n' });
    assert.match(report?.text ?? '', /^a\?\[31m\?b\?x{200,}$/);
    assert.equal(report?.text.length, 300);
    assert.equal(report.node, '?n');
  });

  it('are read by one bounded call, which the server filters', async () => {
    const calls: string[] = [];
    const one = createEvent(orders, { reason });
    const read = async (scope: string | undefined, count: number, stderr = '') => {
      const unread: Unread[] = [];
      const io = createIo((_, [, path = '']) => {
        calls.push(path);
        const items = Array.from({ length: count }, () => one);
        const stdout = JSON.stringify({ kind: 'EventList', apiVersion: 'v1', items });
        return Promise.resolve({ code: stderr === '' ? 0 : 1, stdout, stderr });
      });
      const reports = await readSourceReports(new Kubectl(io), scope, nowWallMs, unread);
      return [reports?.get(key)?.length, unread.map(({ what, why }) => `${what}: ${why}`)];
    };
    assert.deepEqual(await read('shop', 1), [1, []]);
    assert.deepEqual(await read(undefined, 5_000), [
      5_000,
      ['read all Events of the agents: there are more than 5000; -n reads those of one namespace'],
    ]);
    const query = '?fieldSelector=reportingComponent%3Dentra-pod-identity%2Fnmi&limit=5000';
    assert.deepEqual(calls, [
      `--raw=/api/v1/namespaces/shop/events${query}`,
      `--raw=/api/v1/events${query}`,
    ]);
    const forbidden =
      'Error from server (Forbidden): events is forbidden: User "dev" cannot list resource "events" in API group "" in the namespace "shop"';
    assert.deepEqual(await read('shop', 0, forbidden), [
      undefined,
      [
        'list events (kubectl get events -n shop --field-selector=reportingComponent=entra-pod-identity/nmi): no right; RBAC rule: apiGroups: [""], resources: ["events"], verbs: ["list"] in namespace shop',
      ],
    ]);
    const [, [ofAll]] = (await read(undefined, 0, forbidden)) as [unknown, string[]];
    assert.match(ofAll ?? '', /kubectl get events -A /);
  });
});

/** A user who may create a pod can give it the agents' label: no verb may take it for an agent. */

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
    const tested = await play('test --pod web', testBedOf());
    assert.equal(tested.code, 2);
    assert.match(
      tested.stderr,
      /no verified agent is visible to you in namespace kube-system\nGive --image/,
    );
    const federated = await play('identity federate shared', testBedOf());
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
    const { stdout, stderr } = await play('doctor --agent-namespace identity', recorded);
    assert.match(stdout, /^agents +0 ready of 1, on 1 nodes$/m);
    assert.match(stdout, /Pod identity\/nmi-x: agent_not_ready/);
    assert.match(stderr, /namespace identity controls: 1 in attack, 1 in kube-system\./);
    assert.match((await play('doctor', recorded)).stdout, /Node node-1: agent_missing/);
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
    const { stdout, stderr } = await play('doctor', recorded);
    assert.match(stdout, /Node node-1: agent_missing/);
    assert.match(stderr, /controls: 1 in kube-system\./);
  });

  it('cause no warning where nothing else has their label', async () => {
    const recorded = testBedOf({ agents: [createAgentPod('node-1')], forgeries: [] });
    assert.equal((await play('doctor', recorded)).stderr, '');
  });

  it('are named by five namespaces at most', async () => {
    const forgeries = Array.from({ length: 8 }, (_, index) => createForgery(`ns-${index}`));
    const { stderr } = await play('doctor', testBedOf({ forgeries }));
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
    const { stdout, stderr } = await play('doctor', testBed);
    assert.match(stdout, /^agents +0 ready of 0, on 1 nodes$/m);
    assert.match(stdout, /Node node-1: agent_missing/);
    assert.match(stderr, warns);
    assert.doesNotMatch(stderr, /ignored pods/);
    const explained = await play('explain pod web', testBed);
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
    const none = await play('doctor', testBedOf({ forgeries: [], changes: { forbidden } }));
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
    const { stdout, stderr } = await play('doctor', recorded);
    assert.match(stdout, /^agents +1 ready of 1, /m);
    assert.match(stderr, /controls: 1 in kube-system\./);
  });
});

const forbidden = (resource: string, loses: string) => {
  const rule = { verb: 'list', resource, namespace: 'shop' };
  const failure = { kind: 'forbidden', rule, detail: '' } as const;
  return describeUnread(`list ${resource}`, failure, loses);
};

describe('what was not read', () => {
  it('is one entry for each loss, with every rule that would avoid it', () => {
    const merged = mergeUnread([
      forbidden('jobs.batch', 'owners'),
      forbidden('networkpolicies.networking.k8s.io', 'policies'),
      forbidden('cronjobs.batch', 'owners'),
    ]);
    assert.deepEqual(
      merged.map(({ what, why }) => `${what}: ${why}`),
      [
        'list cronjobs.batch, list jobs.batch: no right; RBAC rule: apiGroups: ["batch"], resources: ["cronjobs", "jobs"], verbs: ["list"] in namespace shop',
        'list networkpolicies.networking.k8s.io: no right; RBAC rule: apiGroups: ["networking.k8s.io"], resources: ["networkpolicies"], verbs: ["list"] in namespace shop',
      ],
    );
  });

  it('keeps other reasons than a missing right apart', () => {
    const other = { loses: 'owners', what: 'list jobs.batch', why: 'no such kind' };
    const merged = mergeUnread([forbidden('cronjobs.batch', 'owners'), other]);
    assert.deepEqual(
      merged.map(({ what }) => what),
      ['list cronjobs.batch', 'list jobs.batch'],
    );
    assert.deepEqual(merged[1], other);
  });

  it('is one line with a count, or all of it', () => {
    const unread = [forbidden('jobs.batch', 'owners'), forbidden('nodes', 'nodes')];
    assert.deepEqual(countUnread(unread), ['Not checked (2; -v shows why): owners; nodes.']);
    assert.deepEqual(renderUnread(unread).slice(0, 4), [
      '',
      'Not checked:',
      '  owners',
      '    cannot list jobs.batch: no right; RBAC rule: apiGroups: ["batch"], resources: ["jobs"], verbs: ["list"] in namespace shop',
    ]);
    assert.deepEqual([countUnread([]), renderUnread([])], [[], []]);
  });
});
