import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ProgramRun } from '../../../../src/kubectl/base/io.ts';
import { type RawObject, metadataOf } from '../../../../src/kubectl/base/object.ts';
import { ordersId, tenant } from '../../../kubectl/support/fake-az.ts';
import {
  type Recorded,
  boundTestBed,
  clientA,
  createAgentPod,
  createBinding,
  createIdentity,
  createPod,
  failed,
  kinds,
  ok,
  play,
} from '../../../kubectl/support/recorded-kubectl.ts';

const crds = 'customresourcedefinitions.apiextensions.k8s.io';

const definition = (
  plural: string,
  fields: readonly string[],
  ofStatus: readonly string[] = ['conditions'],
): RawObject => ({
  metadata: { name: `${plural}.aadpodidentity.k8s.io` },
  spec: {
    versions: [
      {
        schema: {
          openAPIV3Schema: {
            properties: {
              spec: { properties: propertiesOf(fields) },
              status: { properties: propertiesOf(ofStatus) },
            },
          },
        },
      },
    ],
  },
});

const propertiesOf = (fields: readonly string[]) =>
  Object.fromEntries(fields.map((field) => [field, {}]));

const definitions = [
  definition('azureidentities', ['allowedResources', 'federation', 'notBefore']),
  definition('azureidentitybindings', ['serviceAccount']),
  definition('azurepodidentityexceptions', []),
  definition('azureidentitygrants', [], []),
];

function testBedOf(
  changes: Readonly<Record<string, readonly RawObject[]>> = {},
  can = 'yes',
  version = 'v1.34.2',
): Recorded {
  return {
    objects: {
      nodes: [{ metadata: { name: 'node-1' }, status: { nodeInfo: { kernelVersion: '6.8.0' } } }],
      pods: [createAgentPod('node-1')],
      [crds]: definitions,
      ...changes,
    },
    other: (_program, args) =>
      args[0] === 'version'
        ? ok(`{"serverVersion":{"gitVersion":"${version}"}}`)
        : { code: can === 'yes' ? 0 : 1, stdout: `${can}\n`, stderr: '' },
  };
}

interface PartFields {
  readonly namespace?: string;
  /** Of a pod that is not, a container crashes. */
  readonly isReady?: boolean;
  readonly name?: string;
  readonly spec?: object;
}

/** A pod of the chart beside the agents. */
function createPart(component: string, fields: PartFields): RawObject {
  const {
    namespace = 'kube-system',
    isReady = true,
    name = `nmi-${component}-a`,
    spec = {},
  } = fields;
  const waiting = {
    reason: 'CrashLoopBackOff',
    message: 'back-off 5m0s restarting failed container',
  };
  return createPod(name, {
    namespace,
    labels: { 'app.kubernetes.io/component': component },
    spec,
    status: {
      phase: 'Running',
      conditions: [{ type: 'Ready', status: isReady ? 'True' : 'False' }],
      containerStatuses: [{ name: component, state: isReady ? { running: {} } : { waiting } }],
    },
  });
}

function createGuard(
  name: string,
  { step = 'guard-boot', ...fields }: Omit<PartFields, 'name'> & { readonly step?: string } = {},
): RawObject {
  const args = ['redirect', step, '--boot-guard-folder=/host/systemd'];
  const spec = {
    initContainers: [{ name: 'boot-guard', args }],
    containers: [{ name: 'nmi', command: ['sleep', 'infinity'] }],
  };
  return createPart('boot-guard', { ...fields, name, spec });
}

async function outputWith(...parts: readonly RawObject[]): Promise<string> {
  const pods = [createAgentPod('node-1'), ...parts];
  return (await play('doctor', testBedOf({ pods }))).stdout;
}

