import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parse, parseAllDocuments } from 'yaml';
import { twoFreePorts } from '../../../../lab/fabric/free-ports.ts';
import { runCli } from '../../../../src/cli/cli.ts';
import type { ProgramRun } from '../../../../src/kubectl/base/io.ts';
import { unverified } from '../../../../src/kubectl/cluster/agents.ts';
import {
  type Recorded,
  boundTestBed,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createPod,
  failed,
  kinds,
  ok,
  play,
} from '../../../kubectl/support/recorded-kubectl.ts';
import {
  type LoopbackAgent,
  bindPodToA,
  identityA,
  openLoopbackAgent,
} from '../../../support/loopback-agent.ts';

const token = ['eyJhbGciOiJSUzI1NiJ9', 'eyJzdWIiOiJ4In0', 'c2lnbmF0dXJl'].join('.');

const dumpBed = {
  ...boundTestBed({
    pods: [createAgentPod('node-1', { args: ['--strict-identity', token] })],
    'customresourcedefinitions.apiextensions.k8s.io': [
      { metadata: { name: 'azureidentities.aadpodidentity.k8s.io', annotations: { a: token } } },
      { metadata: { name: 'certificates.cert-manager.io' } },
    ],
    nodes: [{ metadata: { name: 'node-1' } }],
  }),
  other: (_program: string, args: readonly string[]) => {
    if (args.includes('explain'))
      return ok(`{"agent":{"flags":{"redirect":"ebpf"}},"a":"${token}"}\n`);
    return args.includes('--previous')
      ? ok(`saw ${token} before it ended\n`)
      : ok(`nmi_ready{condition="x"} 1\nsaw ${token}\n`);
  },
};

describe('kubectl nmi sysdump', () => {
  it('has no tokens and no unrelated objects', async () => {
    const { code, stdout: text } = await play('sysdump', dumpBed);
    assert.equal(code, 0);
    assert.doesNotMatch(text, /eyJ|cert-manager/);
    const documents = parseAllDocuments(text).map((each) => each.toJS() as Record<string, unknown>);
    assert.equal(documents.length, 9);
    assert.match(JSON.stringify(documents), /saw \(removed\)\\n/);
    assert.match(JSON.stringify(documents), /saw \(removed\) before it ended/);
    assert.match(JSON.stringify(documents), /"annotations":\{"a":"\(removed\)"\}/);
    assert.match(JSON.stringify(documents), /"--strict-identity","\(removed\)"/);
    assert.match(JSON.stringify(documents), /strict-identity/);
    for (const [resource, name] of [
      ['nodes', 'node-1'],
      [kinds.identities, 'orders'],
    ] as const) {
      const dumped = documents.find((each) => each['resource'] === resource);
      assert.match(JSON.stringify(dumped?.['objects']), new RegExp(`"name":"${name}"`));
    }
    const [agent] = documents.filter((each) => 'agent' in each);
    assert.deepEqual(agent?.['explained'], {
      agent: { flags: { redirect: 'ebpf' } },
      a: '(removed)',
    });
  });

  it('names what it could not read', async () => {
    const { code, stdout } = await play('sysdump', {
      ...dumpBed,
      forbidden: { nodes: 'everywhere' },
    });
    assert.equal(code, 0);
    assert.match(stdout, /cannot list|list nodes/);
  });
});

describe('a dump without a server', () => {
  it('is none, and the exit code says so', async () => {
    const stderr = 'Unable to connect to the server: dial tcp: no such host';
    const { code, stdout, stderr: said } = await play('sysdump', { unreachable: stderr });
    assert.deepEqual([code, stdout], [69, '']);
    assert.match(said, /^error: cannot list pods: Unable to connect/);
  });
});

describe('the dump of many nodes', () => {
  const nodes = Array.from({ length: 501 }, (_, at) => ({ metadata: { name: `node-${at}` } }));
  const agents = nodes.slice(0, 21).map(({ metadata: { name } }) => createAgentPod(name));

  it('has a limited number of objects and of agents, and names how many more there are', async () => {
    const recorded = { objects: { nodes, pods: agents }, other: () => ok('') };
    const { stdout } = await play('sysdump', recorded);
    const documents = parseAllDocuments(stdout).map((each) => each.toJS() as Dumped);
    const of = (resource: string) => documents.find((each) => each.resource === resource);
    assert.deepEqual([of('nodes')?.omitted, of('nodes')?.objects?.length], [1, 500]);
    assert.deepEqual([of('daemonsets.apps')?.omitted, of('pods')?.objects?.length], [0, 21]);
    const asked = documents.flatMap(({ agent }) => agent ?? []);
    assert.equal(asked.length, 20);
    assert.equal(asked[0], 'kube-system/nmi-node-0');
  });
});

