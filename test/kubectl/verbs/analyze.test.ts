import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  boundTestBed,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  kinds,
  play,
} from '../support/recorded-kubectl.ts';

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
    const { code, stdout } = await play(['analyze', '--exit-code'], boundTestBed());
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
    const own = await play(['analyze'], testBed);
    assert.match(own.stdout, / of 1 pods\n/);
    const all = await play(['analyze', '-A', '--exit-code'], testBed);
    assert.equal(all.code, 1);
    assert.match(all.stdout, /2 errors, 0 warnings, 2 info of 2 pods/);
    const errors = await play(['analyze', '-A', '--exit-code', '--threshold', 'error'], testBed);
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
    const { code, stdout, calls } = await play(
      ['analyze', '-f', 'bad.yaml', '--exit-code', '-n', 'shop'],
      { files },
    );
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
    const { code, stdout } = await play(['analyze', '-f', 'grant.yaml', '--fail-on=info'], {
      files: { 'grant.yaml': grant },
    });
    assert.equal(code, 0, stdout);
  });

  it('refuses files that it cannot read', async () => {
    assert.match(
      (await play(['analyze', '-f', 'none.yaml'], { files })).stderr,
      /file none\.yaml cannot be read/,
    );
    const broken = await play(['analyze', '-f', 'broken.yaml'], { files });
    assert.equal(broken.code, 2);
    assert.match(broken.stderr, /broken\.yaml is no YAML/);
  });

  it('names what it could not check in one line, and with -v why', async () => {
    const testBed = { ...boundTestBed(), forbidden: { nodes: 'everywhere' } as const };
    const brief = await play(['analyze'], testBed);
    assert.match(brief.stdout, /^Not checked \(1; -v shows why\): .+\.$/m);
    assert.doesNotMatch(brief.stdout, /RBAC rule/);
    const all = await play(['analyze', '-v'], testBed);
    assert.match(all.stdout, /^Not checked:\n.+\n +cannot .+ RBAC rule: /m);
  });

  it('reports the rest beside a policy with a CIDR that is none', async () => {
    const spec = { podSelector: {}, egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/33' } }] }] };
    const testBed = boundTestBed({
      [kinds.policies]: [createObject('NetworkPolicy', 'p', spec)],
      [kinds.identities]: [createIdentity('orders'), createIdentity('idle')],
    });
    const { code, stdout } = await play(['analyze', '-A'], testBed);
    assert.equal(code, 0);
    assert.match(stdout, /^0 errors, 0 warnings, 1 info of 2 pods$/m);
  });

  it('refuses a namespace that does not exist', async () => {
    assert.match(
      (await play(['analyze', '-n', 'nope'], boundTestBed())).stderr,
      /namespace nope does not exist/,
    );
    const nothing = await play(['analyze', '-A'], boundTestBed({ pods: [] }));
    assert.deepEqual([nothing.code, nothing.stderr], [0, '']);
    const hidden = boundTestBed({ namespaces: [] });
    assert.deepEqual((await play(['analyze'], hidden)).code, 0, 'pods prove that it exists');
  });
});