describe('kubectl nmi doctor', () => {
  it('finds nothing in a healthy cluster', async () => {
    const { code, stdout } = await play('doctor --exit-code', testBedOf());
    assert.equal(code, 0);
    assert.match(
      stdout,
      /^CHECK +RESULT\nAPI server +v1\.34\.2\ncustom resource definitions +4 of 4\n/,
    );
    assert.match(stdout, /agents +1 ready of 1, on 1 nodes\nrights of the agent +complete/);
    assert.match(stdout, /^MIC of aad-pod-identity +not there$/m);
    assert.match(stdout, /^admission policies +none known$/m);
    assert.doesNotMatch(stdout, /Findings/);
  });

  it('asks for the rights of the user where the user looks', async () => {
    for (const [flags, where] of [
      [[], []],
      [['-n', 'other'], ['--namespace=other']],
      [['-A'], ['--all-namespaces']],
    ] as const) {
      const { calls } = await play(['doctor', '--pre', ...flags], testBedOf());
      const own = calls.filter(([, word]) => word === 'auth');
      assert.equal(own.length, 4);
      for (const call of own) {
        const scopes = call.filter((each) => /^--(?:namespace|all-namespaces)/.test(each));
        assert.deepEqual(scopes, where);
      }
    }
  });

  it('counts the agents that are ready, and none of the replaced system', async () => {
    const pods = [
      createAgentPod('node-1', { isReady: false }),
      createAgentPod('node-2', { image: 'example/aad-pod-identity/nmi:v1.8.17' }),
      createAgentPod('node-3'),
    ];
    assert.match((await play('doctor', testBedOf({ pods }))).stdout, /agents +1 ready of 3,/);
  });

  it('says on how many nodes the boot guard is, and recommends it where the chart has none', async () => {
    const none = /^boot guard +not by the chart: see .*docs\/install\.md$/m;
    assert.match(await outputWith(), none);
    const guard = createGuard('nmi-boot-guard-a');
    assert.match(await outputWith(guard), /^boot guard +on 1 of 1 nodes$/m);
    const crashing = createGuard('nmi-boot-guard-b', { isReady: false });
    assert.match(await outputWith(crashing), /^boot guard +on 0 of 1 nodes$/m);
    assert.match(await outputWith(crashing, guard), /^boot guard +on 1 of 2 nodes$/m);
    assert.match(await outputWith(createGuard('x', { step: 'unguard-boot' })), none);
    assert.match(await outputWith(createGuard('x', { namespace: 'shop' })), none);
  });

  it('says whether anything writes status conditions', async () => {
    const none =
      /^status conditions +not written: the Deployment nmi-conditions has no ready pod$/m;
    assert.match(await outputWith(), none);
    const writer = createPart('conditions', {});
    assert.match(await outputWith(writer), /^status conditions +written$/m);
    assert.match(await outputWith(createPart('conditions', { isReady: false })), none);
    assert.match(await outputWith(createPart('conditions', { namespace: 'shop' })), none);
  });

  it('says whether the agents enforce owners of identities, and what to do if not', async () => {
    const checkWith = async (...args: readonly string[]): Promise<string> => {
      const pods = args.map((arg, at) => createAgentPod(`node-${at}`, { args: [arg] }));
      const { stdout } = await play('doctor', testBedOf({ pods }));
      return /^identity owners +(.*)$/m.exec(stdout)?.[1] ?? '';
    };
    const enforce = '--identity-owners=enforce';
    assert.equal(await checkWith(enforce, enforce), 'enforced');
    const fix = 'apply what `kubectl nmi grants` prints, then set nmi.identityOwners=enforce';
    assert.equal(await checkWith('-v=1'), `not enforced (warn): ${fix}`);
    assert.equal(
      await checkWith(enforce, '--identity-owners=off'),
      `not enforced (off on some nodes): ${fix}`,
    );
    assert.equal(await checkWith('--of-another-version'), 'not checked');
    assert.equal(await checkWith(), 'not checked');
  });

  it('looks for no agent before an installation', async () => {
    const { code, stdout } = await play('doctor --pre --exit-code', testBedOf({ pods: [] }));
    assert.equal(code, 0);
    assert.doesNotMatch(stdout, /agents/);
    assert.match((await play('doctor', testBedOf({ pods: [] }))).stdout, /agent_missing/);
  });

  it('checks the nodes before an installation', async () => {
    const node = { metadata: { name: 'node-1' }, status: { nodeInfo: { kernelVersion: '5.4.0' } } };
    const cases = [
      { nodes: [node], expected: 'Node node-1: kernel_old' },
      { nodes: [], expected: 'Cluster: nodes_missing' },
    ];
    for (const { nodes, expected } of cases) {
      const { stdout } = await play('doctor --pre', testBedOf({ nodes, pods: [] }));
      assert.ok(stdout.includes(expected), stdout);
      assert.doesNotMatch(stdout, /agent_missing/);
    }
  });

  it('finds definitions that are old or missing, an old server, and the MIC', async () => {
    const old = [
      definition('azureidentities', []),
      definition('azureidentitybindings', ['serviceAccount'], []),
    ];
    const mic = createPod('mic', { spec: { containers: [{ image: 'x/mic:v1' }] } });
    const { code, stdout } = await play(
      'doctor --pre --exit-code',
      testBedOf({ [crds]: old, pods: [mic] }, 'yes', 'v1.25.0'),
    );
    assert.equal(code, 1);
    assert.match(
      stdout,
      /azureidentities\.aadpodidentity\.k8s\.io: crd_old\n +It lacks the fields spec\.allowedResources, spec\.federation, spec\.notBefore\./,
    );
    assert.match(
      stdout,
      /azureidentitybindings\S*: crd_old\n +It lacks the fields status\.conditions\./,
    );
    assert.match(stdout, /azurepodidentityexceptions\.aadpodidentity\.k8s\.io: crd_missing/);
    assert.match(stdout, /server_old/);
    assert.match(stdout, /^custom resource definitions +2 of 4$/m);
    assert.match(stdout, /^MIC of aad-pod-identity +runs$/m);
    assert.match(stdout, /old_mic/);
  });

  it('finds permissions that the user or the agent lacks', async () => {
    const { stdout } = await play('doctor -A', testBedOf({}, 'no'));
    assert.match(stdout, /own_rights/);
    assert.match(stdout, /agent_rights\n +It may not list pods in all namespaces/);
    assert.match(stdout, /It may not create events\.events\.k8s\.io in all namespaces/);
    assert.doesNotMatch(stdout, /It may not patch/);
  });

  it('takes what an agent may do as its own node for a right, and one of its own for a wide one', async () => {
    const identities = [createIdentity('d', { type: 3 })];
    const testBed = testBedOf({ [kinds.identities]: identities });
    for (const isOwn of [false, true]) {
      const other: Recorded['other'] = (program, args, input) => {
        const [word, , verb = '', resource = ''] = args;
        if (word !== 'auth' || !/^(?:pods|serviceaccounts)$/.test(resource)) {
          return testBed.other?.(program, args, input);
        }
        const isGranted = isOwn || verb.startsWith('impersonate-on:associated-node:');
        return { code: isGranted ? 0 : 1, stdout: isGranted ? 'yes' : 'no', stderr: '' };
      };
      const { stdout, calls } = await play('doctor', { ...testBed, other });
      assert.match(stdout, /rights of the agent +complete\n/);
      const narrow = calls.filter((call) => call.includes('--namespace=shop'));
      assert.deepEqual(narrow, [], 'a right in all namespaces is one in each');
      const wide = /agent_rights_wide\n +It may create serviceaccounts\/token in all namespaces/;
      assert.equal(wide.test(stdout), isOwn, stdout);
    }
  });

  it('finds that the agent may not take the startup taint off its node', async () => {
    const pods = [createAgentPod('node-1', { args: ['--startup-taint=example.com/starting'] })];
    const outputOf = async (allowed: RegExp): Promise<string> => {
      const testBed = testBedOf({ pods });
      const other: Recorded['other'] = (program, args, input) =>
        args[3] === 'nodes'
          ? ok(allowed.test(args[2] ?? '') ? 'yes\n' : 'no\n')
          : testBed.other?.(program, args, input);
      return (await play('doctor', { ...testBed, other })).stdout;
    };
    const asNode = await outputOf(/^(?:impersonate-on:associated-node:get|patch)$/);
    assert.match(asNode, /rights of the agent +complete\n/);
    const readOnly = await outputOf(/get/);
    assert.match(readOnly, /rights of the agent +1 missing\n/);
    assert.match(readOnly, /agent_rights\n +It may not patch nodes/);
    assert.match(await outputOf(/^patch$/), /agent_rights\n +It may not get nodes/);
  });

  it('does not check the rights that --workload-identity has in some namespaces only', async () => {
    const testBed = testBedOf({
      pods: [createAgentPod('node-1', { args: ['--workload-identity'] })],
      [kinds.identities]: [createIdentity('orders', { type: 1 })],
    });
    const wide = await play('doctor', testBed);
    assert.match(wide.stdout, /rights of the agent +complete\n/);
    assert.doesNotMatch(wide.stdout, /Not checked/);
    const other: Recorded['other'] = (program, args, input) => {
      if (args[3] === 'secrets') return failed('Timeout');
      return args[3] === 'serviceaccounts' ? ok('no\n') : testBed.other?.(program, args, input);
    };
    const { stdout } = await play('doctor', { ...testBed, other });
    assert.match(stdout, /rights of the agent +0 missing, 3 not checked\n/);
    assert.match(stdout, /cannot ask the server who may get secrets: .*Timeout/);
    assert.match(
      stdout,
      /^ {2}rights that --workload-identity needs\n {4}cannot see in which namespaces the agent may get serviceaccounts: it may not in all; rbac\.federationNamespaces must have those of its pods\n/m,
    );
    assert.match(stdout, /the agent may create serviceaccounts\/token: it may not in all/);
    assert.doesNotMatch(stdout, /agent_rights/);
  });

  it('requires no permission of the agent for features that are off, unknown, or of the old NMI', async () => {
    for (const agent of [
      createAgentPod('node-1', { args: ['--events=false'] }),
      createAgentPod('node-1', { args: ['--no-such-flag=1'] }),
      createAgentPod('node-1', { image: 'example/aad-pod-identity/nmi:v1.8.17' }),
    ]) {
      const { stdout } = await play('doctor -A', testBedOf({ pods: [agent] }, 'no'));
      assert.match(stdout, /agent_rights\n +It may not list pods in all namespaces/);
      assert.doesNotMatch(stdout, /It may not (?:create|patch)/);
    }
  });

  it('names what it may not read', async () => {
    const testBed = testBedOf();
    const forbidden = {
      [crds]: 'everywhere',
      nodes: 'everywhere',
      'validatingwebhookconfigurations.admissionregistration.k8s.io': 'everywhere',
    } as const;
    const other: Recorded['other'] = (program, args, input) =>
      args.includes('--all-namespaces')
        ? failed('Error from server (Forbidden): x')
        : testBed.other?.(program, args, input);
    const { stdout } = await play('doctor -n shop', { ...testBed, forbidden, other });
    for (const text of [
      'version of the definition',
      'nodes without an agent',
      'admission policies',
      'rights of the agent',
    ]) {
      assert.ok(stdout.includes(text), text);
    }
    const blind = await play('doctor --pre', {
      ...testBed,
      forbidden: { pods: 'everywhere' },
    });
    assert.match(stdout, /^custom resource definitions +not checked$/m);
    assert.match(blind.stdout, /^MIC of aad-pod-identity +not checked$/m);
    assert.match(blind.stdout, /agents and leftovers of aad-pod-identity/);
    const installed = await play('doctor', { ...testBed, forbidden: { pods: 'everywhere' } });
    assert.match(installed.stdout, /Not checked:[^]*agents and their rights/);
    assert.doesNotMatch(installed.stdout, /agent_missing/, 'that is not known');
  });

  it('finds a second release on a node, in another namespace too', async () => {
    const own = createAgentPod('node-1');
    const second = { ...own, metadata: { ...metadataOf(own), name: 'second', namespace: 'other' } };
    const twice = await play('doctor', testBedOf({ pods: [own, second] }));
    assert.match(twice.stdout, /^error +Node node-1: agents_on_node\n/m);
    // Who may write pods in a namespace can give them every label.
    const labelled = { ...second, spec: { nodeName: 'node-1' } };
    const once = await play('doctor', testBedOf({ pods: [own, labelled] }));
    assert.doesNotMatch(once.stdout, /agents_on_node/);
  });

  it('asks for the rights of no pod but a verified agent', async () => {
    const asked = (calls: readonly (readonly string[])[]) =>
      calls.filter((words) => words.some((word) => word.startsWith('--as=')));
    const testBed = testBedOf({ pods: [createAgentPod('node-1')] });
    const blind = await play('doctor', {
      ...testBed,
      forbidden: { [kinds.daemonSets]: 'everywhere' },
    });
    assert.deepEqual(asked(blind.calls), []);
    assert.match(blind.stdout, /^rights of the agent +not checked$/m);
    assert.match(blind.stdout, /nothing proves that the pod is an agent/);
  });

  it('does not take a question that failed for a yes', async () => {
    const testBed = testBedOf();
    const other: Recorded['other'] = (program, args, input) =>
      args[0] === 'auth'
        ? failed('error: You must be logged in to the server (Unauthorized)')
        : testBed.other?.(program, args, input);
    const { stdout } = await play('doctor', { ...testBed, other });
    assert.match(stdout, /your rights +not checked\n/);
    assert.match(stdout, /rights of the agent +not checked\n/);
    assert.match(stdout, /cannot ask the server who may list pods: .*Unauthorized/);
    const some: Recorded['other'] = (program, args, input) =>
      args[3] === 'pods' ? failed('Timeout') : testBed.other?.(program, args, input);
    const partial = await play('doctor', { ...testBed, other: some });
    assert.match(partial.stdout, /your rights +0 missing, 1 not checked\n/);
  });

  it('counts no node and no agent where it may not list nodes', async () => {
    const testBed = testBedOf();
    const blind = { ...testBed, forbidden: { nodes: 'everywhere' } } as const;
    assert.match((await play('doctor', blind)).stdout, /agents +1 ready of 1, nodes not checked\n/);
    const before = await play('doctor --pre --exit-code', blind);
    assert.match(before.stdout, /nodes +not checked\n/);
    assert.deepEqual([before.code, /nodes_missing/.test(before.stdout)], [0, false]);
  });

  it('knows no old server by a version that it cannot read', async () => {
    const { stdout } = await play('doctor --pre', testBedOf({}, 'yes', 'devel'));
    assert.doesNotMatch(stdout, /server_old/);
  });

  it('asks for the rights that identities need in a limited number of namespaces', async () => {
    const identities = Array.from({ length: 25 }, (_, at) =>
      createIdentity('orders', { type: 1 }, { namespace: `team-${at}` }),
    );
    const testBed = testBedOf({ [kinds.identities]: identities });
    const other: Recorded['other'] = (program, args, input) =>
      args.includes('secrets')
        ? { code: 1, stdout: 'no\n', stderr: '' }
        : testBed.other?.(program, args, input);
    const { stdout } = await play('doctor', { ...testBed, other });
    assert.match(stdout, /rights of the agent +20 missing\n/);
    assert.match(stdout, /25 namespaces have identities, and doctor asks for 20/);
    assert.match(stdout, /fix: Set rbac\.allowAccessToSecrets of the chart; .* must have team-0\./);
  });

  it('names how many identities lack a right, and takes as many namespaces as it asks for', async () => {
    const identities = Array.from({ length: 21 }, (_, at) =>
      createIdentity(`orders-${at}`, { type: 1 }, { namespace: `team-${Math.min(at, 19)}` }),
    );
    const testBed = testBedOf({ [kinds.identities]: identities });
    const other: Recorded['other'] = (program, args, input) =>
      args.includes('secrets') ? ok('no\n') : testBed.other?.(program, args, input);
    const { stdout } = await play('doctor', { ...testBed, other });
    assert.match(stdout, /in namespace team-0, which AzureIdentity team-0\/orders-0 needs\./);
    assert.match(stdout, /in namespace team-19, which AzureIdentity \S+ and 1 more needs\./);
    assert.doesNotMatch(stdout, /doctor asks for/);
  });

  it('finds identities of type 0 on nodes of Karpenter, before and after an installation', async () => {
    const labels = { 'karpenter.sh/nodepool': 'default' };
    const testBed = testBedOf({
      nodes: [{ metadata: { name: 'node-1' } }, { metadata: { name: 'aks-default-x7', labels } }],
      pods: [
        createAgentPod('node-1'),
        createAgentPod('aks-default-x7'),
        createPod('web', {
          labels: { aadpodidbinding: 'orders' },
          spec: { nodeName: 'aks-default-x7' },
        }),
      ],
      [kinds.identities]: [createIdentity('orders')],
      [kinds.bindings]: [createBinding('orders')],
    });
    for (const words of [['doctor'], ['doctor', '--pre']]) {
      const { code, stdout } = await play([...words, '--exit-code'], testBed);
      assert.equal(code, 1);
      assert.match(stdout, /^nodes of Karpenter +1$/m);
      assert.match(stdout, /warning AzureIdentity shop\/orders: type_0_on_karpenter\n/);
      assert.match(stdout, /bound pods run on nodes that Karpenter makes\.\n +- Pod shop\/web\n/);
    }
    const blind = { ...testBed, forbidden: { [kinds.bindings]: 'all-namespaces' } } as const;
    const { stdout } = await play('doctor', blind);
    assert.match(stdout, /nodes of Karpenter +not checked\n/);
    assert.match(stdout, /cannot list azureidentitybindings/);
    assert.doesNotMatch((await play('doctor', testBedOf())).stdout, /Karpenter/);
  });

  it('names engines of admission policies', async () => {
    const engines = {
      'validatingwebhookconfigurations.admissionregistration.k8s.io': [
        { metadata: { name: 'gatekeeper-validating' } },
      ],
    };
    const { code, stdout } = await play('doctor --exit-code', testBedOf(engines));
    assert.equal(code, 0);
    assert.match(stdout, /^admission policies +gatekeeper-validating$/m);
    assert.match(stdout, /policy_engine/);
  });

  it('stops if the server is unreachable', async () => {
    const { code } = await play('doctor', {
      other: () => failed('Unable to connect to the server: dial tcp: no such host'),
    });
    assert.equal(code, 69);
  });
});