interface Dumped {
  readonly resource?: string;
  readonly omitted?: number;
  readonly objects?: readonly object[];
  readonly agent?: string;
  readonly log?: string;
  readonly metrics?: readonly string[];
  readonly explained?: object;
  readonly unread?: readonly { readonly what: string; readonly why: string }[];
}

describe('the dump of an agent', () => {
  const pods = [createAgentPod('node-1')];
  const dump = async (recorded: Recorded) => {
    const { stdout, calls } = await play('sysdump', { objects: { pods }, ...recorded });
    const documents = parseAllDocuments(stdout).map((each) => each.toJS() as Dumped);
    const agent = documents.find((each) => 'agent' in each);
    return { agent, unread: documents[0]?.unread ?? [], calls };
  };

  it('has the samples of its metrics, and why there is no log', async () => {
    const { agent } = await dump({
      other: (_program, [word]) =>
        word === 'get' ? ok('# HELP a b\n\na 1\nb 2\n') : failed('container not found'),
    });
    assert.deepEqual(agent?.metrics, ['a 1', 'b 2']);
    assert.equal(agent.log, 'container not found');
  });

  it('has what it explains, unless it does not answer or only looks like an agent', async () => {
    const other: Recorded['other'] = (_program, [word]) =>
      word === 'exec' ? failed('error: timed out') : ok('');
    const silent = await dump({ other });
    assert.deepEqual(silent.agent?.explained, {});
    assert.deepEqual(
      silent.unread.map(({ what }) => what),
      ['ask the agent kube-system/nmi-node-1'],
    );
    const foreign = await dump({
      forbidden: { [kinds.daemonSets]: 'everywhere' },
      other: () => ok('{"a":1}'),
    });
    assert.deepEqual(foreign.agent?.explained, {});
    assert.ok(foreign.unread.some(({ why }) => why === unverified));
    assert.ok(!foreign.calls.some((call) => call.includes('exec')));
  });
});

describe('the metrics page of an agent', () => {
  const pods = [createAgentPod('node-1')];

  it('is read through the proxy of the API server', async () => {
    const { stdout, calls } = await play('sysdump', {
      objects: { pods },
      other: (_program, args) => ok(args[0] === 'get' ? 'nmi_ready{condition="x"} 1\n' : ''),
    });
    assert.match(stdout, /nmi_ready\{condition="x"\} 1/);
    const read = calls.find((words) => words.some((word) => word.includes('proxy')));
    assert.deepEqual(read?.slice(0, 3), [
      'kubectl',
      'get',
      '--raw=/api/v1/namespaces/kube-system/pods/nmi-node-1:9090/proxy/metrics',
    ]);
  });

  it('is among what could not be read, with the right that would show it', async () => {
    const stderr =
      'Error from server (Forbidden): pods "x" is forbidden: User "dev" cannot get resource "pods/proxy" in API group "" in the namespace "kube-system"';
    const { stdout } = await play('sysdump', { objects: { pods }, other: () => failed(stderr) });
    assert.match(stdout, /what: read the metrics of kube-system\/nmi-node-1\n +why: .*pods\/proxy/);
  });
});

const name = `nmi-test-${Date.parse('2026-11-27T06:00:00Z').toString(36)}`;

const granted =
  'successfully made GET on instance metadata\nsuccessfully acquired a token using the MSI, msiEndpoint(http://169.254.169.254)\n';

const refused =
  'failed to acquire a token using the MSI, error: status 400 invalid_request Identity not found\n';

function testBedOf(log: string, phase = 'Succeeded', changes = {}): Recorded {
  const pods = [
    createPod('web', {
      labels: { aadpodidbinding: 'orders' },
      spec: { serviceAccountName: 'robot' },
    }),
    createPod(name, { status: { phase } }),
    createAgentPod('node-1'),
  ];
  return {
    ...boundTestBed({ pods, ...changes }),
    other: (_program, args) => ok(args[0] === 'logs' ? log : ''),
  };
}

interface MadePod {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
  readonly spec: {
    readonly serviceAccountName: string;
    readonly nodeName?: string;
    readonly automountServiceAccountToken: boolean;
    readonly securityContext: object;
    readonly containers: readonly {
      readonly image: string;
      readonly args: readonly string[];
      readonly securityContext: object;
    }[];
  };
}

