import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ProgramRun } from '../../../../src/kubectl/base/io.ts';
import { metadataOf, type RawObject } from '../../../../src/kubectl/base/object.ts';
import {
  boundTestBed,
  clientA,
  createAgentPod,
  createIdentity,
  createPod,
  failed,
  kinds,
  ok,
  ordersId,
  play,
  serverAnswers,
  tenant,
  type Recorded,
} from '../recorded-kubectl.ts';

const crds = 'customresourcedefinitions.apiextensions.k8s.io';
const no = { ...ok('no\n'), code: 1 };

function definition(plural: string, field: string): RawObject {
  const spec = { properties: { [field]: {} } };
  return {
    metadata: { name: `${plural}.aadpodidentity.k8s.io` },
    spec: { versions: [{ schema: { openAPIV3Schema: { properties: { spec } } } }] },
  };
}

const definitions = [
  definition('azureidentities', 'notBefore'),
  definition('azureidentitybindings', 'selector'),
  definition('azurepodidentityexceptions', 'podLabels'),
  definition('azureidentitygrants', 'namespaces'),
];

/** @param answer of some calls; all else is answered with yes. */
function bedOf(
  changes: Recorded['objects'] = {},
  answer: (right: string, args: readonly string[]) => ProgramRun | undefined = () => undefined,
): Recorded {
  return {
    objects: {
      nodes: [{ metadata: { name: 'node-1' }, status: { nodeInfo: { kernelVersion: '6.8.0' } } }],
      pods: agentWith('--identity-owners=enforce'),
      [crds]: definitions,
      ...changes,
    },
    other: (args, input) => {
      const right = args[0] === 'auth' ? `${args[2] ?? ''} ${args[3] ?? ''}` : '';
      return answer(right, args) ?? serverAnswers(args, input);
    },
  };
}

const deny = (right: string) => (right === '' ? undefined : no);
const agentWith = (...args: readonly string[]) => [createAgentPod('node-1', { args })];
const doctor = async (recorded: Recorded, words = 'doctor') => (await play(words, recorded)).stdout;

interface PartFields {
  readonly namespace?: string;
  /** Of a pod that is not, a container crashes. */
  readonly isReady?: boolean;
  readonly spec?: object;
}

