/**
 * What the verbs of `kubectl nmi` with --apply write into objects that have other owners, by the managed fields and the
 * clock of a real server and by the real kubectl.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { asRecord, stringAt } from '../../src/base/json-value.ts';
import { metadataOf, recordsAt, type RawObject } from '../../src/kubectl/base/object.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';
import { machineOf, ordersId, runOn, tenant } from './support/plugin.ts';

const clientId = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
const otherId = '9a0b7c66-5f0e-4c64-b7f4-6bfb5e1d2a10';
const key = 'azure.workload.identity/client-id';

/** An identity, its binding, and a pod of the service account `robot`. */
const bound = (namespace: string, spec: string) => `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: orders, namespace: ${namespace}, labels: { team: shop } }
spec: { clientID: ${clientId}, ${spec} }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: orders, namespace: ${namespace} }
spec: { azureIdentity: orders, selector: orders, serviceAccount: robot }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: ${namespace}, labels: { aadpodidbinding: orders } }
spec: { serviceAccountName: robot, nodeName: aks-default-x7, containers: [{ name: web, image: web }] }
`;
const karpenterNode = `
apiVersion: v1
kind: Node
metadata: { name: aks-default-x7, labels: { karpenter.sh/nodepool: default } }
`;
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

describeOnNewestVersion('a verb with --apply', (cluster) => {
  const run = (namespace: string, ...words: readonly string[]) =>
    runOn(machineOf(cluster()), [...words, '-n', namespace]);
  const specIn = async (namespace: string): Promise<RawObject | undefined> => {
    const path = `/apis/aadpodidentity.k8s.io/v1/namespaces/${namespace}/azureidentities/orders`;
    return asRecord((await cluster().admin.expect('GET', path))['spec']);
  };

  before(async () => {
    const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
    await cluster().apply(await readFile(crds, 'utf8'));
    await cluster().apply(karpenterNode);
    for (const name of ['shop', 'other', 'type-0']) {
      await cluster().createNamespace(name);
      await cluster().apply(account(name));
    }
    await cluster().applyOverHttp(ofSecondOwner);
    await cluster().applyOverHttp(bound('shop', 'type: 3, tenantID: contoso.example'));
    const type0 = `type: 0, resourceID: ${ordersId}, allowedResources: [https://vault.azure.net]`;
    await cluster().apply(bound('type-0', type0));
  });

  describe('to-federation, with an identity of type 0 on nodes of Karpenter', () => {
    it('is found by analyze', async () => {
      const { stdout, stderr } = await run('type-0', 'analyze');
      assert.match(
        stdout,
        /warning AzureIdentity type-0\/orders: type_0_on_karpenter\n/,
        `${stdout}\n${stderr}`,
      );
    });

    it('is refused by the server with a tenant that cannot be one', async () => {
      const then = await specIn('type-0');
      const { code, stderr } = await run(
        ...['type-0', 'migrate', 'to-federation', '--tenant-id', 'no tenant', '--apply'],
      );
      assert.notEqual(code, 0);
      assert.match(stderr, /need a tenant, as a GUID or a domain name/);
      assert.deepEqual(await specIn('type-0'), then);
    });

    it('becomes type 3, and all else of it stays', async () => {
      const words = ['migrate', 'to-federation', '--tenant-id', tenant];
      const then = await specIn('type-0');
      const shown = await run('type-0', ...words);
      assert.match(
        shown.stdout,
        /^# az identity .* --subject system:serviceaccount:type-0:robot /m,
      );
      assert.deepEqual(await specIn('type-0'), then);
      const { code, stderr } = await run('type-0', ...words, '--apply');
      assert.equal(code, 0, stderr);
      assert.deepEqual(await specIn('type-0'), { ...then, type: 3, tenantID: tenant });
      assert.match(
        (await run('type-0', ...words)).stderr,
        /namespace type-0 has no AzureIdentity of type 0/,
      );
      assert.doesNotMatch((await run('type-0', 'analyze')).stdout, /type_0_on_karpenter/);
    });

    it('is not changed by the line that was shown, if its type is another meanwhile', async () => {
      const patch = [
        { op: 'test', path: '/spec/type', value: 0 },
        { op: 'add', path: '/spec/type', value: 3 },
      ];
      await assert.rejects(
        cluster().kubectl([
          ...['patch', 'azureidentities.aadpodidentity.k8s.io', 'orders', '--namespace=type-0'],
          ...['--type=json', '--field-manager=kubectl-nmi', `--patch=${JSON.stringify(patch)}`],
        ]),
        /The request is invalid/,
      );
    });
  });

  describe('to-workload-identity, with service accounts', () => {
    const read = (namespace: string): Promise<RawObject> =>
      cluster().admin.expect('GET', `/api/v1/namespaces/${namespace}/serviceaccounts/robot`);

    const migrate = () => run('shop', 'migrate', 'to-workload-identity', '--apply');

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

  describe('identity revoke', () => {
    const revoke = () => run('shop', 'identity', 'revoke', 'orders', '--apply');

    it('has the time of the server, although the clock of the machine is ten minutes ahead', async () => {
      const earliestMs = Math.floor(Date.now() / 1000) * 1000;
      const { code, stderr } = await revoke();
      assert.equal(code, 0, stderr);
      const notBefore = stringAt(await specIn('shop'), 'notBefore');
      const atMs = Date.parse(notBefore);
      assert.ok(atMs >= earliestMs && atMs <= Date.now(), notBefore);
    });

    it('fails where the definition is older, and says so', async () => {
      const crd =
        '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/azureidentities.aadpodidentity.k8s.io';
      const field = '/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/notBefore';
      const steps = [{ op: 'remove', path: field }];
      const contentType = 'application/json-patch+json';
      await cluster().admin.expect('PATCH', crd, steps, { contentType });
      await eventually(async () => {
        const { code, stderr } = await revoke();
        assert.equal(code, 1, 'the server has not taken the definition over yet');
        assert.match(stderr, /is not revoked: the cluster does not keep its spec\.notBefore/);
      }, 20_000);
    });
  });
});