describe('kubectl nmi test', () => {
  it('sends the pod’s request, and removes its own pod', async () => {
    const { code, stdout, calls, inputs } = await play('test --pod web', testBedOf(granted));
    assert.equal(code, 0);
    assert.match(stdout, /^A token came\.\n {2}successfully acquired/);
    assert.doesNotMatch(stdout, /Then:/);
    assert.deepEqual(
      calls.map((words) => words[1]),
      ['create', 'logs', 'delete'],
    );
    const made = parse(inputs[0] ?? '') as MadePod;
    assert.equal(made.metadata.labels['aadpodidbinding'], 'orders');
    assert.equal(made.spec.serviceAccountName, 'robot');
    assert.equal(made.spec.nodeName, 'node-1');
    assert.equal(made.spec.containers[0]?.image, 'example/entra-pod-identity:0.1.0');
  });

  it('makes a pod that the restricted pod security standard allows, without a token', async () => {
    const { inputs } = await play('test --pod web', testBedOf(granted));
    const { spec } = parse(inputs[0] ?? '') as MadePod;
    assert.equal(spec.automountServiceAccountToken, false);
    assert.deepEqual(spec.securityContext, {
      runAsNonRoot: true,
      runAsUser: 65_532,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    const [container] = spec.containers;
    assert.deepEqual(container?.securityContext, {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
    });
  });

  it('copies no label and no node that the other pod lacks, and no label that a Service selects', async () => {
    const labels = { 'azure.workload.identity/use': 'true', app: 'web' };
    const pods = [
      createPod('web', { labels, spec: { nodeName: '' } }),
      createPod(name, { status: { phase: 'Failed' } }),
      createAgentPod('old', { image: 'example/aad-pod-identity/nmi:v1.8.17' }),
      createAgentPod('node-1'),
    ];
    const { inputs } = await play('test --pod web', testBedOf('', 'Failed', { pods }));
    const { metadata, spec } = parse(inputs[0] ?? '') as MadePod;
    assert.deepEqual(metadata.labels, {
      'app.kubernetes.io/name': 'nmi-test',
      'azure.workload.identity/use': 'true',
    });
    assert.ok(!('nodeName' in spec));
    assert.equal(spec.containers[0]?.image, 'example/entra-pod-identity:0.1.0');
  });

  it('requests the identity that the pod names, and reports that answer alone', async () => {
    const what = `a token, userAssignedID MSI, msiEndpoint(http://169.254.169.254) clientID(${clientB})`;
    const named = [
      `successfully acquired ${what}\n`,
      `failed to acquire ${what}, error: status 400\n`,
    ];
    const env = [{ name: 'AZURE_CLIENT_ID', value: clientB }];
    const pods = [
      createPod('web', {
        labels: { aadpodidbinding: 'orders' },
        spec: { containers: [{ name: 'main', env }] },
      }),
      createPod(name, { status: { phase: 'Failed' } }),
      createAgentPod('node-1', { args: ['--strict-identity'] }),
    ];
    for (const [at, line] of named.entries()) {
      const other = at === 0 ? refused : granted;
      const bed = testBedOf(`${other}${line}`, 'Failed', { pods });
      const { code, stdout, inputs } = await play('test --pod web', bed);
      assert.equal(code, at);
      assert.match(stdout, at === 0 ? /^A token came\.\n/ : /^No token came \(pod Failed\)\.\n/);
      assert.ok(stdout.includes(`\n  ${line}`), stdout);
      assert.doesNotMatch(stdout, /using the MSI/, 'the pod sends no request without a client id');
      assert.match(stdout, new RegExp(`^The request named client id ${clientB}\\.$`, 'm'));
      const { spec } = parse(inputs[0] ?? '') as MadePod;
      assert.deepEqual(spec.containers[0]?.args.slice(-1), [`--identity-client-id=${clientB}`]);
    }
  });

  it('says what it did not test', async () => {
    const { stdout } = await play('test --pod web', testBedOf(granted));
    assert.match(
      stdout,
      /\nThe request named no client id\.\nNetworkPolicies and exceptions for other labels of the pod were not tested\.\n$/,
    );
  });

  it('makes no pod in the place of one whose labels give it nothing', async () => {
    for (const labels of [{ app: 'addon' }, { 'azure.workload.identity/use': 'false' }]) {
      const pods = [createPod('web', { labels }), createAgentPod('node-1')];
      const { code, stderr, calls } = await play('test --pod web', testBedOf('', '', { pods }));
      assert.equal(code, 1);
      assert.match(
        stderr,
        /^error: pod shop\/web has neither the label aadpodidbinding nor azure\.workload\.identity\/use=true, .*\nSee what it gets: kubectl nmi explain pod web -n shop /,
      );
      assert.deepEqual(calls, []);
    }
  });

  it('removes its pod although the user interrupts it', async () => {
    const { outliving } = await play('test --pod web', testBedOf(granted));
    assert.deepEqual(
      outliving.map(([, word]) => word),
      ['create', 'delete'],
    );
  });

  it('removes nothing if the pod could not be made', async () => {
    const other: Recorded['other'] = (_program, [word]) =>
      word === 'create' ? failed('Error from server (Forbidden): no\n') : ok('');
    const { code, stderr, calls } = await play('test --pod web', {
      ...testBedOf(granted),
      other,
    });
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`^error: cannot create pod shop/${name}: `, 'm'));
    assert.deepEqual(
      calls.map(([, word]) => word),
      ['create'],
    );
  });

  it('removes what a call may have made that ended without an answer', async () => {
    for (const [created, removed, left] of [
      ['', '', undefined],
      [
        'Unable to connect to the server: EOF\n',
        'Unable to connect to the server: EOF\n',
        /^warning: pod shop\/nmi-test-\w+ may be left behind\. Delete it: /m,
      ],
    ] as const) {
      const other: Recorded['other'] = (_program, [word]) =>
        word === 'create' ? failed(created) : removed === '' ? ok('') : failed(removed);
      const { code, stderr, calls } = await play('test --pod web', {
        ...testBedOf(granted),
        other,
      });
      assert.notEqual(code, 0);
      assert.deepEqual(
        calls.map(([, word]) => word),
        ['create', 'delete'],
      );
      assert.match(stderr, left ?? /^error: cannot create pod/m);
    }
  });

  it('fails with the answer if there is no token, and with the next step', async () => {
    const { code, stdout, calls } = await play('test --pod web', testBedOf(refused, 'Failed'));
    assert.equal(code, 1);
    assert.match(
      stdout,
      /^No token came \(pod Failed\)\.\n {2}failed to acquire[^\n]+\nThen: kubectl nmi explain pod web -n shop/,
    );
    assert.equal(calls.at(-1)?.[1], 'delete');
  });

  it('removes its pod when the wait is over', async () => {
    const { stdout, calls } = await play('test --pod web --timeout 5', testBedOf('', 'Pending'));
    assert.match(stdout, /No token came \(pod Pending\)/);
    assert.equal(calls.at(-1)?.[1], 'delete');
  });

  it('ends when its pod is removed, with a warning if that fails', async () => {
    const { stderr } = await play('test --pod web', {
      ...testBedOf(granted),
      other: async (_program, args) => {
        if (args[0] !== 'delete') return ok(args[0] === 'logs' ? granted : '');
        await nextTurn();
        return failed('Error from server (Forbidden): no\n');
      },
    });
    assert.equal(
      stderr,
      `pod ${name} is created in context dev, namespace shop, and deleted at the end\nwarning: pod shop/${name} is left behind. Delete it: kubectl --context=dev delete pods --namespace=shop ${name}\n`,
    );
  });

  it('refuses to guess missing input', async () => {
    assert.match((await play('test', testBedOf(''))).stderr, /test needs --pod/);
    const blind = { ...testBedOf(''), forbidden: { pods: 'other-namespaces' } as const };
    assert.match((await play('test --pod web', blind)).stderr, /Give --image/);
  });
});

