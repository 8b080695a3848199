/**
 * Install, upgrade and uninstall as in README and docs, followed to the letter with the real
 * kubectl and helm, starting from a real installation of the replaced project. Building and pushing
 * the image is left out: there is no tool for it here.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { afterEach, before, beforeEach, it } from 'node:test';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import { daemonSetOf, objectsOf, type Container, type KubeObject } from '../chart/chart-render.ts';
import { provideHelm } from '../support/binaries.ts';
import { playDaemonSets } from '../support/daemon-set-player.ts';
import { aadPodIdentity, provideModule } from '../support/go-module.ts';
import { describeOnNewestVersion } from '../support/on-clusters.ts';
import { allShellBlocks, shellBlocksOf } from '../support/page-commands.ts';

const root = join(import.meta.dirname, '../../..');
const [readme = '', install = '', upgradePage = ''] = await Promise.all(
  ['README.md', 'docs/install.md', 'docs/upgrade.md'].map((page) =>
    readFile(join(root, page), 'utf8'),
  ),
);
const registry = 'registry.example/team';
const helm = provideHelm();
const old = provideModule(aadPodIdentity);
const skip = helm.missing ?? false;
const skipOld = helm.missing ?? old.missing ?? false;
const oldChart = join(old.programs ?? '', 'charts/aad-pod-identity');
const oldManifest = join(old.programs ?? '', 'deploy/infra/managed-mode-deployment.yaml');

const [image = '', archive = ''] = shellBlocksOf(install, 'Build the image');
const [installRelease = ''] = shellBlocksOf(install, 'Install a release');
const [installByHelm = '', takeOver = ''] = shellBlocksOf(install, 'Install with Helm');
const [installByKubectl = ''] = shellBlocksOf(install, 'Install with kubectl');
const [canary = '', canaryEnd = ''] = shellBlocksOf(install, 'Try it on one node pool first');
const [update = '', fullNodes = ''] = shellBlocksOf(install, 'Updates');
const [bootGuard = ''] = shellBlocksOf(install, 'Nodes after a reboot');
const [fromChart = '', fromManifest = ''] = shellBlocksOf(upgradePage, 'Switch');
const [toChart = '', toManifest = ''] = shellBlocksOf(upgradePage, 'Way back');
const [uninstallByHelm = '', uninstallByKubectl = '', openLater = ''] = shellBlocksOf(
  install,
  'Uninstall',
);
const definitions = 'kubectl apply -f deploy/crds.yaml';

/** Values of a cluster in managed mode, including an identity. */
const oldValues = {
  operationMode: 'managed',
  nmi: { prometheusPort: '9091', blockInstanceMetadata: true },
  azureIdentities: {
    checkout: {
      namespace: 'shop',
      type: 0,
      clientID: '22729e47-74ce-4b43-8eea-aab5f2073309',
      resourceID:
        '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/checkout',
      binding: { name: 'checkout-binding', selector: 'checkout' },
    },
  },
};