/** A pod of the chart beside the agents. */
function createPart(component: string, fields: PartFields = {}): RawObject {
  const { namespace = 'kube-system', isReady = true, spec = {} } = fields;
  const waiting = { reason: 'CrashLoopBackOff', message: 'back-off 5m0s restarting' };
  return createPod(`nmi-${component}-${isReady}`, {
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

function createGuard({ step = 'guard-boot', ...fields }: PartFields & { readonly step?: string }) {
  const args = ['redirect', step, '--boot-guard-folder=/host/systemd'];
  const initContainers = [{ name: 'boot-guard', args }];
  const containers = [{ name: 'nmi', command: ['sleep', 'infinity'] }];
  return createPart('boot-guard', { ...fields, spec: { initContainers, containers } });
}

describe('kubectl nmi doctor', () => {
  it('finds nothing in a healthy cluster', async () => {
    const { code, stdout } = await play('doctor --fail-on=warning', bedOf());
    assert.equal(code, 0);
    for (const said of [
      /^MARK +CHECK +RESULT\nok +API server +v1\.34\.2\nok +custom resource definitions +4 of 4\n/,
      /^ok +agents +1 ready of 1, on 1 nodes\nok +rights of the agent +complete$/m,
      /^ok +MIC of aad-pod-identity +not there$/m,
      /^(?![^]*(?:fix:|Karpenter|Not checked))/,
    ]) {
      assert.match(stdout, said);
    }
  });

  it('reports the state of the agents, and of what the chart has beside them', async () => {
    const old = 'example/aad-pod-identity/nmi:v1.8.17';
    const mixed = [
      createAgentPod('node-1', { isReady: false }),
      createAgentPod('node-2', { image: old }),
      createAgentPod('node-3'),
    ];
    const usual = (...parts: readonly RawObject[]) => [...agentWith(), ...parts];
    const noGuard = /^ok +boot guard +not by the chart: see .*docs\/install\.md$/m;
    const noWriter =
      /^ok +status conditions +not written: the Deployment nmi-conditions has no pod$/m;
    const crashing = createGuard({ isReady: false });
    const far = { namespace: 'shop' };
    const enforce = ['--identity-owners=enforce'];
    const owners = (...all: readonly (readonly string[])[]) =>
      all.map((args, at) => createAgentPod(`node-${at}`, { args }));
    for (const [pods, said] of [
      [mixed, /agents +1 ready of 3,/],
      [
        mixed,
        /agent_not_ready\n[^]*^ +fix: See why: kubectl -n kube-system logs nmi-node-1 -c nmi$/m,
      ],
      [mixed, /old_nmi\n[^]*^ +fix: /m],
      [[], /Node node-1: agent_missing\n[^]*^ +fix: Look at the DaemonSet/m],
      [usual(), noGuard],
      [usual(createGuard({})), /^ok +boot guard +1 ready of 1$/m],
      [
        usual(crashing, createGuard({})),
        /^warning +boot guard +1 ready of 2\n {2}warning Pod kube-system\/nmi-boot-guard-false: part_not_ready\n +It is not ready: CrashLoopBackOff: back-off 5m0s restarting\n +fix: /m,
      ],
      [usual(createGuard({ step: 'unguard-boot' })), noGuard],
      [usual(createGuard(far)), noGuard],
      [usual(), noWriter],
      [usual(createPart('conditions')), /^ok +status conditions +1 ready of 1$/m],
      [
        usual(createPart('conditions', { isReady: false })),
        /^warning +status conditions +0 ready of 1\n.*: part_not_ready\n/m,
      ],
      [usual(createPart('conditions', far)), noWriter],
      [owners(enforce, enforce), /^ok +identity owners +enforced$/m],
      [
        owners(['-v=1']),
        /^warning +identity owners +not enforced\n.*: owners_not_enforced\n +Their mode is warn\.\n +fix: Apply what kubectl nmi grants prints, /m,
      ],
      [
        owners(enforce, ['--identity-owners=off']),
        /owners_not_enforced\n +Their mode is off on some nodes\./,
      ],
      [
        owners(enforce, ['--of-another-version']),
        /^not checked +identity owners +-$[^]*cannot know the mode of the agents: this plugin/m,
      ],
      [[], /^(?![^]*(?:identity owners|rights of the agent))/],
    ] as const) {
      assert.match(await doctor(bedOf({ pods })), said);
    }
  });

  it('checks definitions, nodes and the old system before an installation', async () => {
    const healthy = await play('doctor --pre --fail-on=warning', bedOf({ pods: [] }));
    assert.equal(healthy.code, 0);
    assert.doesNotMatch(healthy.stdout, /agents|rights/);
    const kernelVersion = '5.4.0';
    const node = { metadata: { name: 'node-1' }, status: { nodeInfo: { kernelVersion } } };
    const mic = createPod('mic', { spec: { containers: [{ image: 'x/mic:v1' }] } });
    const old = [definition('azureidentities', 'type'), definition('azureidentitybindings', '')];
    const bed = bedOf({ nodes: [node], pods: [mic], [crds]: old });
    const { code, stdout } = await play('doctor --pre', bed);
    assert.equal(code, 1);
    assert.equal((await play('doctor --pre --fail-on=never', bed)).code, 0);
    for (const said of [
      /azureidentities\.aadpodidentity\.k8s\.io: crd_old\n +It lacks the field spec\.notBefore\./,
      /crd_missing\n.*\n +- CustomResourceDefinition azurepodidentityexceptions\S*: It is not in/,
      /^error +custom resource definitions +2 of 4$/m,
      /^warning +MIC of aad-pod-identity +runs$/m,
      /old_mic/,
      /Node node-1: kernel_old/,
      /^(?![^]*agent_missing)/,
    ]) {
      assert.match(stdout, said);
    }
    const empty = await doctor(bedOf({ nodes: [], pods: [] }), 'doctor --pre');
    assert.match(empty, /Cluster: nodes_missing/);
  });

  it('finds a second release on a node, in another namespace too', async () => {
    const own = createAgentPod('node-1');
    const second = { ...own, metadata: { ...metadataOf(own), name: 'second', namespace: 'other' } };
    const twice = await doctor(bedOf({ pods: [own, second] }));
    assert.match(twice, /^ {2}error +Node node-1: agents_on_node\n/m);
    // Who may write pods in a namespace can give them every label.
    const labelled = { ...second, spec: { nodeName: 'node-1' } };
    assert.doesNotMatch(await doctor(bedOf({ pods: [own, labelled] })), /agents_on_node/);
  });

  it('tells a cause of many objects once, and in JSON of each', async () => {
    const nodes = Array.from({ length: 15 }, (_, at) => ({ metadata: { name: `node-${at}` } }));
    const pods = [0, 1, 2].map((at) => createAgentPod(`node-${at}`, { isReady: false }));
    const { stdout } = await play('doctor', bedOf({ nodes, pods }));
    assert.equal([...stdout.matchAll(/^ {2}error +Node \S+: agent_missing$/gm)].length, 1);
    assert.match(stdout, /- Node node-8: No pod of the agent is on the node\.\n +- 1 more: see/);
    assert.equal([...stdout.matchAll(/: agent_not_ready$/gm)].length, 1);
    assert.match(stdout, /- Pod kube-system\/nmi-node-2: The agent of node node-2 is not ready/);
    assert.equal([...stdout.matchAll(/ fix: See why: .* logs nmi-node-0 -c nmi$/gm)].length, 1);
    const { checks, findings, unread } = JSON.parse(
      await doctor(bedOf({ nodes, pods }), 'doctor -o json'),
    ) as Record<string, readonly Record<string, string>[]>;
    assert.equal(findings?.filter(({ code }) => code === 'agent_missing').length, 12);
    const [agents] = checks?.filter(({ check }) => check === 'agents') ?? [];
    assert.deepEqual(agents, {
      check: 'agents',
      mark: 'error',
      result: '0 ready of 3, on 15 nodes',
    });
    assert.deepEqual(unread, []);
  });

  it('waits until no error is left, or as long as it may', async () => {
    const pods: RawObject[] = [createAgentPod('node-1', { isReady: false })];
    let pauses = 0;
    const becomesReady = (ms: number) => {
      assert.equal(ms, 5_000);
      pauses += 1;
      if (pauses === 3) pods.splice(0, 1, ...agentWith('--identity-owners=enforce'));
    };
    const bed = { ...bedOf({ pods }), onSleep: becomesReady };
    const waited = await play('doctor --wait --fail-on=warning', bed);
    assert.deepEqual([waited.code, pauses], [0, 3]);
    assert.equal(waited.stderr, 'waiting for agents: 0 ready of 1, on 1 nodes\n');
    assert.match(waited.stdout, /^MARK[^]*^ok +agents +1 ready of 1/m);
    for (const [flag, sleeps, code] of [
      ['--wait=12', 3, 1],
      ['--wait=1m --fail-on=never', 12, 0],
      ['--wait', 60, 1],
      ['', 0, 1],
    ] as const) {
      let slept = 0;
      const forged = createPod('thief', { labels: { component: 'nmi' } });
      const never = { ...bedOf({ pods: [forged] }), onSleep: () => (slept += 1) };
      const { code: ended, stdout, stderr } = await play(`doctor ${flag}`.trim(), never);
      assert.deepEqual([ended, slept], [code, sleeps], flag);
      assert.equal([...stderr.matchAll(/^warning: ignored pods/gm)].length, 1);
      assert.match(stdout, /agent_missing/);
    }
    const { code, stderr } = await play('doctor --wait=soon', bedOf());
    assert.equal(code, 2);
    assert.match(stderr, /^error: --wait is "soon", which is no duration\n/);
  });

  it('stops if the server is unreachable', async () => {
    const other = () => failed('Unable to connect to the server: dial tcp: no such host');
    assert.equal((await play('doctor', { other })).code, 69);
  });
});

describe('the rights that doctor checks', () => {
  const typed = (...types: readonly number[]) => ({
    [kinds.identities]: types.map((type, at) => createIdentity(`i${at}`, { type })),
  });
  const yesIf = (asked: RegExp, allowed: RegExp) => (right: string) =>
    asked.test(right) ? (allowed.test(right) ? ok('yes\n') : no) : undefined;

  it('are those of the agent, and of what its options and identities need', async () => {
    const taint = { pods: agentWith('--startup-taint=example.com/starting') };
    const ofNodes = (allowed: RegExp) => bedOf(taint, yesIf(/ nodes$/, allowed));
    const accounts = { pods: agentWith('--workload-identity'), ...typed(1) };
    const ofAccounts = (right: string) =>
      right.endsWith(' secrets')
        ? failed('Timeout')
        : right.endsWith(' serviceaccounts')
          ? no
          : undefined;
    const quiet = [agentWith('--events=false'), agentWith('--no-such-flag=1')];
    const asOwn = /^(?:impersonate-on:associated-node:)?\w+ (?:pods|serviceaccounts)$/;
    const wide = /agent_rights_wide\n +It may create serviceaccounts\/token in all namespaces/;
    for (const [recorded, ...said] of [
      [
        bedOf({}, deny),
        /agent_rights\n +It may not list pods in all namespaces/,
        /It may not create events\.events\.k8s\.io in all namespaces/,
        /^(?![^]*It may not patch)/,
      ],
      // For features that are off or unknown.
      ...quiet.map(
        (pods) =>
          [
            bedOf({ pods }, deny),
            /agent_rights\n +It may not list pods in all namespaces/,
            /^(?![^]*It may not (?:create|patch))/,
          ] as const,
      ),
      // What an agent may do as its own node is a right, and one of its own is a wide one.
      [bedOf(typed(3), yesIf(asOwn, /^impersonate/)), /rights of the agent +complete\n/],
      [bedOf(typed(3)), /rights of the agent +complete\n/, wide],
      [ofNodes(/^(?:impersonate-on:associated-node:get|patch)/), /rights of the agent +complete\n/],
      [ofNodes(/get/), /rights of the agent +1 missing\n/, /It may not patch nodes/],
      [ofNodes(/^patch/), /agent_rights\n +It may not get nodes/],
      [bedOf(accounts), /rights of the agent +complete\n/, /^(?![^]*Not checked)/],
      [
        bedOf(accounts, ofAccounts),
        /rights of the agent +0 missing, 3 not checked\n/,
        /cannot ask the server who may get secrets: .*Timeout/,
        /^ {2}rights of the agent\n {4}cannot see in which namespaces the agent may get serviceaccounts: it may not in all; rbac\.federationNamespaces must have those of its pods\n/m,
        /the agent may create serviceaccounts\/token: it may not in all/,
        /^(?![^]*agent_rights)/,
      ],
      // A question that failed is not taken for a yes.
      [
        bedOf({}, (right) => (right === '' ? undefined : failed('error: Unauthorized'))),
        /^not checked +rights of the agent +0 missing, \d+ not checked$/m,
        /cannot ask the server who may list pods: .*Unauthorized/,
      ],
    ] as readonly (readonly [Recorded, ...RegExp[]])[]) {
      const stdout = await doctor(recorded, 'doctor');
      for (const each of said) assert.match(stdout, each);
    }
    const { calls, stdout } = await play('doctor', bedOf(typed(3), yesIf(asOwn, /^impersonate/)));
    assert.doesNotMatch(stdout, wide);
    const narrow = calls.filter((call) => call.includes('--namespace=shop'));
    assert.deepEqual(narrow, [], 'a right in all namespaces is one in each');
  });

  it('are asked in twenty namespaces at most, and name how many identities lack them', async () => {
    const inTeams = (count: number, teamOf: (at: number) => number) => {
      const identities = Array.from({ length: count }, (_, at) =>
        createIdentity(`orders-${at}`, { type: 1 }, { namespace: `team-${teamOf(at)}` }),
      );
      return bedOf({ [kinds.identities]: identities }, (right) =>
        right.endsWith(' secrets') ? no : undefined,
      );
    };
    const many = await doctor(inTeams(25, (at) => at));
    assert.match(many, /rights of the agent +20 missing\n/);
    assert.match(many, /25 namespaces have identities, and doctor asks for 20/);
    assert.match(
      many,
      /fix: Set rbac\.allowAccessToSecrets of the chart; .* must have the namespace\./,
    );
    assert.match(
      many,
      /- It may not get secrets in namespace team-9, .*\n +- .*\n +- 9 more: see -o json\n/,
    );
    const shares = inTeams(21, (at) => Math.min(at, 19));
    const shared = await doctor(shares);
    assert.match(shared, /in namespace team-0, which AzureIdentity team-0\/orders-0 needs\./);
    assert.doesNotMatch(shared, /doctor asks for/);
    const { findings } = JSON.parse(await doctor(shares, 'doctor -o json')) as {
      readonly findings: readonly { readonly text: string }[];
    };
    assert.match(findings.map(({ text }) => text).join('\n'), /team-19, .* and 1 more needs\./);
  });

  it('are asked for no pod but a verified agent', async () => {
    const forbidden = { [kinds.daemonSets]: 'everywhere' } as const;
    const { calls, stdout } = await play('doctor', { ...bedOf(), forbidden });
    assert.ok(!calls.flat().some((word) => word.startsWith('--as=')));
    assert.match(
      stdout,
      /^not checked +rights of the agent +-$[^]*nothing proves that the pod is an/m,
    );
  });

  it('of the user that are missing leave a check open, and nothing is reported as missing', async () => {
    const hide = (...all: readonly string[]) =>
      Object.fromEntries(all.map((kind) => [kind, 'everywhere'] as const));
    const blind = bedOf({}, (_right, args) =>
      args.includes('--all-namespaces') ? failed('Error from server (Forbidden): x') : undefined,
    );
    for (const [words, recorded, hidden, ...said] of [
      [
        'doctor -n shop',
        blind,
        [crds, 'nodes'],
        /^not checked +custom resource definitions +-$/m,
        /Not checked:[^]*^ {2}agents\n {4}cannot list nodes: no right/m,
        /Not checked:[^]*rights of the agent/,
      ],
      [
        'doctor --pre',
        bedOf(),
        ['pods'],
        /^not checked +MIC of aad-pod-identity +-$/m,
        /MIC of aad-pod-identity\n {4}cannot list pods: no right/,
      ],
      [
        'doctor',
        bedOf(),
        ['pods'],
        /^(?![^]*agent_missing)[^]*\n {2}agents, rights of the agent, identity owners\n {4}cannot list pods of the agents/,
      ],
      ['doctor', bedOf(), ['nodes'], /agents +1 ready of 1, nodes not checked\n/],
      ['doctor --pre', bedOf(), ['nodes'], /^(?![^]*nodes_missing)[^]*nodes +-\n/],
    ] as readonly (readonly [string, Recorded, readonly string[], ...RegExp[]])[]) {
      const { code, stdout } = await play(words, { ...recorded, forbidden: hide(...hidden) });
      assert.equal(code, 0);
      for (const each of said) assert.match(stdout, each);
    }
  });
});

describe('the right of the agents to create tokens of service accounts', () => {
  const federated = { type: 3, clientID: clientA, tenantID: tenant };
  const assigned = { type: 0, clientID: clientA, resourceID: ordersId };
  const yes = ok('yes\n');
  const mayNotAsk = failed(
    'Error from server (Forbidden): serviceaccounts "default" is forbidden: User "dev" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "kube-system"\n',
  );
  /** @param answers of the API server: as itself, and as its node. */
  const playWith = async (
    words: string,
    spec: object,
    answers: readonly ProgramRun[],
    changes: Recorded = {},
  ) => {
    const asked: (readonly string[])[] = [];
    const identities = { [kinds.identities]: [createIdentity('orders', spec)] };
    const played = await play(words, {
      ...boundTestBed({ ...identities, ...changes.objects }),
      forbidden: changes.forbidden ?? {},
      other: (args, input) =>
        args[0] === 'auth' ? answers[asked.push(args) - 1] : serverAnswers(args, input),
    });
    return { ...played, asked };
  };
  const explain = 'explain pod web -v';

  it('is asked as doctor asks, for the namespace of the identity', async () => {
    const { code, stdout, asked } = await playWith(explain, federated, [no, yes]);
    assert.equal(code, 0);
    assert.doesNotMatch(stdout, /rights of the agents/);
    const account = '--as=system:serviceaccount:kube-system:default';
    const where = `serviceaccounts --subresource=token --namespace=shop ${account} --request-timeout=15s`;
    assert.deepEqual(
      asked.map((args) => args.join(' ')),
      ['create', 'impersonate-on:associated-node:create'].map(
        (verb) => `auth can-i ${verb} ${where}`,
      ),
    );
  });

  it('decides what explain reports of the pods of federated identities, and of no others', async () => {
    const forbidden = { [kinds.daemonSets]: 'everywhere' } as const;
    const unbound = { objects: { [kinds.bindings]: [] } };
    const silent = /^(?![^]*rights of the agents)/;
    for (const [spec, answers, changes, expected, said] of [
      [
        federated,
        [no, no],
        {},
        1,
        /^pod shop\/web: REFUSED, gets no token: agent_rights\n[^]*error {3}ServiceAccount kube-system\/default: agent_rights\n +It may not create serviceaccounts\/token in namespace shop, which AzureIdentity shop\/orders needs\.\n +fix: Set rbac\.allowFederation of the chart/,
      ],
      [
        federated,
        [mayNotAsk],
        {},
        0,
        /\n {2}rights of the agents\n {4}cannot ask for the rights of the agents, as kubectl nmi doctor does: no right; RBAC rule: .*"impersonate"/,
      ],
      [
        federated,
        [],
        { forbidden },
        0,
        /cannot ask for the rights of the agents.*: nothing proves that/,
      ],
      [assigned, [], {}, 0, silent],
      [federated, [], unbound, 1, silent],
    ] as const) {
      const { code, stdout, asked } = await playWith(explain, spec, answers, changes);
      assert.deepEqual([code, asked.length], [expected, answers.length]);
      assert.match(stdout, said);
    }
  });

  it('is what migrate to-federation needs before it changes a serving identity', async () => {
    const words = `migrate to-federation --tenant-id ${tenant}`;
    const lacks =
      /^error: the agents lack a right, and pods would be refused: It may not create serviceaccounts\/token in namespace shop.*\nSet rbac\.allowFederation/;
    for (const [flags, answers, expected, isPatched, said] of [
      [' --apply', [no, no], 1, false, lacks],
      ['', [no, no], 0, false, /They lack it, so --apply refuses\./],
      [' --apply', [yes], 0, true, /^(?![^]*The agents need the right)/],
      [
        ' --apply',
        [mayNotAsk],
        0,
        true,
        /Whether they have it was not checked: no right; RBAC rule/,
      ],
    ] as const) {
      const { code, stdout, stderr, calls } = await playWith(words + flags, assigned, answers);
      const patched = calls.some(([, verb]) => verb === 'patch');
      assert.deepEqual([code, patched], [expected, isPatched]);
      assert.match(stderr + stdout, said);
    }
  });
});