/** Seconds that `test` waits for a pod that never starts: it looks once a second. */
async function waitOf(timeout: readonly string[]) {
  let looks = 0;
  const status = { phase: 'Pending' };
  const web = createPod('web', { labels: { aadpodidbinding: 'orders' } });
  const pods = [web, createAgentPod('node-1'), createPod(name, { status })];
  const { code, stderr, inputs } = await play(['test', '--pod', 'web', ...timeout], {
    ...boundTestBed({ pods }),
    other: () => ok(''),
    onSleep: () => (looks += 1),
  });
  const deadline = Number(/activeDeadlineSeconds: (\d+)/.exec(inputs[0] ?? '')?.[1]);
  return { code, stderr, looks, deadline };
}

describe('the timeout of kubectl nmi test', () => {
  it('is written as in kubectl, or in seconds', async () => {
    const waits = [
      [['--timeout', '2m'], 120],
      [['--timeout=90s'], 90],
      [['--timeout', '1m30s'], 90],
      [['--timeout', '5'], 5],
      [[], 120],
    ] as const;
    for (const [words, seconds] of waits) {
      const { looks, deadline } = await waitOf(words);
      assert.deepEqual([looks, deadline], [seconds, seconds], words.join(' '));
    }
  });

  it('is anything else by mistake', async () => {
    for (const text of ['2 minutes', 'm', '-1s', '1d', '2M', '1e3', '90,5s', 'Infinity']) {
      const { code, stderr, looks } = await waitOf([`--timeout=${text}`]);
      assert.deepEqual([code, looks], [2, 0], text);
      assert.equal(
        stderr,
        `error: --timeout is "${text}", which is no duration\nWrite it as 90s, 2m or 1m30s; a number alone is seconds.\n`,
      );
    }
    assert.equal((await waitOf(['--timeout', '1', '--timeout', '2'])).code, 2);
    assert.equal((await waitOf(['--timeout'])).code, 2);
    assert.equal((await waitOf(['--timeout='])).code, 2);
  });
});