describeOnNewestVersion('the README', (cluster) => {
  let playing: AsyncDisposable | undefined;
  let folder = '';
  let path = '';

  before(async () => {
    folder = join(cluster().folder, 'clone');
    const programs = join(cluster().folder, 'bin');
    for (const made of [folder, programs]) await mkdir(made);
    await symlink(join(root, 'deploy'), join(folder, 'deploy'));
    await writeFile(join(folder, 'old.yaml'), stringify(oldValues));
    if (helm.programs !== undefined) await symlink(helm.programs, join(programs, 'helm'));
    path = [programs, dirname(cluster().binaries.kubectl), process.env['PATH']].join(':');
    await cluster().createNamespace('shop');
  });
  beforeEach(() => {
    playing = playDaemonSets(cluster().admin);
  });
  afterEach(() => playing?.[Symbol.asyncDispose]());

  /** Typed in a clone, with the placeholders in capitals filled in. */
  async function type(script: string): Promise<string> {
    assert.notEqual(script.trim(), '');
    const filled = script
      .replaceAll('REGISTRY', registry)
      .replaceAll('NAMESPACE', 'identity')
      .replaceAll(/\bTAG\b/g, '0.1.0');
    // Rejects with the output.
    const { stdout } = await promisify(execFile)('sh', ['-euxc', filled], {
      cwd: folder,
      timeout: 120_000,
      env: { PATH: path, HOME: cluster().folder, KUBECONFIG: cluster().adminKubeconfig },
    });
    return stdout;
  }

  async function find(name: string): Promise<KubeObject | undefined> {
    const [namespace, object] = name.split('/');
    const url = `/apis/apps/v1/namespaces/${namespace ?? ''}/daemonsets/${object ?? ''}`;
    const { status, body } = await cluster().admin.request('GET', url);
    if (status === 404) return undefined;
    return { ...(body as unknown as KubeObject), kind: 'DaemonSet' };
  }

  async function uidOf(name: string): Promise<unknown> {
    const { metadata } = (await find(name)) ?? {};
    return (metadata as { readonly uid?: string } | undefined)?.uid;
  }

  /** All containers, the init containers first. */
  async function containersOf(name: string): Promise<readonly Container[]> {
    const found = await find(name);
    assert.ok(found !== undefined, `there is no ${name}`);
    const { initContainers = [], containers } = daemonSetOf([found]).template.spec;
    return [...initContainers, ...containers];
  }

  const ours = `${registry}/entra-pod-identity:0.1.0`;

  async function assertAgent(name: string): Promise<readonly string[]> {
    const containers = await containersOf(name);
    const [agent] = containers;
    // The chart has one container for each half, the manifest one for both.
    assert.ok(agent !== undefined && containers.length <= 2);
    assert.ok(containers.every((each) => each.image === ours));
    const { add } = containers.at(-1)?.securityContext.capabilities ?? {};
    assert.deepEqual(add, ['NET_ADMIN', 'NET_RAW', 'BPF']);
    const { args = [] } = agent;
    assert.ok(args.includes('--node=$(NODE_NAME)'));
    return args;
  }

  async function assertOpener(name: string): Promise<void> {
    const [opener, idle] = await containersOf(name);
    assert.deepEqual([opener?.image, idle?.image], [ours, ours]);
    assert.deepEqual(opener?.args?.slice(0, 2), ['redirect', 'remove']);
  }

  async function assertOld(name: string): Promise<void> {
    const containers = await containersOf(name);
    assert.deepEqual(
      containers.map((each) => each.image),
      ['mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17'],
    );
    const [nmi] = containers;
    assert.deepEqual(nmi?.securityContext.capabilities.add, [
      'DAC_READ_SEARCH',
      'NET_ADMIN',
      'NET_RAW',
    ]);
  }

  /** Everything that could run or be permitted; custom resources and their definitions stay. */
  async function assertNothingLeft(): Promise<void> {
    const kinds = 'daemonsets,services,serviceaccounts,clusterroles,clusterrolebindings';
    const words = ['get', kinds, '--all-namespaces', '--output=name'];
    const left = (await cluster().kubectl(words)).split('\n');
    assert.deepEqual(
      left.filter((name) => /nmi|aad-pod|entra/.test(name)),
      [],
    );
    assert.match(
      await cluster().kubectl(['get', 'crds', '--output=name']),
      /azureidentities\.aadpodidentity\.k8s\.io/,
    );
  }

  /** The whole stored object as JSON, so that a write without a change is seen as well. */
  const stateOf = (...words: readonly string[]): Promise<string> =>
    cluster().kubectl(['get', ...words, '--output=json']);

  async function runHelm(...words: readonly string[]): Promise<void> {
    await type(`helm ${words.map((word) => `'${word}'`).join(' ')}`);
  }

  it('has no command that is not typed here', () => {
    assert.match(image, /^docker build .*\ndocker push .*\n$/);
    // Its result is checked in release.image.test.ts, which types the next one too.
    assert.match(archive, /^\.\/dev image amd64 arm64\nskopeo copy .*\n$/);
    assert.deepEqual(allShellBlocks(install), [
      ...[image, archive, installRelease, installByHelm, takeOver, installByKubectl],
      ...[
        canary,
        canaryEnd,
        update,
        fullNodes,
        bootGuard,
        uninstallByHelm,
        uninstallByKubectl,
        openLater,
      ],
    ]);
    const switches = [fromChart, fromManifest, toChart, toManifest];
    // Those for the add-on are typed in guides.cluster.test.ts.
    const ofAddon = shellBlocksOf(upgradePage, 'From the add-on of AKS');
    assert.deepEqual(allShellBlocks(upgradePage), [...switches, ...ofAddon]);
    assert.equal(shellBlocksOf(readme, 'Install')[0], installByHelm);
    assert.ok(upgradePage.includes(`\`${definitions}\``));
  });

  it('installs, reports success, opens the nodes and uninstalls, by helm', { skip }, async () => {
    assert.match(await type(installByHelm), /successfully rolled out/);
    await assertAgent('kube-system/nmi');
    assert.match(await type(uninstallByHelm), /successfully rolled out/);
    await assertNothingLeft();
  });

  it('opens the nodes after the release was uninstalled', { skip }, async () => {
    await type(installByHelm);
    await type('helm uninstall nmi --namespace kube-system');
    assert.match(await type(openLater), /successfully rolled out/);
    await assertOpener('kube-system/nmi');
    await type('helm uninstall nmi --namespace kube-system');
    await assertNothingLeft();
  });

  it('updates with the new agent beside the old one, by helm', { skip }, async () => {
    await type(installByHelm);
    assert.match(await type(update), /successfully rolled out/);
    await type(fullNodes);
    await assertAgent('kube-system/nmi');
    const { updateStrategy } = daemonSetOf([(await find('kube-system/nmi')) as KubeObject]);
    assert.deepEqual(updateStrategy.rollingUpdate, { maxUnavailable: 0, maxSurge: 1 });
    const containers = await containersOf('kube-system/nmi');
    assert.ok(containers.every((each) => !('ports' in each)));
    await type(uninstallByHelm);
    await assertNothingLeft();
  });

  it(
    'guards the boot of nodes, takes the guard back when it is disabled, and then leaves it out',
    { skip },
    async () => {
      await type(installByHelm);
      const name = 'kube-system/nmi-boot-guard';
      assert.equal(await find(name), undefined);
      assert.match(await type(bootGuard), /successfully rolled out/);
      const verbOf = async () => (await containersOf(name))[0]?.args?.[1];
      assert.equal(await verbOf(), 'guard-boot');
      const disable = bootGuard.replace('enabled=true', 'enabled=false');
      await type(disable);
      assert.equal(await verbOf(), 'unguard-boot');
      await type(disable.split('\n')[0] ?? '');
      assert.equal(await find(name), undefined);
      await type(uninstallByHelm);
      await assertNothingLeft();
    },
  );

  it('opens the nodes before it removes the agent', { skip }, async () => {
    await type(installByHelm);
    const uid = await uidOf('kube-system/nmi');
    const lines = uninstallByHelm.trim().split('\n');
    await type(lines.slice(0, 2).join('\n'));
    await assertOpener('kube-system/nmi');
    assert.equal(await uidOf('kube-system/nmi'), uid);
    await type(lines.slice(2).join('\n'));
    await assertNothingLeft();
  });

  it('installs and uninstalls by kubectl', async () => {
    await type(installByKubectl);
    await assertAgent('kube-system/nmi');
    const lines = uninstallByKubectl.trim().split('\n');
    await type(lines.slice(0, 2).join('\n'));
    await assertOpener('kube-system/nmi');
    await type(lines.slice(2).join('\n'));
    await assertNothingLeft();
  });

  it('takes over by helm what kubectl installed', { skip }, async () => {
    await type(installByKubectl);
    await assert.rejects(type(installByHelm), /cannot be imported into the current release/);
    const uid = await uidOf('kube-system/nmi');
    assert.match(await type(takeOver), /successfully rolled out/);
    assert.equal((await containersOf('kube-system/nmi')).length, 2);
    await assertAgent('kube-system/nmi');
    assert.equal(await uidOf('kube-system/nmi'), uid);
    assert.match(await type(update), /successfully rolled out/);
    await type(uninstallByHelm);
    await assertNothingLeft();
  });

  it('installs a second release on one node pool, beside the first', { skip }, async () => {
    await type(installByHelm);
    const values =
      '--values old.yaml --set policies.bindingLabel=true,policies.identityOwners=true';
    await type(`helm upgrade nmi deploy/chart -n kube-system --reuse-values ${values}`);
    assert.match(await type(canary), /successfully rolled out/);
    await assertAgent('kube-system/canary-nmi');
    const poolOf = async (name: string): Promise<unknown> => {
      const { affinity, nodeSelector } = daemonSetOf([(await find(name)) as KubeObject]).template
        .spec as unknown as Record<string, unknown>;
      return [JSON.stringify(affinity).includes('"agentpool"'), nodeSelector];
    };
    assert.deepEqual(await poolOf('kube-system/nmi'), [true, { 'kubernetes.io/os': 'linux' }]);
    assert.deepEqual(await poolOf('kube-system/canary-nmi'), [
      false,
      { 'kubernetes.io/os': 'linux', agentpool: 'canary' },
    ]);
    assert.match(await type(canaryEnd), /successfully rolled out/);
    assert.equal(await find('kube-system/canary-nmi'), undefined);
    assert.deepEqual(await poolOf('kube-system/nmi'), [false, { 'kubernetes.io/os': 'linux' }]);
    await type(uninstallByHelm);
    await assertNothingLeft();
  });

  it('installs by kustomize', async () => {
    const overlay = join(folder, 'overlay');
    await mkdir(overlay);
    const kustomization = {
      resources: [relative(overlay, join(folder, 'deploy/kustomize/agent'))],
      images: [{ name: 'entra-pod-identity', newName: `${registry}/entra-pod-identity` }],
    };
    await writeFile(join(overlay, 'kustomization.yaml'), stringify(kustomization));
    await type('kubectl apply -k overlay');
    await assertAgent('kube-system/nmi');
    await type(uninstallByKubectl);
    await assertNothingLeft();
  });

  const beside = (namespace: string): string => `${namespace}/entra-pod-identity-nmi`;

  for (const how of ['as helm 3 did', 'by helm 4']) {
    it(
      `goes from a release of the old chart, installed ${how}, and back`,
      { skip: skipOld },
      async () => {
        const name = 'identity/aad-pod-identity-nmi';
        await cluster().createNamespace('identity');
        const release = ['aad-pod-identity', oldChart, '--namespace=identity'];
        const asVersion3 = how === 'by helm 4' ? [] : ['--server-side=false'];
        await runHelm('install', ...release, '--values=old.yaml', ...asVersion3);
        await assertOld(name);
        const objects = ['azureidentities,azureidentitybindings', '-A'];
        const specsOf = async (): Promise<readonly unknown[]> => {
          const { items } = JSON.parse(await stateOf(...objects)) as { items: KubeObject[] };
          return items.map((each) => [
            each.metadata.name,
            each['spec'],
            (each.metadata as unknown as { uid: string }).uid,
          ]);
        };
        const atFirst = await specsOf();
        assert.equal(atFirst.length, 2);

        const inPlace = fromChart
          .split('kubectl')[0]
          ?.replace('--install entra-pod-identity ', 'aad-pod-identity ');
        await assert.rejects(type(inPlace ?? ''), /opens its nodes when it ends/);
        await assertOld(name);

        await type(fromChart);
        const args = await assertAgent(beside('identity'));
        assert.ok(args.includes('--block-instance-metadata=true'), args.join(' '));
        assert.equal(await find(name), undefined);
        assert.deepEqual(await specsOf(), atFirst);
        await type(definitions);
        assert.deepEqual(await specsOf(), atFirst);

        await type(toChart.replace('REVISION', '1'));
        await assertOld(name);
        assert.equal(await find(beside('identity')), undefined);
        assert.deepEqual(await specsOf(), atFirst);
        await runHelm('uninstall', 'aad-pod-identity', '--namespace=identity');
        await assertNothingLeft();
      },
    );
  }

  it('goes from the old manifest and back', { skip: skipOld }, async () => {
    const name = 'kube-system/nmi';
    await symlink(oldManifest, join(folder, 'managed-mode-deployment.yaml'));
    await type('kubectl apply -f managed-mode-deployment.yaml');
    await assertOld(name);
    const identity = objectsOf(
      /```yaml\n(apiVersion: aadpodidentity.*?)```/s.exec(readme)?.[1] ?? '',
    );
    assert.equal(identity.length, 2);
    const user = {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentity',
      metadata: { name: 'kept', namespace: 'shop' },
      spec: { type: 0, clientID: '22729e47-74ce-4b43-8eea-aab5f2073309' },
    };
    await cluster().apply(stringify(user));
    const kept = await stateOf('azureidentity/kept', '--namespace=shop');

    await type(fromManifest);
    await assertAgent(beside('kube-system'));
    assert.equal(await find(name), undefined);
    assert.equal(await stateOf('azureidentity/kept', '--namespace=shop'), kept);

    await type(toManifest);
    await assertOld(name);
    assert.equal(await find(beside('kube-system')), undefined);
    assert.equal(await stateOf('azureidentity/kept', '--namespace=shop'), kept);
  });
});
