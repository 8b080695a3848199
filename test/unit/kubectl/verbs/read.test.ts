import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { identityGrants } from '../../../../src/kubectl/cluster/resources.ts';
import {
  bound,
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createEvent,
  createIdentity,
  createObject,
  createPod,
  kinds,
  play,
  type Recorded,
} from '../recorded-kubectl.ts';

/** Arguments, machine, exit code, and what standard output or error have. */
type Case = readonly [words: string, on: Recorded, code: number, ...said: readonly RegExp[]];

function follow(cases: readonly Case[]): void {
  for (const [words, recorded, expected, ...said] of cases) {
    it(`${words}: exit code ${expected}, ${said.map(({ source }) => source).join()}`, async () => {
      const { code, stdout, stderr } = await play(words, recorded);
      assert.equal(code, expected, stderr);
      for (const each of said) assert.match(stdout + stderr, each);
      if (stderr.startsWith('error: ')) assert.equal(stdout, '');
    });
  }
}

describe('kubectl nmi analyze', () => {
  const bed = boundTestBed();
  const orders = createIdentity('orders');
  const idle = { [kinds.identities]: [orders, createIdentity('idle')] };
  const slip = createPod('web', { labels: { aadpodidbinding: 'order' } });
  const slipped = {
    pods: [slip, createAgentPod('node-1')],
    [kinds.identities]: [orders, createIdentity('idle', {}, { namespace: 'x' })],
  };
  const exception = createObject('AzurePodIdentityException', 'e', { podLabels: {} });
  const loose = { [kinds.exceptions]: [exception] };
  const odd = { podSelector: {}, egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/33' } }] }] };
  const policies = { [kinds.policies]: [createObject('NetworkPolicy', 'p', odd)] };
  const blind = { ...bed, forbidden: { nodes: 'everywhere' } } as const;
  const refused = boundTestBed({ events: [createEvent(orders, { reason: 'CredentialRefused' })] });
  const files = {
    'bad.yaml': `
kind: AzureIdentityBinding
metadata: { name: b }
spec: { AzureIdentity: a, Selector: web }
---
kind: Deployment
metadata: { name: web, labels: { aadpodidbinding: web } }
spec: { template: { metadata: { labels: { app: web } } } }
`,
    'broken.yaml': 'a: [',
    'grant.yaml': `
kind: AzureIdentityGrant
metadata: { name: shop }
spec: { namespaces: [shop], clientIDs: [22729e47-74ce-4b43-8eea-aab5f2073301] }
`,
  };
  const strict = createAgentPod('node-2', { args: ['--strict-identity'] });
  const far = { labels: { aadpodidbinding: 'orders' }, spec: { nodeName: 'node-2' } };
  const two = boundTestBed({
    pods: [...(bed.objects?.['pods'] ?? []), createPod('api', { ...far, ip: '10.2.0.7' }), strict],
    ...idle,
    [kinds.bindings]: [
      createBinding('orders'),
      createBinding('idle', { azureIdentity: 'idle', selector: 'orders' }),
    ],
  });

  follow([
    ['analyze --fail-on=warning', bed, 0, /^0 errors, 0 warnings, 0 info of 1 pods\n$/],
    ['analyze', boundTestBed(slipped), 1, / of 1 pods\n/],
    ['analyze -A', boundTestBed(slipped), 1, /2 errors, 0 warnings, 2 info of 2 pods/],
    ['analyze -A --threshold error', boundTestBed(slipped), 1, /^(?![^]*identity_unbound)/],
    ['analyze --fail-on=never', boundTestBed(slipped), 0],
    ['analyze --fail-on=warning --threshold=error', boundTestBed(loose), 1, /^0 errors/],
    ['analyze', boundTestBed(loose), 0, /^0 errors, 1 warning/m],
    ['analyze', boundTestBed(idle), 0],
    ['analyze --fail-on=warning', boundTestBed(idle), 0],
    // A policy with a CIDR that is none.
    [
      'analyze -A',
      boundTestBed({ ...policies, ...idle }),
      0,
      /^0 errors, 0 warnings, 1 info of 2/m,
    ],
    ['analyze -A', refused, 1, /^error {3}AzureIdentity shop\/orders: credential_refused$/m],
    [
      'analyze',
      two,
      1,
      /^error {3}Pod shop\/api: identity_ambiguous$/m,
      /^(?![^]*Pod shop\/web: identity_ambiguous)/,
    ],
    ['analyze', blind, 0, /^Not checked \(1; -v shows why\): .+\.$/m, /^(?![^]*RBAC rule)/],
    ['analyze -v', blind, 0, /^Not checked:\n.+\n +cannot .+ RBAC rule: /m],
    ['analyze -n nope', bed, 1, /namespace nope does not exist/],
    ['analyze -A', boundTestBed({ pods: [] }), 0, /^0 errors/m],
    // Pods prove that it exists.
    ['analyze', boundTestBed({ namespaces: [] }), 0],
    [
      'analyze -f bad.yaml --files-only -n shop',
      { files },
      1,
      /AzureIdentityBinding shop\/b: identity_missing/,
      /Deployment shop\/web: label_on_owner/,
      / in these files; what the cluster has beside them is not known\n$/,
    ],
    ['analyze -f grant.yaml --files-only --fail-on=warning', { files }, 0],
    ['analyze -f none.yaml', { files }, 2, /file none\.yaml cannot be read/],
    ['analyze -f broken.yaml', { files }, 2, /broken\.yaml is no YAML/],
    ['analyze --files-only', bed, 2, /--files-only needs files/],
  ]);

  it('asks no cluster about files with --files-only', async () => {
    const { calls, reads } = await play('analyze -f bad.yaml --files-only -n shop', { files });
    assert.deepEqual([calls, reads], [[], 0]);
  });
});

describe('kubectl nmi analyze -f, beside the cluster', () => {
  const deployment = (label: string, name = 'api') => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: ${name} }
spec:
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name}, aadpodidbinding: ${label} } }
    spec: { containers: [{ name: main, image: x }] }