describe('the nodes', () => {
  it('are not checked without the right to list them', async () => {
    const pods = [createAgentPod('node-1')];
    const forbidden = { nodes: 'everywhere' } as const;
    const other = () => ok('{"serverVersion":{"gitVersion":"v1.34.2"}}');
    const { stdout } = await play('doctor', { objects: { pods }, forbidden, other });
    assert.match(stdout, /Not checked:\n[^]*nodes without an agent/);
  });
});

const federated = { type: 3, clientID: clientA, tenantID: tenant };

const assigned = { type: 0, clientID: clientA, resourceID: ordersId };

const account = '--as=system:serviceaccount:kube-system:default';

const no = { ...ok('no\n'), code: 1 };

const mayNotImpersonate = failed(
  'Error from server (Forbidden): serviceaccounts "default" is forbidden: User "dev" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "kube-system"\n',
);

/** @param answers of the API server: as itself, and as its node. */
function bedOf(spec: object, answers: readonly ProgramRun[], changes: Recorded['objects'] = {}) {
  const asked: (readonly string[])[] = [];
  const recorded: Recorded = {
    ...boundTestBed({
      pods: [createPod('web', { labels: { aadpodidbinding: 'orders' } }), createAgentPod('node-1')],
      [kinds.identities]: [createIdentity('orders', spec)],
      ...changes,
    }),
    other: (_program, args) => {
      if (args[0] === 'auth') return answers[asked.push(args) - 1];
      return ok(args[0] === 'patch' ? 'patched\n' : '{"issuer":"https://oidc.example/"}');
    },
  };
  return { recorded, asked };
}

