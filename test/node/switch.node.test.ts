/**
 * The switch from the real NMI of aad-pod-identity under load, as typed in docs/upgrade.md, and the
 * way back: no pod gets a token of the node, none waits for long, none gets a refusal that is not its
 * own.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { aadPodIdentity, provideModule } from '../cluster/support/go-module.ts';
import { shellBlocksOf } from '../cluster/support/page-commands.ts';
import { repositoryRoot } from '../conventions/tree.ts';
import { isWithin, sizeOfThisRun } from '../runner/kinds.ts';
import { eventuallyByProcess } from './support/machine.ts';
import { productImage } from './support/images.ts';
import { assertNothingLeft } from './support/install.ts';
import {
  assertClosed,
  describeLoad,
  startLoad,
  type Load,
  type LoadReport,
} from './support/load.ts';
import { openNode, type TestNode } from './support/node.ts';
import { provideNodeSystem } from './support/node-system.ts';
import { provideOldNmi } from './support/old-nmi.ts';
import { assertGets, type Mode } from './support/pod-kinds.ts';

const nodeSystem = provideNodeSystem();
const old = provideModule(aadPodIdentity);
const oldNmi = provideOldNmi();
const upgradePage = await readFile(join(repositoryRoot, 'docs/upgrade.md'), 'utf8');
const [fromChart = '', fromManifest = ''] = shellBlocksOf(upgradePage, 'Switch');
const [toChart = '', toManifest = ''] = shellBlocksOf(upgradePage, 'Way back');
const ofAddon = shellBlocksOf(upgradePage, 'From the add-on of AKS');
const blockWith = (command: string) => ofAddon.find((each) => each.includes(command)) ?? '';
const exportAddon = blockWith('export-addon');
const fromAddon = blockWith('--disable-pod-identity');
const toAddon = blockWith('--enable-pod-identity');
const namespace = 'identity';
const skip = nodeSystem.missing ?? old.missing ?? oldNmi.missing ?? false;
/** The old agent ends after ten seconds of sleep. */
const oldEndMs = 40_000;
const oldRules = /aad-metadata/;
/** Longest time without an answer. A machine with 15 processes for each processor took 2.7 s and 6.1 s. */
const limitsMs = { there: 6_000, back: 9_000 };

/** Every way to both modes in a long run; in others each way once, and both modes. */
const modesOf = (usual: Mode): readonly Mode[] =>
  isWithin('long', sizeOfThisRun()) ? ['ebpf', 'iptables'] : [usual];

/** How the old agent got into the cluster and how it leaves; in between, what the page says. */
const ways = [
  {
    from: 'a release of its chart',
    install: `helm upgrade --install aad-pod-identity old-chart --namespace ${namespace} --values old.yaml --skip-crds --server-side=false
kubectl -n ${namespace} rollout status daemonset/aad-pod-identity-nmi --timeout=120s`,
    there: fromChart,
    back: toChart,
    uninstall: `helm uninstall aad-pod-identity --namespace ${namespace} --wait`,
    modes: modesOf('ebpf'),
  },
  {
    from: 'its manifest',
    install: `kubectl apply -f managed-mode-deployment.yaml
kubectl -n kube-system rollout status daemonset/nmi --timeout=120s`,
    there: fromManifest,
    back: toManifest,
    uninstall: 'kubectl -n kube-system delete daemonset nmi --wait',
    modes: modesOf('iptables'),
  },
  {
    from: 'the add-on of AKS',
    install: `kubectl nmi migrate export-addon -n default >of-addon.yaml
az aks update --enable-pod-identity
az aks pod-identity add
kubectl -n kube-system rollout status daemonset/nmi --timeout=120s`,
    // The other lines of the first block only look.
    there: `${exportAddon.split('\n')[0] ?? ''}\n${fromAddon}`,
    back: toAddon,
    uninstall: 'az aks update --disable-pod-identity',
    modes: modesOf('ebpf'),
  },
] as const;

