import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import {
  boundTestBed,
  createAgentPod,
  failed,
  kinds,
  ok,
  play,
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