const explain = ['explain', 'pod', 'web', '-v'];

const toFederation = ['migrate', 'to-federation', '--tenant-id', tenant, '--apply'];

describe('the right of the agents to create tokens of service accounts', () => {
  it('is asked as doctor asks, for the namespace of the identity', async () => {
    const { recorded, asked } = bedOf(federated, [no, ok('yes\n')]);
    const { code, stdout } = await play(explain, recorded);
    assert.equal(code, 0);
    assert.doesNotMatch(stdout, /rights of the agents/);
    const words = ['serviceaccounts', '--subresource=token', '--namespace=shop', account];
    assert.deepEqual(asked, [
      ['auth', 'can-i', 'create', ...words, '--request-timeout=15s'],
      [
        ...['auth', 'can-i', 'impersonate-on:associated-node:create', ...words],
        '--request-timeout=15s',
      ],
    ]);
  });

  it('refuses the pods of a federated identity, if the agents lack it', async () => {
    const { code, stdout } = await play(explain, bedOf(federated, [no, no]).recorded);
    assert.equal(code, 1);
    assert.match(stdout, /^pod shop\/web: REFUSED, gets no token: agent_rights\n/);
    assert.match(
      stdout,
      /error {3}ServiceAccount kube-system\/default: agent_rights\n +It may not create serviceaccounts\/token in namespace shop, which AzureIdentity shop\/orders needs\.\n +fix: Set rbac\.allowFederation of the chart/,
    );
  });

  it('is not checked where the user may not ask, or nothing proves who the agents are', async () => {
    const { code, stdout } = await play(explain, bedOf(federated, [mayNotImpersonate]).recorded);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /\n {2}rights of the agents\n {4}cannot ask for the rights of the agents, as kubectl nmi doctor does: no right; RBAC rule: .*"impersonate"/,
    );
    const { recorded, asked } = bedOf(federated, []);
    const unproven = await play(explain, {
      ...recorded,
      forbidden: { [kinds.daemonSets]: 'everywhere' },
    });
    assert.match(unproven.stdout, /cannot ask for the rights of the agents.*: nothing proves that/);
    assert.deepEqual(asked, []);
  });

  it('does not matter for other types, and for what objects refuse', async () => {
    for (const { recorded, asked } of [
      bedOf(assigned, []),
      bedOf(federated, [], { [kinds.bindings]: [] }),
    ]) {
      const { stdout } = await play(explain, recorded);
      assert.doesNotMatch(stdout, /rights of the agents/);
      assert.deepEqual(asked, []);
    }
  });

  it('is what migrate to-federation needs before it changes a serving identity', async () => {
    const patched = (calls: readonly (readonly string[])[]) =>
      calls.some(([, verb]) => verb === 'patch');
    const lacking = await play(toFederation, bedOf(assigned, [no, no]).recorded);
    assert.deepEqual([lacking.code, patched(lacking.calls)], [1, false]);
    assert.match(
      lacking.stderr,
      /^error: the agents lack a right, and pods would be refused: It may not create serviceaccounts\/token in namespace shop.*\nSet rbac\.allowFederation/,
    );
    const shown = await play(toFederation.slice(0, -1), bedOf(assigned, [no, no]).recorded);
    assert.equal(shown.code, 0);
    assert.match(shown.stdout, /They lack it, so --apply refuses\./);
    const given = await play(toFederation, bedOf(assigned, [ok('yes\n')]).recorded);
    assert.deepEqual([given.code, patched(given.calls)], [0, true]);
    assert.doesNotMatch(given.stdout, /The agents need the right/);
    const unknown = await play(toFederation, bedOf(assigned, [mayNotImpersonate]).recorded);
    assert.deepEqual([unknown.code, patched(unknown.calls)], [0, true]);
    assert.match(unknown.stdout, /Whether they have it was not checked: no right; RBAC rule/);
  });
});