/** AKS as far as the page has it: its agent is the manifest's, and its objects go with the add-on. */
const az = `#!/bin/sh -eu
case "$*" in
  'aks update '*--enable-pod-identity) kubectl apply -f managed-mode-deployment.yaml -f deploy/crds.yaml ;;
  'aks update '*--disable-pod-identity)
    kubectl -n kube-system delete daemonset nmi
    kubectl delete azureidentities,azureidentitybindings --all-namespaces --selector kubernetes.azure.com/managedby=aks ;;
  'aks pod-identity add'*)
    kubectl apply -f of-addon.yaml
    kubectl label -f of-addon.yaml --overwrite kubernetes.azure.com/managedby=aks ;;
  *) echo "not known: az $*"; exit 2 ;;
esac
`;

describe('the switch from aad-pod-identity on a real node', { skip }, () => {
  let node: TestNode;
  let load: Load | undefined;
  let folder = '';

  before(async () => {
    assert.ok(nodeSystem.programs !== undefined && oldNmi.programs !== undefined);
    node = await openNode(nodeSystem.programs, {
      cgroupDriver: 'systemd',
      images: [oldNmi.programs],
    });
    folder = await mkdtemp(join(tmpdir(), 'nmi-switch-'));
    const modulePath = old.programs ?? '';
    await symlink(join(repositoryRoot, 'deploy'), join(folder, 'deploy'));
    await symlink(
      join(modulePath, 'deploy/infra/managed-mode-deployment.yaml'),
      join(folder, 'managed-mode-deployment.yaml'),
    );
    await symlink(join(modulePath, 'charts/aad-pod-identity'), join(folder, 'old-chart'));
    const values = { operationMode: 'managed' };
    await writeFile(join(folder, 'old.yaml'), JSON.stringify(values));
    const plugin = `#!/bin/sh\nexec '${process.execPath}' '${join(repositoryRoot, 'src/kubectl/main.ts')}' "$@"\n`;
    await mkdir(join(folder, 'bin'));
    for (const [name, text] of Object.entries({ az, 'kubectl-nmi': plugin })) {
      await writeFile(join(folder, 'bin', name), text, { mode: 0o755 });
    }
    await node.kubectl(['create', 'namespace', namespace]);
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  const type = (script: string, mode: Mode): Promise<string> =>
    node.type(
      script
        .replaceAll('NAMESPACE', namespace)
        .replaceAll('REVISION', '1')
        .replaceAll(
          'image.repository=REGISTRY',
          `image.repository=${productImage.repository} --set nmi.redirect=${mode}`,
        ),
      folder,
    );

  /** Its objects are deleted before its processes end. */
  const untilOldNmiEnded = async (): Promise<void> => {
    const running = "pgrep --full '^nmi .*--enableScaleFeatures' >&2 && exit 1 || exit 0";
    await eventuallyByProcess(() => node.machine.run(['sh', '-c', running]), oldEndMs);
  };

  function assertUnnoticed(report: LoadReport, limitMs: number): void {
    // The old agent and iptables do not redirect pods on the host network.
    assertClosed(report, ['app', 'node']);
    for (const { silentMs } of Object.values(report)) {
      assert.ok(silentMs <= limitMs, describeLoad(report));
    }
  }

  for (const { from, install, there, back, uninstall, modes } of ways) {
    describe(`from ${from}`, () => {
      before(async () => {
        await type(install, 'ebpf');
        load ??= await startLoad(node);
        await eventuallyByProcess(() => assertGets(node, 'load-bound', 'app'), 30_000);
      });
      after(async () => {
        await type(uninstall, 'ebpf');
        await untilOldNmiEnded();
      });

      for (const mode of modes) {
        it(`goes unnoticed, to ${mode}`, async (t) => {
          assert.ok(load !== undefined);
          const report = await load.during(async () => {
            await type(there, mode);
            await untilOldNmiEnded();
          });
          t.diagnostic(describeLoad(report));
          assertUnnoticed(report, limitsMs.there);
          assert.equal(report.bound.outcomes['ECONNREFUSED'], undefined, describeLoad(report));
          await assertGets(node, 'load-unbound', '400');
        });

        it(`goes back unnoticed, from ${mode}`, async (t) => {
          assert.ok(load !== undefined);
          const report = await load.during(() => type(back, mode));
          t.diagnostic(describeLoad(report));
          assertUnnoticed(report, limitsMs.back);
          await assertGets(node, 'load-unbound', '404');
          await assertNothingLeft(node, oldRules);
        });
      }
    });
  }
});
