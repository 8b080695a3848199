import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { identityGrants } from '../../../src/kubectl/cluster/resources.ts';
import {
  createBinding,
  createIdentity,
  createObject,
  createPod,
  kinds,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

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
    const { code, stdout, stderr } = await play(['grants'], { objects });
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
    const empty = await play(['grants', '-n', 'empty', '--exit-code'], here);
    assert.deepEqual([empty.code, empty.stdout], [0, '']);
    const unknown = await play(['grants', '-n', 'shpo'], here);
    assert.deepEqual([unknown.code, unknown.stdout], [1, '']);
    assert.match(unknown.stderr, /^error: namespace shpo does not exist\n/);
  });

  it('fails with --exit-code while one is missing', async () => {
    assert.equal((await play(['grants', '--exit-code'], { objects })).code, 1);
    assert.equal((await play(['grants', '--exit-code'])).code, 0);
  });

  it('prints a single grant too', async () => {
    const { stdout } = await play(['grants'], { objects: { ...objects, [kinds.exceptions]: [] } });
    assert.equal(stdout.match(/^kind: AzureIdentityGrant$/gm)?.length, 1);
  });

  it('prints nothing if all is granted', async () => {
    const all = { namespaces: ['*'], clientIDs: [clientID] };
    const granted = {
      ...objects,
      [kinds.exceptions]: [],
      [identityGrants]: [createObject('AzureIdentityGrant', 'all', all, { namespace: '' })],
    };
    const { stdout, stderr } = await play(['grants'], { objects: granted });
    assert.equal(stdout, '');
    assert.match(stderr, /^every identity in use has a grant$/m);
  });

  it('needs every grant if their kind is not installed', async () => {
    const { stdout } = await play(['grants'], { objects, missing: [identityGrants] });
    assert.match(stdout, /kind: AzureIdentityGrant/);
  });

  it('prints nothing if it cannot read one of the kinds', async () => {
    for (const kind of [kinds.bindings, identityGrants, 'pods', 'nodes']) {
      const { code, stdout, stderr } = await play(['grants'], ban(kind));
      assert.notEqual(code, 0, kind);
      assert.equal(stdout, '', kind);
      assert.match(stderr, new RegExp(`list ${kind}`));
    }
    const { code } = await play(['grants'], { objects, missing: [kinds.identities] });
    assert.notEqual(code, 0);
  });
});