`;
  const broken = createPod('broken', { labels: { aadpodidbinding: 'gone' }, ip: '10.244.1.8' });
  const running = createPod('api-5d9c-x', {
    labels: { app: 'api', aadpodidbinding: 'old' },
    ip: '10.244.1.9',
    owner: { kind: 'ReplicaSet', name: 'api-5d9c' },
  });
  const files = {
    'app.yaml': deployment('orders'),
    'slip.yaml': deployment('order'),
    'deploy/app.yaml': deployment('orders'),
    'deploy/more/slip.yml': deployment('order', 'jobs'),
    'deploy/README.md': '# not a manifest: [',
    'empty/README.md': '',
    'identity.yaml': `
kind: AzureIdentity
metadata: { name: orders }
spec: { type: 0, clientID: none }
`,
    'same.yaml': `
kind: AzureIdentity
metadata: { name: orders, labels: { team: shop } }
spec: { type: 0, clientID: ${clientA} }
`,
    'mended.yaml': `
kind: AzureIdentity
metadata: { name: orders }
spec: { type: 0, clientID: ${clientB} }
`,
    'second.yaml': `
kind: AzureIdentity
metadata: { name: second }
spec: { type: 0, clientID: ${clientB} }
---
kind: AzureIdentityBinding
metadata: { name: second }
spec: { azureIdentity: second, selector: orders }
`,
    'policy.yaml': `
