/** Verbs that run something: `sysdump` enters agents, `test` runs a pod. */
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
  bound,
  boundTestBed,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createPod,
  failed,
  kinds,
  nowWallMs,
  ok,
  play,
  type Recorded,
} from '../recorded-kubectl.ts';
import {
  bindPodToA,
  identityA,
  openLoopbackAgent,
  type LoopbackAgent,
} from '../../../support/loopback-agent.ts';

const agent = createAgentPod('node-1');

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

describe('kubectl nmi sysdump', () => {
  const token = ['eyJhbGciOiJSUzI1NiJ9', 'eyJzdWIiOiJ4In0', 'c2lnbmF0dXJl'].join('.');
  const dump = async (recorded: Recorded) => {
    const { code, stdout, stderr, calls } = await play('sysdump', recorded);
    const documents = parseAllDocuments(stdout).map((each) => each.toJS() as Dumped);
    const [{ unread = [] } = {}] = documents;
    const own = documents.find((each) => 'agent' in each);
    const of = (resource: string) => documents.find((each) => each.resource === resource);
    return { code, stdout, stderr, calls, documents, unread, own, of };
  };
  const dumpOfAgent = (changes: Recorded) => dump({ objects: { pods: [agent] }, ...changes });

  it('has no tokens and no unrelated objects', async () => {
    const definitions = [
      { metadata: { name: 'azureidentities.aadpodidentity.k8s.io', annotations: { a: token } } },
      { metadata: { name: 'certificates.cert-manager.io' } },
    ];
    const { code, stdout, documents, of, own } = await dump({
      ...boundTestBed({
        pods: [createAgentPod('node-1', { args: ['--strict-identity', token] })],
        'customresourcedefinitions.apiextensions.k8s.io': definitions,
        nodes: [{ metadata: { name: 'node-1' } }],
      }),
      other: (args) => {
        if (args.includes('explain'))
          return ok(`{"agent":{"flags":{"redirect":"ebpf"}},"a":"${token}"}\n`);
        return ok(args.includes('--previous') ? `saw ${token} before\n` : `saw ${token}\n`);
      },
    });
    assert.equal(code, 0);
    assert.doesNotMatch(stdout, /eyJ|cert-manager/);
    assert.equal(documents.length, 9);
    const text = JSON.stringify(documents);
    for (const said of [
      /saw \(removed\)\\n/,
      /saw \(removed\) before/,
      /"annotations":\{"a":"\(removed\)"\}/,
      /"--strict-identity","\(removed\)"/,
    ]) {
      assert.match(text, said);
    }
    assert.match(JSON.stringify(of('nodes')?.objects), /"name":"node-1"/);
    assert.match(JSON.stringify(of(kinds.identities)?.objects), /"name":"orders"/);
    const explained = { agent: { flags: { redirect: 'ebpf' } }, a: '(removed)' };
    assert.deepEqual(own?.explained, explained);
  });

  it('is none without a server, and the exit code says so', async () => {
    const unreachable = 'Unable to connect to the server: dial tcp: no such host';
    const { code, stdout, stderr } = await dump({ unreachable });
    assert.deepEqual([code, stdout], [69, '']);
    assert.match(stderr, /^error: cannot list pods: Unable to connect/);
  });

  it('has a limited number of objects and of agents, and names how many more there are', async () => {
    const nodes = Array.from({ length: 501 }, (_, at) => ({ metadata: { name: `node-${at}` } }));
    const pods = nodes.slice(0, 21).map(({ metadata: { name } }) => createAgentPod(name));
    const { documents, of } = await dump({ objects: { nodes, pods }, other: () => ok('') });
    assert.deepEqual([of('nodes')?.omitted, of('nodes')?.objects?.length], [1, 500]);
    assert.deepEqual([of('daemonsets.apps')?.omitted, of('pods')?.objects?.length], [0, 21]);
    const asked = documents.flatMap((each) => each.agent ?? []);
    assert.deepEqual([asked.length, asked[0]], [20, 'kube-system/nmi-node-0']);
  });

  it('has the samples of the metrics, by the proxy of the API server, and why there is no log', async () => {
    const { own, calls } = await dumpOfAgent({
      other: ([word]) =>
        word === 'get' ? ok('# HELP a b\n\na 1\nb 2\n') : failed('container not found'),
    });
    assert.deepEqual([own?.metrics, own?.log], [['a 1', 'b 2'], 'container not found']);
    const page = '--raw=/api/v1/namespaces/kube-system/pods/nmi-node-1:9090/proxy/metrics';
    assert.ok(calls.some(([, verb, what]) => verb === 'get' && what === page));
  });

  it('names what it could not read, with the right that would show it', async () => {
    const refused =
      'Error from server (Forbidden): pods "x" is forbidden: User "dev" cannot get resource "pods/proxy" in API group "" in the namespace "kube-system"';
    const forbidden = { nodes: 'everywhere' } as const;
    const { code, unread } = await dumpOfAgent({ forbidden, other: () => failed(refused) });
    assert.equal(code, 0);
    const lines = unread.map(({ what, why }) => `${what}: ${why}`).join('\n');
    assert.match(lines, /^read the metrics of kube-system\/nmi-node-1: .*pods\/proxy/m);
    assert.match(lines, /^list nodes: no right/m);
    assert.match(lines, /^ask the agent kube-system\/nmi-node-1: /m);
  });

  it('enters no pod that only looks like an agent', async () => {
    const forbidden = { [kinds.daemonSets]: 'everywhere' } as const;
    const { own, unread, calls } = await dumpOfAgent({ forbidden, other: () => ok('{"a":1}') });
    assert.deepEqual(own?.explained, {});
    assert.ok(unread.some(({ why }) => why === unverified));
    assert.ok(!calls.flat().includes('exec'));
  });
});

