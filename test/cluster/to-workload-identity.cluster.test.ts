/**
 * What `kubectl nmi migrate to-workload-identity --apply` writes into service accounts that have
 * other owners, by the managed fields of a real server and the real kubectl.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { asRecord } from '../../src/base/json-value.ts';
import { metadataOf, recordsAt, type RawObject } from '../../src/kubectl/base/object.ts';
import { runOn } from '../kubectl/support/real-kubectl.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';

const clientId = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
const otherId = '9a0b7c66-5f0e-4c64-b7f4-6bfb5e1d2a10';
const key = 'azure.workload.identity/client-id';

const account = (namespace: string) => `
apiVersion: v1
kind: ServiceAccount
metadata:
  name: robot
  namespace: ${namespace}
  labels: { team: shop }
  annotations: { eks.example.org/role: orders }
automountServiceAccountToken: false
imagePullSecrets: [{ name: pull }]
secrets: [{ name: old-token }]
`;

/** What a second program owns of the same object. */
const ofSecondOwner = `
apiVersion: v1
kind: ServiceAccount
metadata:
  name: robot
  namespace: shop
  annotations: { mesh.example.org/inject: 'true' }
`;

const bound = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: orders, namespace: shop }
spec: { type: 3, clientID: ${clientId}, tenantID: contoso.example }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: orders, namespace: shop }
spec: { azureIdentity: orders, selector: orders }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { aadpodidbinding: orders } }
spec: { serviceAccountName: robot, containers: [{ name: web, image: web }] }
`;

describeOnNewestVersion('service accounts on the way to Workload Identity', (cluster) => {
  const read = (namespace: string): Promise<RawObject> =>
    cluster().admin.expect('GET', `/api/v1/namespaces/${namespace}/serviceaccounts/robot`);

  const migrate = () => {
    const { binaries, adminKubeconfig, folder } = cluster();
    return runOn({ kubectl: binaries.kubectl, kubeconfig: adminKubeconfig, home: folder }, [
      'migrate',
      'to-workload-identity',
      '-n',
      'shop',
      '--apply',
    ]);
  };

  /** Without what changes with every write. */
  const contentOf = (object: RawObject): object => {
    const { managedFields: _, resourceVersion: __, ...metadata } = metadataOf(object);
    return { ...object, metadata };
  };
  const annotated = (object: RawObject): object => {
    const annotations = asRecord(metadataOf(object)['annotations']);
    const ours = { [key]: clientId, 'azure.workload.identity/tenant-id': 'contoso.example' };
    const metadata = { ...metadataOf(object), annotations: { ...annotations, ...ours } };
    return contentOf({ ...object, metadata });
  };
  const managersOf = (object: RawObject) => recordsAt(metadataOf(object), 'managedFields');

  before(async () => {
    await cluster().apply(
      await readFile(join(import.meta.dirname, '../../deploy/crds.yaml'), 'utf8'),
    );
    for (const name of ['shop', 'other']) {
      await cluster().createNamespace(name);
      await cluster().apply(account(name));
    }
    await cluster().applyOverHttp(ofSecondOwner);
    await cluster().applyOverHttp(bound);
  });

  it('gain annotations; what their owners wrote stays, and stays theirs', async () => {
    const [shop, other] = [await read('shop'), await read('other')];
    const { code, stderr } = await migrate();
    assert.equal(code, 0, stderr);
    const after = await read('shop');
    assert.deepEqual(contentOf(after), annotated(shop));
    const [ours] = managersOf(after).filter((each) => each['manager'] === 'kubectl-nmi');
    assert.deepEqual(ours?.['fieldsV1'], {
      'f:metadata': {
        'f:annotations': { [`f:${key}`]: {}, 'f:azure.workload.identity/tenant-id': {} },
      },
    });
    assert.deepEqual(
      managersOf(after).filter((each) => each !== ours),
      managersOf(shop),
    );
    assert.deepEqual(await read('other'), other);
  });

  it('are not written a second time', async () => {
    const shop = await read('shop');
    assert.equal((await migrate()).code, 0);
    assert.deepEqual(await read('shop'), shop);
  });

  it('keep the annotations when their owners apply again', async () => {
    const shop = await read('shop');
    await cluster().apply(account('shop').replace('team: shop', 'team: checkout'));
    await cluster().apply(account('shop'));
    await cluster().applyOverHttp(ofSecondOwner);
    assert.deepEqual(contentOf(await read('shop')), contentOf(shop));
  });

  it('keep what another owner wrote in the place of ours', async () => {
    await cluster().kubectl([
      ...['annotate', 'serviceaccount', 'robot', '-n', 'shop', '--overwrite'],
      `${key}=${otherId}`,
    ]);
    const shop = await read('shop');
    const { code, stdout } = await migrate();
    assert.equal(code, 1);
    assert.match(
      stdout,
      /Service account shop\/robot is left out: its annotation .*client-id is "9a/,
    );
    assert.deepEqual(await read('shop'), shop);
  });

  it('are not overwritten by kubectl between our read and our write', async () => {
    // The words that the plugin runs, when somebody else wrote meanwhile.
    await assert.rejects(
      cluster().kubectl([
        ...['annotate', 'serviceaccount', 'robot', '--namespace=shop'],
        ...['--field-manager=kubectl-nmi', `${key}=${clientId}`],
      ]),
      /already has a value \(9a0b7c66/,
    );
  });
});