kind: NetworkPolicy
metadata: { name: closed }
spec: { podSelector: {}, policyTypes: [Egress], egress: [] }
`,
    'far.yaml': deployment('orders').replace('name: api }', 'name: api, namespace: far }'),
  };
  const bed = boundTestBed();
  const others = [broken, running, ...(bed.objects?.['pods'] ?? [])];
  const cluster = { ...boundTestBed({ pods: others }), files };
  const [orders = {}] = bed.objects?.[kinds.identities] ?? [];
  const events = [createEvent(orders, { reason: 'IdentityNotAssigned' })];
  const refused = { ...boundTestBed({ events }), files };
  const [strict] = [createAgentPod('node-1', { args: ['--strict-identity'] })];
  const nothing = /^0 errors, 0 warnings, 0 info of 1 pods in these files and what they change/;

  follow([
    // The binding is in the cluster, and other pods are broken there.
    ['analyze -f app.yaml --fail-on warning', cluster, 0, nothing],
    ['analyze -f app.yaml --files-only', cluster, 1, /api \(Deployment\): binding_missing$/m],
    [
      'analyze -f slip.yaml',
      cluster,
      1,
      /Pod shop\/api \(Deployment\): binding_missing$/m,
      /^1 error, 0 warnings, 0 info of 1 pods/m,
    ],
    // With all files below it that kubectl would apply.
    ['analyze -f deploy', cluster, 1, /jobs \(Deployment\): binding_missing$/m, /of 2 pods/],
    ['analyze -f empty', cluster, 2, /folder empty has no file \.yaml, \.yml or \.json/],
    // What is in the cluster is replaced, or fails by what the files bring.
    ['analyze -f identity.yaml', cluster, 1, /AzureIdentity shop\/orders: identity_invalid$/m],
    [
      'analyze -f second.yaml',
      { ...boundTestBed({ pods: [createPod('web', bound), broken, strict] }), files },
      1,
      /Pod shop\/web: identity_ambiguous$/m,
      /^(?![^]*shop\/broken)/,
    ],
    // Older identities come first, as in the cluster.
    ['analyze -f second.yaml', cluster, 0, /of 0 pods/],
    // An agent reported a refusal of the identity as it is.
    ['analyze -f same.yaml', refused, 1, /AzureIdentity shop\/orders: identity_not_assigned$/m],
    ['analyze -f mended.yaml', refused, 0],
    ['analyze -f policy.yaml', cluster, 1, /Pod shop\/web: network_policy$/m],
    // In its own namespace.
    ['analyze -f far.yaml', cluster, 1, /Pod far\/api \(Deployment\): binding_missing$/m],
    [
      'analyze -f app.yaml',
      { ...cluster, forbidden: { [kinds.grants]: 'everywhere' } },
      0,
      /^Not checked \(1; -v shows why\): identity grants\.$/m,
    ],
    ['analyze -f app.yaml', { ...cluster, forbidden: { [kinds.bindings]: 'everywhere' } }, 77],
  ]);
});

describe('kubectl nmi grants', () => {
  const clientID = '22729e47-74ce-4b43-8eea-aab5f2073301';
  const till = { azureIdentity: 'till', selector: 'till' };
  const far = { namespace: 'kube-system' };
  const podLabels = { app: 'addon' };
  const objects = {
    [kinds.identities]: [
      createIdentity('till', { type: 0, clientID }),
      createIdentity('unbound', { type: 0, clientID }),
    ],
    pods: [createPod('till', { labels: { aadpodidbinding: 'till' } })],
    [kinds.bindings]: [createBinding('till', till)],
    [kinds.exceptions]: [createObject('AzurePodIdentityException', 'x', { podLabels }, far)],
    namespaces: ['shop', 'empty'].map((name) => ({ metadata: { name } })),
  };
  const all = { namespaces: ['*'], clientIDs: [clientID] };
  const one = { ...objects, [kinds.exceptions]: [] };
  const granted = {
    ...one,
    [identityGrants]: [createObject('AzureIdentityGrant', 'all', all, { namespace: '' })],
  };
  const ofTill = new RegExp(`clientIDs:\\n {4}- "${clientID}" {2}# AzureIdentity till\\n`);

  follow([
    [
      'grants',
      { objects },
      0,
      ofTill,
      /^# {3}namespaces: \["kube-system"\]\n# {3}nodeIdentities: true {2}# gives/m,
    ],
    ['grants -n shop', { objects }, 0, /^ {2}namespaces: \["shop"\]$/m, /^(?![^]*kube-system)/],
    [
      'grants -n empty --fail-on=warning',
      { objects },
      0,
      /^every identity in use of namespace empty/,
    ],
    ['grants -n shpo', { objects }, 1, /^error: namespace shpo does not exist\n/],
    ['grants --fail-on=warning', { objects }, 1],
    ['grants --fail-on=warning', {}, 0],
    ['grants', { objects: one }, 0, /^(?![^]*AzureIdentityGrant\n[^]*AzureIdentityGrant\n)/],
    ['grants', { objects: granted }, 0, /^every identity in use has a grant\n$/],
    ['grants', { objects, missing: [identityGrants] }, 0, /kind: AzureIdentityGrant/],
    ['grants', { objects, missing: [kinds.identities] }, 1],
    ...[kinds.bindings, identityGrants, 'pods', 'nodes'].map((kind): Case => [
      'grants',
      { objects, forbidden: { [kind]: 'everywhere' } },
      77,
      new RegExp(`^error: .*list ${kind}`),
    ]),
  ]);
});

describe('kubectl nmi reasons', () => {
  follow([
    [
      'reasons binding_missing',
      {},
      0,
      /^binding_missing \(HTTP 400\)\nNo AzureIdentityBinding [^\n]+\nCheck: [^\n]+\nFix: [^\n]+\n$/,
    ],
    ['reasons label_on_owner', {}, 0, /^label_on_owner\n/],
    // As an Event or a condition has it.
    ['reasons BindingMissing', {}, 0, /^binding_missing \(HTTP 400\)\n/],
    ['reasons Type0OnKarpenter', {}, 0, /^type_0_on_karpenter\n/],
    ['reasons BindingMising', {}, 2, /Did you mean BindingMissing\?/],
    ['reasons binding_missing -o json', {}, 0, /"status": 400/],
    ['reasons', {}, 0, /^CODE +STATUS +MEANING\n[^]*\nupstream_down +503 /],
    ['reasons -o yaml', {}, 0, /code: upstream_down/],
    [
      'reasons federation_refused',
      {},
      0,
      /Fix: .*az identity federated-credential create for a managed identity, az ad app federated-credential create for an application/,
    ],
    ['reasons binding_mising', {}, 2, /Did you mean binding_missing\?/],
    ['reasons constructor', {}, 2, /List them: kubectl nmi reasons/],
  ]);
});

describe('kubectl nmi version', () => {
  follow([['version', {}, 0, /^0\.0\.0-source [^\n]*\n$/]]);
});