const name = `nmi-test-${nowWallMs.toString(36)}`;
const granted =
  'successfully made GET on instance metadata\nsuccessfully acquired a token using the MSI, msiEndpoint(http://169.254.169.254)\n';
const refused =
  'failed to acquire a token using the MSI, error: status 400 invalid_request Identity not found\n';

interface MadePod {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
  readonly spec: Readonly<Record<string, unknown>> & {
    readonly containers: readonly {
      readonly image: string;
      readonly args: readonly string[];
      readonly securityContext: object;
    }[];
  };
}

describe('kubectl nmi test', () => {
  const test = 'test --pod web';
  const robot = { ...bound, spec: { serviceAccountName: 'robot' } };
  /** @param log of the test's pod, and its phase. */
  const bedOf = (log: string, phase = 'Succeeded', pods = [createPod('web', robot), agent]) => ({
    ...boundTestBed({ pods: [...pods, createPod(name, { status: { phase } })] }),
    other: (([verb]) => ok(verb === 'logs' ? log : '')) as NonNullable<Recorded['other']>,
  });
  const verbsOf = (calls: readonly (readonly string[])[]) =>
    calls.map(([, verb]) => verb).join(' ');
  const madeBy = async (recorded: Recorded) => {
    const { inputs } = await play(test, recorded);
    return parse(inputs[0] ?? '') as MadePod;
  };

  it('sends the pod’s request, reports the answer and what was not tested, and removes its own pod', async () => {
    for (const [recorded, flags, expected, said] of [
      [
        bedOf(granted),
        '',
        0,
        /^A token came\.\n {2}successfully acquired(?![^]*Then:)[^]*\nThe request named no client id\.\nNetworkPolicies and exceptions for other labels of the pod were not tested\.\n$/,
      ],
      [
        bedOf(refused, 'Failed'),
        '',
        1,
        /^No token came \(pod Failed\)\.\n {2}failed to acquire[^\n]+\nThen: kubectl nmi explain pod web -n shop/,
      ],
      [bedOf('', 'Pending'), ' --timeout 5', 1, /No token came \(pod Pending\)/],
    ] as const) {
      const { code, stdout, calls, outliving } = await play(test + flags, recorded);
      assert.equal(code, expected);
      assert.match(stdout, said);
      assert.equal(verbsOf(calls), 'create logs delete');
      assert.equal(verbsOf(outliving), 'create delete', 'although the user interrupts it');
    }
  });

  it('makes a pod like the other one, which the restricted pod security standard allows', async () => {
    const { metadata, spec } = await madeBy(bedOf(granted));
    const { containers, serviceAccountName, nodeName, securityContext, ...rest } = spec;
    assert.equal(metadata.labels['aadpodidbinding'], 'orders');
    assert.deepEqual([serviceAccountName, nodeName], ['robot', 'node-1']);
    assert.equal(containers[0]?.image, 'example/entra-pod-identity:0.1.0');
    assert.equal(rest['automountServiceAccountToken'], false);
    assert.deepEqual(securityContext, {
      runAsNonRoot: true,
      runAsUser: 65_532,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    assert.deepEqual(containers[0].securityContext, {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
    });
  });

  it('copies no label and no node that the other pod lacks, and no label that a Service selects', async () => {
    const use = { 'azure.workload.identity/use': 'true' };
    const pods = [
      createPod('web', { labels: { ...use, app: 'web' }, spec: { nodeName: '' } }),
      createAgentPod('old', { image: 'example/aad-pod-identity/nmi:v1.8.17' }),
      agent,
    ];
    const { metadata, spec } = await madeBy(bedOf('', 'Failed', pods));
    assert.deepEqual(metadata.labels, { 'app.kubernetes.io/name': 'nmi-test', ...use });
    assert.ok(!('nodeName' in spec));
    assert.equal(spec.containers[0]?.image, 'example/entra-pod-identity:0.1.0');
  });

  it('requests the identity that the pod names, and reports that answer alone', async () => {
    const what = `a token, userAssignedID MSI, msiEndpoint(http://169.254.169.254) clientID(${clientB})`;
    const env = [{ name: 'AZURE_CLIENT_ID', value: clientB }];
    const web = createPod('web', { ...bound, spec: { containers: [{ name: 'main', env }] } });
    for (const [other, line, expected, said] of [
      [refused, `successfully acquired ${what}\n`, 0, /^A token came\.\n/],
      [
        granted,
        `failed to acquire ${what}, error: status 400\n`,
        1,
        /^No token came \(pod Failed\)/,
      ],
    ] as const) {
      const recorded = bedOf(other + line, 'Failed', [web, agent]);
      const { code, stdout, inputs } = await play(test, recorded);
      assert.equal(code, expected);
      assert.match(stdout, said);
      assert.ok(stdout.includes(`\n  ${line}`), stdout);
      assert.doesNotMatch(stdout, /using the MSI/, 'the pod sends no request without a client id');
      assert.match(stdout, new RegExp(`^The request named client id ${clientB}\\.$`, 'm'));
      const { spec } = parse(inputs[0] ?? '') as MadePod;
      assert.deepEqual(spec.containers[0]?.args.slice(-1), [`--identity-client-id=${clientB}`]);
    }
  });

  it('makes no pod in the place of one whose labels give it nothing, and guesses no image', async () => {
    for (const labels of [{ app: 'addon' }, { 'azure.workload.identity/use': 'false' }]) {
      const recorded = bedOf('', '', [createPod('web', { labels }), agent]);
      const { code, stderr, calls } = await play(test, recorded);
      assert.deepEqual([code, calls], [1, []]);
      assert.match(
        stderr,
        /^error: pod shop\/web has neither the label aadpodidbinding nor azure\.workload\.identity\/use=true, .*\nSee what it gets: kubectl nmi explain pod web -n shop /,
      );
    }
    const blind = { ...bedOf(''), forbidden: { pods: 'other-namespaces' } as const };
    assert.match((await play(test, blind)).stderr, /Give --image/);
  });

  it('removes what it may have made, with a warning if that fails', async () => {
    const eof = failed('Unable to connect to the server: EOF\n');
    const denied = failed('Error from server (Forbidden): no\n');
    const left = `left behind. Delete it: kubectl --context=dev delete pods --namespace=shop ${name}`;
    for (const [created, deleted, verbs, said] of [
      [denied, ok(''), 'create', `error: cannot create pod shop/${name}: `],
      // A call that ended without an answer.
      [failed(''), ok(''), 'create delete', 'error: cannot create pod'],
      [eof, eof, 'create delete', `warning: pod shop/${name} may be ${left}`],
      [ok(''), denied, 'create logs delete', `warning: pod shop/${name} is ${left}`],
    ] as const) {
      const { code, stderr, calls } = await play(test, {
        ...bedOf(granted),
        other: async ([verb = '']) => {
          if (verb === 'delete') await nextTurn();
          const runs: Readonly<Record<string, ProgramRun>> = { create: created, delete: deleted };
          return runs[verb] ?? ok(granted);
        },
      });
      assert.equal(code === 0, created.code === 0);
      assert.equal(verbsOf(calls), verbs);
      assert.ok(stderr.includes(`\n${said}`), stderr);
      assert.match(
        stderr,
        /^pod nmi-test-\w+ is created in context dev, namespace shop, and deleted/,
      );
    }
  });

  /** Seconds that it waits for a pod that never starts: it looks once a second. */
  const waitOf = async (timeout: string) => {
    let looks = 0;
    const recorded = { ...bedOf('', 'Pending'), onSleep: () => (looks += 1) };
    const words = [...test.split(' '), ...(timeout === '' ? [] : [timeout])];
    const { code, stderr, inputs } = await play(words, recorded);
    const deadline = Number(/activeDeadlineSeconds: (\d+)/.exec(inputs[0] ?? '')?.[1]);
    return { code, stderr, looks, deadline };
  };

  it('has a timeout that is written as in kubectl, or in seconds', async () => {
    for (const [text, seconds] of [
      ['--timeout=2m', 120],
      ['--timeout=90s', 90],
      ['--timeout=1m30s', 90],
      ['--timeout=5', 5],
      ['', 120],
    ] as const) {
      const { looks, deadline } = await waitOf(text);
      assert.deepEqual([looks, deadline], [seconds, seconds], text);
    }
    for (const text of ['2 minutes', 'm', '-1s', '1d', '2M', '1e3', '90,5s', 'Infinity']) {
      const { code, stderr, looks } = await waitOf(`--timeout=${text}`);
      assert.deepEqual([code, looks], [2, 0], text);
      assert.equal(
        stderr,
        `error: --timeout is "${text}", which is no duration\nWrite it as 90s, 2m or 1m30s; a number alone is seconds.\n`,
      );
    }
    assert.equal((await waitOf('--timeout=')).code, 2);
  });
});

describe('kubectl nmi sysdump beside a running agent', () => {
  const target =
    '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net';
  let running: LoopbackAgent;
  let folder: string;
  let socket: string;
  let metricsPort: number;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-test-'));
    socket = join(folder, 'explain.sock');
    [metricsPort] = await twoFreePorts();
    const flags = { 'prometheus-port': String(metricsPort) };
    running = await openLoopbackAgent(flags, bindPodToA, { explainSocket: socket });
    for (const userAgent of ['azsdk-python-identity/1.12.0 Python/3.11', 'azsdk-go-azidentity/x']) {
      const answer = await running.client('127.0.0.11').request({
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
    await running[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  /** Replaces exec, logs and the API server proxy of kubectl. */
  async function reach([verb = '', ...rest]: readonly string[]): Promise<ProgramRun> {
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
    if (verb === 'logs') return ok(rest.includes('--previous') ? '' : running.log.join(''));
    const [, port, page = ''] = /:(\d+)\/proxy\/(\w+)$/.exec(rest[0] ?? '') ?? [];
    if (verb !== 'get' || port === undefined) return failed(`error: unknown command "${verb}"`);
    const response = await fetch(`http://127.0.0.1:${port}/${page}`);
    const text = await response.text();
    return response.ok ? ok(text) : failed(`Error from server (NotFound): ${text}`);
  }

  it('has its pages, log and metrics', async () => {
    const namespace = 'default';
    const args = [`--http-probe-port=${running.adminPort}`, `--prometheus-port=${metricsPort}`];
    const labels = { aadpodidbinding: 'app' };
    const spec = { type: 0, clientID: identityA.clientId };
    const binding = { azureIdentity: 'a', selector: 'app' };
    const { code, stdout } = await play('sysdump -n default', {
      objects: {
        nodes: [{ metadata: { name: 'node-1' } }],
        pods: [
          createPod('p', { namespace, labels, ip: '127.0.0.11' }),
          createAgentPod('node-1', { args }),
        ],
        [kinds.identities]: [createIdentity('a', spec, { namespace })],
        [kinds.bindings]: [createBinding('a', binding, { namespace })],
      },
      other: reach,
    });
    assert.equal(code, 0);
    for (const part of [
      /nodeVersion: v26/,
      /azsdk-python-identity\/1\.12\.0/,
      /redirect: none/,
      /token request/,
      /nmi_build_info/,
      /^(?![^]*eyJ)/,
    ]) {
      assert.match(stdout, part);
    }
  });
  const bed = (): Recorded => ({
    objects: {
      nodes: [{ metadata: { name: 'node-1' } }],
      pods: [
        createPod('p', { namespace: 'default', labels: { aadpodidbinding: 'app' } }),
        createAgentPod('node-1'),
      ],
    },
    other: reach,
  });

  it('is asked by explain --live for cached tokens and past requests of the pod', async () => {
    const { stdout, calls } = await play('explain pod p -n default --live', bed());
    const [, live = ''] = stdout.split('\nLive, from the agent on the node:\n');
    assert.match(live, /https:\/\/vault\.azure\.net: fresh token, fetched .* ago, expires in /);
    assert.match(live, /  last +0 s ago: 200 ok for https:\/\/vault\.azure\.net by AzureIdentity /);
    assert.doesNotMatch(stdout, /eyJ/);
    assert.equal(calls.filter((words) => words.includes('exec')).length, 1);
    const json = await play('explain pod p -n default --live -o json', bed());
    assert.match(json.stdout, /"live": \{\n *"schema": 2,\n *"kind": "pod"/);
    const later = await play('explain pod p -n default', bed());
    assert.ok(!later.calls.flat().includes('exec'));
  });

  it('is not asked without a proof of the agent or the right, and the verdict stands', async () => {
    const forbidden =
      'Error from server (Forbidden): pods "nmi-node-1" is forbidden: User "dev" cannot create resource "pods/exec" in API group "" in the namespace "kube-system"\n';
    const rows: readonly (readonly [Recorded, RegExp])[] = [
      [
        { other: () => failed(forbidden) },
        /cannot ask the agent kube-system\/\S+: .*pods\/exec.*\. Ask for this RBAC rule: .*pods\/exec.*\. Or an administrator runs: kubectl exec --namespace=kube-system \S+ --container=nmi -- nmi explain --pod=default\/p$/m,
      ],
      [{ other: () => ok('{"schema":1}') }, /its release reports in another form/],
      [{ forbidden: { [kinds.daemonSets]: 'everywhere' } }, /no proven agent .* on node node-1/],
    ];
    for (const [changes, said] of rows) {
      const { stdout, calls } = await play('explain pod p -n default --live', {
        ...bed(),
        ...changes,
      });
      assert.match(stdout, /^pod default\/p: /);
      assert.match(stdout.split('\nLive,')[1] ?? '', said);
      assert.equal(calls.flat().includes('exec'), changes.forbidden === undefined);
    }
  });

  it('has its lines about the pod, and no others, printed by logs', async () => {
    const ofPod = '{"msg":"token request","uid":"uid-default-p","password":"hunter2hunter2"}';
    const other = (words: readonly string[]) =>
      words[0] === 'logs' ? ok(`${ofPod}\n{"uid":"uid-default-q"}\nplain\n`) : undefined;
    const { code, stdout, calls } = await play('logs pod p -n default --since=90s', {
      ...bed(),
      other,
    });
    assert.equal(code, 0);
    assert.equal(stdout, `${ofPod.replace('hunter2hunter2', '(removed)')}\n`);
    assert.ok(calls.some((words) => words.includes('--since=90s')));
    const none = await play('logs pod/p -n default', { ...bed(), other: () => ok('') });
    assert.deepEqual([none.code, none.stdout], [0, '']);
    assert.match(none.stderr, /no line about pod default\/p in the last 1h; .* --live\n$/);
    const forbidden = { [kinds.daemonSets]: 'everywhere' } as const;
    const unproven = await play('logs pod p -n default', { ...bed(), forbidden });
    assert.equal(unproven.code, 1);
    assert.match(unproven.stderr, /^error: no proven agent of this project is on node node-1/m);
    assert.ok(!unproven.calls.flat().includes('logs'));
  });
});
