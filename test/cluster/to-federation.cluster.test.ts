/**
 * `kubectl nmi migrate to-federation --apply` on a real server: what it writes into an AzureIdentity that
 * has another owner, and what the server refuses.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { asRecord } from '../../src/base/json-value.ts';
import type { RawObject } from '../../src/kubectl/base/object.ts';
import { ordersId, tenant } from '../kubectl/support/fake-az.ts';
import { runOn } from '../kubectl/support/real-kubectl.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';

const clientId = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
const objects = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: orders, namespace: shop, labels: { team: shop } }
spec: { type: 0, clientID: ${clientId}, resourceID: ${ordersId}, allowedResources: [https://vault.azure.net] }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: orders, namespace: shop }
spec: { azureIdentity: orders, selector: orders, serviceAccount: robot }
---
apiVersion: v1
kind: Node
metadata: { name: aks-default-x7, labels: { karpenter.sh/nodepool: default } }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { aadpodidbinding: orders } }
spec: { serviceAccountName: robot, nodeName: aks-default-x7, containers: [{ name: web, image: web }] }
`;

describeOnNewestVersion('an identity of type 0 on nodes of Karpenter', (cluster) => {
  const run = (...words: readonly string[]) => {
    const { binaries, adminKubeconfig, folder } = cluster();
    const machine = { kubectl: binaries.kubectl, kubeconfig: adminKubeconfig, home: folder };
    return runOn(machine, [...words, '-n', 'shop']);
  };
  const specNow = async (): Promise<RawObject | undefined> => {
    const path = '/apis/aadpodidentity.k8s.io/v1/namespaces/shop/azureidentities/orders';
    return asRecord((await cluster().admin.expect('GET', path))['spec']);
  };

  before(async () => {
    const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
    await cluster().apply(await readFile(crds, 'utf8'));
    await cluster().createNamespace('shop');
    await cluster().apply(
      'apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: robot, namespace: shop }\n',
    );
    await cluster().apply(objects);
  });

  it('is found by analyze', async () => {
    const { stdout, stderr } = await run('analyze');
    assert.match(
      stdout,
      /warning AzureIdentity shop\/orders: type_0_on_karpenter\n/,
      `${stdout}\n${stderr}`,
    );
  });

  it('is refused by the server with a tenant that cannot be one', async () => {
    const then = await specNow();
    const { code, stderr } = await run(
      ...['migrate', 'to-federation', '--tenant-id', 'no tenant', '--apply'],
    );
    assert.notEqual(code, 0);
    assert.match(stderr, /need a tenant, as a GUID or a domain name/);
    assert.deepEqual(await specNow(), then);
  });

  it('becomes type 3, and all else of it stays', async () => {
    const words = ['migrate', 'to-federation', '--tenant-id', tenant];
    const then = await specNow();
    const shown = await run(...words);
    assert.match(shown.stdout, /^# az identity .* --subject system:serviceaccount:shop:robot /m);
    assert.deepEqual(await specNow(), then);
    const { code, stderr } = await run(...words, '--apply');
    assert.equal(code, 0, stderr);
    assert.deepEqual(await specNow(), { ...then, type: 3, tenantID: tenant });
    assert.match((await run(...words)).stderr, /namespace shop has no AzureIdentity of type 0/);
    assert.doesNotMatch((await run('analyze')).stdout, /type_0_on_karpenter/);
  });

  it('is not changed by the line that was shown, if its type is another meanwhile', async () => {
    const patch = [
      { op: 'test', path: '/spec/type', value: 0 },
      { op: 'add', path: '/spec/type', value: 3 },
    ];
    await assert.rejects(
      cluster().kubectl([
        ...['patch', 'azureidentities.aadpodidentity.k8s.io', 'orders', '--namespace=shop'],
        ...['--type=json', '--field-manager=kubectl-nmi', `--patch=${JSON.stringify(patch)}`],
      ]),
      /The request is invalid/,
    );
  });
});