/**
 * Verbs that query a running agent: the whole agent on loopback, and a kubectl with exec, logs and
 * proxied pages that reach it.
 */

const target =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net';

describe('kubectl nmi beside a running agent', () => {
  let agent: LoopbackAgent;
  let folder: string;
  let testBed: Recorded;
  let socket: string;
  const run = (...words: readonly string[]) => play([...words, '-n', 'default'], testBed);

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-test-'));
    socket = join(folder, 'explain.sock');
    const [metricsPort] = await twoFreePorts();
    agent = await openLoopbackAgent({ 'prometheus-port': String(metricsPort) }, bindPodToA, {
      explainSocket: socket,
    });
    const labels = { aadpodidbinding: 'app' };
    const args = [`--http-probe-port=${agent.adminPort}`, `--prometheus-port=${metricsPort}`];
    const namespace = 'default';
    testBed = {
      objects: {
        nodes: [{ metadata: { name: 'node-1' } }],
        pods: [
          createPod('p', { namespace, labels, ip: '127.0.0.11' }),
          createAgentPod('node-1', { args }),
        ],
        [kinds.identities]: [
          createIdentity('a', { type: 0, clientID: identityA.clientId }, { namespace }),
        ],
        [kinds.bindings]: [
          createBinding('a', { azureIdentity: 'a', selector: 'app' }, { namespace }),
        ],
      },
      other: (_program, words) => reach(words),
    };
    for (const userAgent of ['azsdk-python-identity/1.12.0 Python/3.11', 'azsdk-go-azidentity/x']) {
      const answer = await agent.client('127.0.0.11').request({
        method: 'GET',
        target,
        headers: ['Metadata', 'true', 'User-Agent', userAgent],
        connection: 'own',
        timeoutMs: 5_000,
      });
      assert.ok(answer.outcome === 'answered' && answer.status === 200);
    }
  });
  after(async () => {
    await agent[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  /** Replaces exec, logs and the API server proxy of kubectl. */
  async function reach(words: readonly string[]): Promise<ProgramRun> {
    const [verb = '', ...rest] = words;
    const program = rest.indexOf('nmi');
    if (verb === 'exec' && program >= 0) {
      let [stdout, stderr] = ['', ''];
      const code = await runCli(rest.slice(program + 1), {
        environment: { NMI_EXPLAIN_SOCKET: socket },
        stdout: (text) => (stdout += text),
        stderr: (text) => (stderr += text),
        stop: new AbortController().signal,
      });
      return { code, stdout, stderr };
    }
    if (verb === 'logs') return ok(rest.includes('--previous') ? '' : agent.log.join(''));
    if (rest[0]?.includes('openid-configuration') === true)
      return ok('{"issuer":"https://oidc.example/"}');
    const [, port, page = ''] = /:(\d+)\/proxy\/(\w+)$/.exec(rest[0] ?? '') ?? [];
    if (verb !== 'get' || port === undefined) return failed(`error: unknown command "${verb}"`);
    const response = await fetch(`http://127.0.0.1:${port}/${page}`);
    const text = await response.text();
    return response.ok ? ok(text) : failed(`Error from server (NotFound): ${text}`);
  }

  it('sysdump has its pages, log and metrics', async () => {
    const { code, stdout: text } = await run('sysdump');
    assert.equal(code, 0);
    for (const part of [
      /nodeVersion: v26/,
      /azsdk-python-identity\/1\.12\.0/,
      /redirect: none/,
      /token request/,
      /nmi_build_info/,
    ]) {
      assert.match(text, part);
    }
    assert.doesNotMatch(text, /eyJ/);
  });
});
