import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { identityGrants } from '../../../../src/kubectl/cluster/resources.ts';
import {
  type Recorded,
  boundTestBed,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  kinds,
  play,
} from '../../../kubectl/support/recorded-kubectl.ts';

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
};

describe('kubectl nmi analyze', () => {
  it('finds nothing in a namespace without problems', async () => {
    const { code, stdout } = await play('analyze --exit-code', boundTestBed());
    assert.equal(code, 0);
    assert.equal(stdout, '0 errors, 0 warnings, 0 info of 1 pods\n');
  });

  it('finds problems in all namespaces, above a threshold', async () => {
    const testBed = boundTestBed({
      pods: [createPod('web', { labels: { aadpodidbinding: 'order' } }), createAgentPod('node-1')],
      [kinds.identities]: [
        createIdentity('orders'),
        createIdentity('idle', {}, { namespace: 'x' }),
      ],
      [kinds.bindings]: [createBinding('orders')],
    });
    const own = await play('analyze', testBed);
    assert.match(own.stdout, / of 1 pods\n/);
    const all = await play('analyze -A --exit-code', testBed);
    assert.equal(all.code, 1);
    assert.match(all.stdout, /2 errors, 0 warnings, 2 info of 2 pods/);
    const errors = await play('analyze -A --exit-code --threshold error', testBed);
    assert.equal(errors.code, 1);
    assert.doesNotMatch(errors.stdout, /identity_unbound/);
  });

  it('fails on what --fail-on names alone', async () => {
    const unbound = { [kinds.identities]: [createIdentity('orders'), createIdentity('idle')] };
    const warned = boundTestBed({
      pods: [createPod('web', { labels: { aadpodidbinding: 'order' } })],
    });
    for (const [testBed, flag, expected] of [
      [warned, [], 1],
      [warned, ['--fail-on=none'], 0],
      [warned, ['--fail-on=none', '--exit-code'], 1],
      [boundTestBed(unbound), [], 0],
      [boundTestBed(unbound), ['--fail-on=info'], 1],
    ] as const) {
      const { code } = await play(['analyze', ...flag], testBed);
      assert.equal(code, expected, flag.join(' '));
    }
  });

  it('checks files before they are applied, without a cluster', async () => {
    const { code, stdout, calls } = await play('analyze -f bad.yaml --exit-code -n shop', {
      files,
    });
    assert.equal(code, 1);
    assert.deepEqual(calls, []);
    assert.match(stdout, /AzureIdentityBinding shop\/b: identity_missing/);
    assert.match(stdout, /Deployment shop\/web: label_on_owner/);
    assert.match(stdout, / in these files; what the cluster has beside them is not known\n$/);
  });

  it('finds nothing in a grant', async () => {
    const grant = `
kind: AzureIdentityGrant
metadata: { name: shop }
spec: { namespaces: [shop], clientIDs: [22729e47-74ce-4b43-8eea-aab5f2073301] }
`;
    const { code, stdout } = await play('analyze -f grant.yaml --fail-on=info', {
      files: { 'grant.yaml': grant },
    });
    assert.equal(code, 0, stdout);
  });

  it('refuses files that it cannot read', async () => {
    assert.match(
      (await play('analyze -f none.yaml', { files })).stderr,
      /file none\.yaml cannot be read/,
    );
    const broken = await play('analyze -f broken.yaml', { files });
    assert.equal(broken.code, 2);
    assert.match(broken.stderr, /broken\.yaml is no YAML/);
  });

  it('names what it could not check in one line, and with -v why', async () => {
    const testBed = { ...boundTestBed(), forbidden: { nodes: 'everywhere' } as const };
    const brief = await play('analyze', testBed);
    assert.match(brief.stdout, /^Not checked \(1; -v shows why\): .+\.$/m);
    assert.doesNotMatch(brief.stdout, /RBAC rule/);
    const all = await play('analyze -v', testBed);
    assert.match(all.stdout, /^Not checked:\n.+\n +cannot .+ RBAC rule: /m);
  });

  it('reports the rest beside a policy with a CIDR that is none', async () => {
    const spec = { podSelector: {}, egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/33' } }] }] };
    const testBed = boundTestBed({
      [kinds.policies]: [createObject('NetworkPolicy', 'p', spec)],
      [kinds.identities]: [createIdentity('orders'), createIdentity('idle')],
    });
    const { code, stdout } = await play('analyze -A', testBed);
    assert.equal(code, 0);
    assert.match(stdout, /^0 errors, 0 warnings, 1 info of 2 pods$/m);
  });

  it('refuses a namespace that does not exist', async () => {
    assert.match(
      (await play('analyze -n nope', boundTestBed())).stderr,
      /namespace nope does not exist/,
    );
    const nothing = await play('analyze -A', boundTestBed({ pods: [] }));
    assert.deepEqual([nothing.code, nothing.stderr], [0, '']);
    const hidden = boundTestBed({ namespaces: [] });
    assert.deepEqual((await play('analyze', hidden)).code, 0, 'pods prove that it exists');
  });
});

const clientID = '22729e47-74ce-4b43-8eea-aab5f2073301';

const namespace = 'shop';

const objects = {
  [kinds.identities]: [
    createIdentity('till', { type: 0, clientID }, { namespace }),
    createIdentity('unbound', { type: 0, clientID }, { namespace }),
  ],
  pods: [createPod('till', { namespace, labels: { aadpodidbinding: 'till' } })],
  [kinds.bindings]: [
    createBinding('till', { azureIdentity: 'till', selector: 'till' }, { namespace }),
  ],
  [kinds.exceptions]: [
    createObject(
      'AzurePodIdentityException',
      'x',
      { podLabels: { app: 'addon' } },
      { namespace: 'kube-system' },
    ),
  ],
};

const ban = (resource: string): Recorded => ({ objects, forbidden: { [resource]: 'everywhere' } });

describe('kubectl nmi grants', () => {
  it('prints what the cluster needs, and leaves exceptions to a person', async () => {
    const { code, stdout, stderr } = await play('grants', { objects });
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(
      stdout,
      /^# {3}namespaces: \["kube-system"\]\n# {3}nodeIdentities: true {2}# gives/m,
    );
    assert.ok(stdout.includes(`clientIDs:\n    - "${clientID}"  # AzureIdentity till\n`), stdout);
  });

  it('prints those of one namespace with -n, and refuses one that does not exist', async () => {
    const namespaces = [{ metadata: { name: namespace } }, { metadata: { name: 'empty' } }];
    const here = { objects: { ...objects, namespaces } };
    const { code, stdout } = await play(['grants', '-n', namespace], here);
    assert.equal(code, 0);
    assert.match(stdout, /^ {2}namespaces: \["shop"\]$/m);
    assert.doesNotMatch(stdout, /kube-system/);
    const empty = await play('grants -n empty --exit-code', here);
    assert.deepEqual([empty.code, empty.stdout], [0, '']);
    const unknown = await play('grants -n shpo', here);
    assert.deepEqual([unknown.code, unknown.stdout], [1, '']);
    assert.match(unknown.stderr, /^error: namespace shpo does not exist\n/);
  });

  it('fails with --exit-code while one is missing', async () => {
    assert.equal((await play('grants --exit-code', { objects })).code, 1);
    assert.equal((await play('grants --exit-code')).code, 0);
  });

  it('prints a single grant too', async () => {
    const { stdout } = await play('grants', { objects: { ...objects, [kinds.exceptions]: [] } });
    assert.equal(stdout.match(/^kind: AzureIdentityGrant$/gm)?.length, 1);
  });

  it('prints nothing if all is granted', async () => {
    const all = { namespaces: ['*'], clientIDs: [clientID] };
    const granted = {
      ...objects,
      [kinds.exceptions]: [],
      [identityGrants]: [createObject('AzureIdentityGrant', 'all', all, { namespace: '' })],
    };
    const { stdout, stderr } = await play('grants', { objects: granted });
    assert.equal(stdout, '');
    assert.match(stderr, /^every identity in use has a grant$/m);
  });

  it('needs every grant if their kind is not installed', async () => {
    const { stdout } = await play('grants', { objects, missing: [identityGrants] });
    assert.match(stdout, /kind: AzureIdentityGrant/);
  });

  it('prints nothing if it cannot read one of the kinds', async () => {
    for (const kind of [kinds.bindings, identityGrants, 'pods', 'nodes']) {
      const { code, stdout, stderr } = await play('grants', ban(kind));
      assert.notEqual(code, 0, kind);
      assert.equal(stdout, '', kind);
      assert.match(stderr, new RegExp(`list ${kind}`));
    }
    const { code } = await play('grants', { objects, missing: [kinds.identities] });
    assert.notEqual(code, 0);
  });
});

describe('kubectl nmi reasons', () => {
  it('prints the page of a reason, and of a finding', async () => {
    const reason = await play('reasons binding_missing');
    assert.match(
      reason.stdout,
      /^binding_missing \(HTTP 400\)\nNo AzureIdentityBinding [^\n]+\nCheck: [^\n]+\nFix: [^\n]+\n$/,
    );
    assert.match((await play('reasons label_on_owner')).stdout, /^label_on_owner\n/);
    const json = await play('reasons binding_missing -o json');
    assert.equal((JSON.parse(json.stdout) as { status: number }).status, 400);
  });

  it('lists them all', async () => {
    assert.match(
      (await play('reasons')).stdout,
      /^CODE +STATUS +MEANING\n[^]*\nupstream_down +503 /,
    );
    assert.equal((await play('reasons -o yaml')).code, 0);
  });

  it('fits managed identities and applications where Azure has a command for each', async () => {
    const { stdout } = await play('reasons federation_refused');
    assert.match(
      stdout,
      /Fix: .*az identity federated-credential create for a managed identity, az ad app federated-credential create for an application/,
    );
  });

  it('suggests a code', async () => {
    const slip = await play('reasons binding_mising');
    assert.equal(slip.code, 2);
    assert.match(slip.stderr, /Did you mean binding_missing\?/);
    assert.match((await play('reasons constructor')).stderr, /List them: kubectl nmi reasons/);
  });
});

describe('kubectl nmi version', () => {
  it('is that of the plugin', async () => {
    const { stdout, calls } = await play('version');
    assert.match(stdout, /^0\.0\.0-source [^\n]*\n$/);
    assert.deepEqual(calls, []);
  });
});
