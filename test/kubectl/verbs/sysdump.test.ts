import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { unverified } from '../../../src/kubectl/cluster/agents.ts';
import {
  boundTestBed,
  createAgentPod,
  failed,
  kinds,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const token = ['eyJhbGciOiJSUzI1NiJ9', 'eyJzdWIiOiJ4In0', 'c2lnbmF0dXJl'].join('.');
const testBed = {
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
    const { code, stdout: text } = await play(['sysdump'], testBed);
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
    const { code, stdout } = await play(['sysdump'], {
      ...testBed,
      forbidden: { nodes: 'everywhere' },
    });
    assert.equal(code, 0);
    assert.match(stdout, /cannot list|list nodes/);
  });
});

describe('a dump without a server', () => {
  it('is none, and the exit code says so', async () => {
    const stderr = 'Unable to connect to the server: dial tcp: no such host';
    const { code, stdout, stderr: said } = await play(['sysdump'], { unreachable: stderr });
    assert.deepEqual([code, stdout], [69, '']);
    assert.match(said, /^error: cannot list pods: Unable to connect/);
  });
});

describe('the dump of many nodes', () => {
  const nodes = Array.from({ length: 501 }, (_, at) => ({ metadata: { name: `node-${at}` } }));
  const agents = nodes.slice(0, 21).map(({ metadata: { name } }) => createAgentPod(name));

  it('has a limited number of objects and of agents, and names how many more there are', async () => {
    const recorded = { objects: { nodes, pods: agents }, other: () => ok('') };
    const { stdout } = await play(['sysdump'], recorded);
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
    const { stdout, calls } = await play(['sysdump'], { objects: { pods }, ...recorded });
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
    const { stdout, calls } = await play(['sysdump'], {
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
    const { stdout } = await play(['sysdump'], { objects: { pods }, other: () => failed(stderr) });
    assert.match(stdout, /what: read the metrics of kube-system\/nmi-node-1\n +why: .*pods\/proxy/);
  });
});
