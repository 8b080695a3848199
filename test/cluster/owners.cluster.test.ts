/**
 * Owners of identities on real servers: the agent's view of grants, and the policy.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import type { Binding, Exception, Identity, Pod } from '../../src/cache/index/objects.ts';
import { OwnerIndex } from '../../src/cache/index/owner-index.ts';
import { openKubeClient } from '../../src/nmi/kube/api/client.ts';
import { openWatches } from '../../src/nmi/kube/watch/watches.ts';
import { keptLog, MapStore, quick } from '../unit/nmi/kube/kube-test-bed.ts';
import { readOldDefinitions } from './support/go-module.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const read = (path: string): Promise<string> => readFile(join(deploy, path), 'utf8');
const group = 'aadpodidentity.k8s.io';
const root = `/apis/${group}/v1`;
const grantsPath = `${root}/azureidentitygrants`;
const agent = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const tillId = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
const freeId = '431054d5-1b5d-4836-8331-11abcaa2c1d9';
const resourceId =
  '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/till';
const mergePatch = { contentType: 'application/merge-patch+json' };

function objectOf(kind: string, name: string, spec: object) {
  return { apiVersion: `${group}/v1`, kind, metadata: { name }, spec };
}

describeOnNewestVersion('owners of identities', (cluster) => {
  const createGrant = (name: string, spec: object) =>
    cluster().admin.expect('POST', grantsPath, objectOf('AzureIdentityGrant', name, spec));
  const deleteGrant = (name: string) => cluster().admin.expect('DELETE', `${grantsPath}/${name}`);

  /** The agent's watches, and the owners that they find. */
  async function openAgentWatches() {
    await using opening = new AsyncDisposableStack();
    const { kubeconfigPath } = await cluster().createServiceAccountClient(agent);
    const client = opening.use(await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1' }));
    const owners = new OwnerIndex();
    const watches = opening.use(
      openWatches({
        client,
        node: 'node-a',
        enforcesOwners: false,
        log: keptLog(),
        stores: {
          pods: new MapStore<Pod>(),
          identities: new MapStore<Identity>(),
          bindings: new MapStore<Binding>(),
          exceptions: new MapStore<Exception>(),
          grants: owners.grants,
        },
        timing: { ...quick, absentEveryMs: 200 },
      }),
    );
    await watches.whenSynced();
    const opened = opening.move();
    return { owners, [Symbol.asyncDispose]: () => opened.disposeAsync() };
  }

  before(async () => {
    // The rules of the replaced system, as in a cluster in which only the image was exchanged.
    await cluster().apply(readOldDefinitions());
    await cluster().kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
    await eventually(async () => cluster().apply(await read('nmi.yaml')));
    for (const name of ['shop', 'thief']) await cluster().createNamespace(name);
  });

  it('are none without the kind or the permission, and appear when both exist', async () => {
    const role = `/apis/rbac.authorization.k8s.io/v1/clusterroles/aad-pod-id-nmi-role`;
    const { rules } = await cluster().admin.expect('GET', role);
    const kinds = ['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'];
    const old = [
      { apiGroups: [''], resources: ['pods'], verbs: ['list', 'watch'] },
      { apiGroups: [group], resources: kinds, verbs: ['list', 'watch'] },
    ];
    await cluster().admin.expect('PATCH', role, { rules: old }, mergePatch);
    await using withoutRight = await openAgentWatches();
    await cluster().admin.expect('PATCH', role, { rules }, mergePatch);
    await using withoutKind = await openAgentWatches();
    for (const { owners } of [withoutRight, withoutKind]) assert.equal(owners.grants.size, 0);

    await cluster().apply(await read('crds.yaml'));
    await cluster().kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
    await createGrant('shop', { namespaces: ['shop'], clientIDs: [tillId.toUpperCase()] });
    for (const { owners } of [withoutRight, withoutKind]) {
      await eventually(() => {
        assert.equal(owners.grantOfClientId('shop', tillId) !== undefined, true);
        return Promise.resolve();
      }, 10_000);
      assert.equal(owners.grantOfClientId('thief', tillId) !== undefined, false);
    }
    await deleteGrant('shop');
    await eventually(() => {
      assert.equal(withoutKind.owners.grantOfClientId('shop', tillId) !== undefined, false);
      return Promise.resolve();
    });
  });

  describe('by the policy', () => {
    const create = (namespace: string, spec: object) => {
      const path = `${root}/namespaces/${namespace}/azureidentities?dryRun=All`;
      return cluster().admin.request('POST', path, objectOf('AzureIdentity', 'x', spec));
    };
    const refusal = async (namespace: string, spec: object): Promise<string> => {
      const { status, body } = await create(namespace, spec);
      if (status === 201) return '';
      assert.equal(status, 403);
      return body.message ?? '';
    };
    const ofTill = { clientID: tillId };

    before(async () => {
      await cluster().apply(await read('policies/identity-owners.yaml'));
      await createGrant('till', {
        namespaces: ['shop'],
        clientIDs: [tillId],
        resourceIDs: [resourceId],
      });
      await eventually(async () => {
        assert.match(await refusal('thief', ofTill), /belongs to the namespaces/);
      }, 30_000);
    });

    it('no identity may name an id that a grant gives to other namespaces', async () => {
      assert.match(
        await refusal('thief', { clientID: ` ${tillId.toUpperCase()} ` }),
        new RegExp(
          `the client id ${tillId} belongs to the namespaces of AzureIdentityGrant till: an administrator of ` +
            'the cluster has to add namespace thief to it',
        ),
      );
      const resourceID = resourceId
        .toUpperCase()
        .replace('MICROSOFT.MANAGEDIDENTITY', 'Microsoft.ManagedIdentity')
        .replace('USERASSIGNEDIDENTITIES', 'userAssignedIdentities');
      assert.match(
        await refusal('thief', { resourceID }),
        /the resource id .*AzureIdentityGrant till/,
      );
      const byAgent = { type: 3, tenantID: tillId, federation: 'node', ...ofTill };
      assert.match(await refusal('thief', byAgent), /the client id/);
      const chain = { type: 4, clientID: freeId, application: { tenantID: tillId, ...ofTill } };
      assert.match(await refusal('thief', chain), /the client id/);
      assert.equal(await refusal('thief', { ...chain, agentIdentity: freeId }), '');
      const other = { tenantID: tillId, clientID: freeId };
      const ofAgent = { ...chain, application: other, agentIdentity: tillId };
      assert.match(await refusal('thief', ofAgent), /the client id/);
      assert.equal(await refusal('thief', { ...ofAgent, clientID: '', federation: 'pod' }), '');
      assert.equal(await refusal('shop', ofTill), '');
      assert.equal(await refusal('thief', { clientID: freeId, resourceID: resourceId }), '');
    });

    it('identities with their own credential pass, and ids that no grant names', async () => {
      const secret = { type: 1, tenantID: tillId, clientPassword: { name: 's' }, ...ofTill };
      assert.equal(await refusal('thief', secret), '');
      assert.equal(await refusal('thief', { type: 3, tenantID: tillId, ...ofTill }), '');
      assert.equal(await refusal('thief', { clientID: freeId }), '');
    });

    it('an older object may change in other fields, but not to another owner’s id', async () => {
      const path = `${root}/namespaces/thief/azureidentities`;
      await cluster().admin.expect(
        'POST',
        path,
        objectOf('AzureIdentity', 'y', { clientID: freeId }),
      );
      await createGrant('free', { namespaces: ['shop'], clientIDs: [freeId] });
      await eventually(async () => {
        assert.match(await refusal('thief', { clientID: freeId }), /belongs/);
      }, 10_000);
      const patch = (body: object) =>
        cluster().admin.request('PATCH', `${path}/y`, body, mergePatch);
      assert.equal((await patch({ metadata: { labels: { a: 'b' } } })).status, 200);
      assert.equal((await patch({ spec: { clientID: tillId } })).status, 403);
      await cluster().admin.expect('DELETE', `${path}/y`);
      await deleteGrant('free');
    });
  });
});
