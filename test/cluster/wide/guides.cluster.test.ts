/**
 * The guides in docs, typed page by page: the real kubectl, helm and plugin against a real API
 * server. `az` is a script that accepts only the commands and queries of the guides; commands that
 * need a node (logs, exec) are answered by a wrapper around kubectl.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { before, it } from 'node:test';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import { provideHelm } from '../support/binaries.ts';
import { playDaemonSets } from '../support/daemon-set-player.ts';
import { describeOnNewestVersion } from '../support/on-clusters.ts';
import { agent, putObjects } from '../support/plugin.ts';
import { setPodStatus } from '../support/pods.ts';
import { allShellBlocks, shellBlocksOf } from '../support/page-commands.ts';

const root = join(import.meta.dirname, '../../..');
const helm = provideHelm();
const skip = helm.missing ?? false;

/** The typed commands may use only the programs of the guides. */
const az = `#!/usr/bin/env bash
echo "$*" >>"$AZ_LOG"
case "$*" in
  'group create --name demo --location westeurope'|'aks create '*|'aks get-credentials --resource-group demo --name demo') ;;
  'identity create '*|'identity delete '*|'role assignment create '*|'role assignment delete '*|'vmss identity assign '*|'vmss identity remove '*) ;;
  'identity federated-credential create '*--issuer*--subject*--audiences*) ;;
  'aks update '*--enable-oidc-issuer*|'aks update '*--disable-pod-identity|'aks update '*--enable-pod-identity|'aks pod-identity add '*) ;;
  'identity show '*'--query clientId --output tsv') echo 22729e47-74ce-4b43-8eea-aab5f2073309 ;;
  'identity show '*'--query id --output tsv') echo /subscriptions/s/resourcegroups/demo/providers/Microsoft.ManagedIdentity/userAssignedIdentities/demo ;;
  'identity show '*'--query tenantId --output tsv') echo 7e570000-1ab0-4000-8000-000000000001 ;;
  'account show --query tenantId --output tsv') echo 7e570000-1ab0-4000-8000-000000000001 ;;
  'aks show '*'--query nodeResourceGroup --output tsv') echo MC_demo_demo_westeurope ;;
  'aks show '*'--query oidcIssuerProfile.issuerUrl --output tsv') echo https://issuer.example/demo/ ;;
  'aks show '*'--query podIdentityProfile') echo '{"enabled": true}' ;;
  'vmss list '*"--query [].name --output tsv") printf 'aks-pool1-vmss\\naks-pool2-vmss\\n' ;;
  'vmss list '*) echo '[]' ;;
  *) echo "ERROR: not known: az $*" >&2; exit 2 ;;
esac
`;

/** There is no kubelet: answers that only a node can give. */
const kubectl = (program: string) => `#!/usr/bin/env bash
case " $* " in
  *' logs '*|*' exec '*) echo 'AZURE_CLIENT_ID=of-the-pod'; exit 0 ;;
  *' rollout status deployment/demo '*) echo 'deployment "demo" successfully rolled out'; exit 0 ;;
  *' run nmi-pull '*' -- --version '*) echo 'NMI Version: 0.1.0'; exit 0 ;;
  *' delete namespace '*) exec '${program}' "$@" --wait=false ;;
esac
exec '${program}' "$@"
`;

/** The release of these tests stands for the add-on: the chart refuses a second release of itself on the same nodes. */
const inPlaceOfTheAddOn =
  'kubectl --namespace kube-system label daemonset nmi helm.sh/chart- app.kubernetes.io/name-';

interface Guide {
  readonly page: string;
  /** The only section that is typed. */
  readonly section?: string;
  /** Typed before its first command. */
  readonly before?: string;
  /** Values of the placeholders in capitals. */
  readonly words: Readonly<Record<string, string>>;
  /** The arguments of each call of az, in order. */
  readonly asked: readonly RegExp[];
}

const guides: readonly Guide[] = [
  {
    page: 'quickstart.md',
    words: { REGISTRY: 'registry.example/team', LOCATION: 'westeurope' },
    asked: [
      /^aks create .* --network-plugin azure --enable-oidc-issuer /m,
      /^identity create --resource-group demo --name demo$/m,
      /^identity federated-credential create .* --issuer https:\/\/issuer\.example\/demo\/ --subject system:serviceaccount:demo:default --audiences api:\/\/AzureADTokenExchange$/m,
      /^vmss identity assign --resource-group MC_demo_demo_westeurope --name aks-pool2-vmss --identities \/subscriptions\/s\//m,
      /^identity delete --resource-group demo --name demo$/m,
    ],
  },
  {
    page: 'migrate-to-workload-identity.md',
    words: {
      RESOURCE_GROUP: 'demo',
      CLUSTER: 'demo',
      NAMESPACE: 'shop',
      ACCOUNT: 'default',
      IDENTITY: 'checkout',
      CLIENT_ID: '22729e47-74ce-4b43-8eea-aab5f2073310',
      POD: 'web',
    },
    asked: [/--subject system:serviceaccount:shop:default /],
  },
  {
    page: 'troubleshooting.md',
    words: {
      NODE_RESOURCE_GROUP: 'MC_demo',
      IDENTITY_RESOURCE_ID: '/subscriptions/s',
      NAMESPACE: 'shop',
      NODE: 'node-1',
      POD: 'web',
    },
    asked: [/^vmss identity assign --resource-group MC_demo --name aks-pool1-vmss /m],
  },
  {
    page: 'operate.md',
    words: { NODE: 'node-1', NAMESPACE: 'shop', POD: 'web' },
    asked: [],
  },
  { page: 'security.md', words: {}, asked: [] },
  {
    page: 'nodes-that-come-and-go.md',
    words: { NAMESPACE: 'shop' },
    asked: [/^account show --query tenantId --output tsv$/m],
  },
  {
    page: '../README.md',
    words: { NODE: 'node-1', REGISTRY: 'registry.example/team' },
    asked: [],
  },
  {
    page: 'upgrade.md',
    // The rest is typed in pages.cluster.test.ts.
    section: 'From the add-on of AKS',
    before: inPlaceOfTheAddOn,
    words: {
      NODE_RESOURCE_GROUP: 'MC_demo',
      RESOURCE_GROUP: 'demo',
      CLUSTER: 'demo',
      REGISTRY: 'registry.example/team',
      NAMESPACE: 'shop',
      IDENTITY_RESOURCE_ID: '/subscriptions/s',
      IDENTITY: 'checkout',
    },
    asked: [/^aks update .*--disable-pod-identity$/m, /^aks update .*--enable-pod-identity$/m],
  },
];

describeOnNewestVersion('the guides', (cluster) => {
  let folder = '';
  let path = '';
  let log = '';

  before(async () => {
    folder = join(cluster().folder, 'guides');
    const programs = join(cluster().folder, 'guide-bin');
    for (const made of [folder, programs]) await mkdir(made);
    await symlink(join(root, 'deploy'), join(folder, 'deploy'));
    if (helm.programs !== undefined) await symlink(helm.programs, join(programs, 'helm'));
    const values = 'image: { repository: registry.example/team }\n';
    await writeFile(join(folder, 'values.yaml'), values);
    const main = join(root, 'src/kubectl/main.ts');
    const plugin = `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`;
    for (const [name, text] of [
      ['az', az],
      ['kubectl', kubectl(cluster().binaries.kubectl)],
      ['kubectl-nmi', plugin],
    ] as const) {
      await writeFile(join(programs, name), text);
      await chmod(join(programs, name), 0o755);
    }
    path = [programs, dirname(process.execPath), process.env['PATH']].join(':');
    log = join(folder, 'az.log');
    await cluster().kubectl(['apply', '-f', join(root, 'deploy/crds.yaml')]);
    await cluster().createNamespace('shop');
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'web', namespace: 'shop', labels: { aadpodidbinding: 'shop' } },
      spec: { nodeName: 'node-1', containers: [{ name: 'web', image: 'web' }] },
    };
    const account = {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'default', namespace: 'shop' },
    };
    const custom = { apiVersion: 'aadpodidentity.k8s.io/v1' };
    const metadata = { name: 'shop', namespace: 'shop' };
    // Another one than that of the quick start.
    const clientID = '22729e47-74ce-4b43-8eea-aab5f2073310';
    const resourceID =
      '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shop';
    const identity = {
      ...custom,
      kind: 'AzureIdentity',
      metadata,
      spec: { type: 0, clientID, resourceID },
    };
    const spec = { azureIdentity: 'shop', selector: 'shop' };
    const binding = { ...custom, kind: 'AzureIdentityBinding', metadata, spec };
    const objects = [account, pod, identity, binding];
    await cluster().apply(objects.map((each) => stringify(each)).join('---\n'));
    const running = { phase: 'Running', podIP: '10.244.1.7', podIPs: [{ ip: '10.244.1.7' }] };
    await setPodStatus(cluster().admin, pod.metadata, running);
    // The agent, for guides that need an agent.
    const words = ['upgrade', '--install', 'nmi', 'deploy/chart', '--namespace', 'kube-system'];
    await type(`helm ${words.join(' ')} --set image.repository=registry.example/team`, {});
    await cluster().createNamespace('kube-system');
    await putObjects(cluster(), agent({ account: 'aad-pod-id-nmi-service-account' }));
  });

  /** Typed in a clone, everything in one shell. */
  async function type(script: string, words: Readonly<Record<string, string>>): Promise<string> {
    const filled = Object.entries(words).reduce(
      (text, [word, value]) => text.replaceAll(new RegExp(`(?<![\\w$"])${word}\\b`, 'g'), value),
      script,
    );
    await using _ = playDaemonSets(cluster().admin);
    // Rejects with the output.
    const { stdout } = await promisify(execFile)(
      'bash',
      ['--norc', '-euo', 'pipefail', '-c', filled],
      {
        cwd: folder,
        timeout: 120_000,
        env: {
          PATH: path,
          HOME: cluster().folder,
          AZ_LOG: log,
          KUBECONFIG: cluster().adminKubeconfig,
        },
      },
    );
    return stdout;
  }

  for (const { page, section, before: first = '', words, asked } of guides) {
    it(`types ${page} from its first command to its last`, { skip }, async () => {
      const text = await readFile(join(root, 'docs', page), 'utf8');
      const blocks = section === undefined ? allShellBlocks(text) : shellBlocksOf(text, section);
      assert.ok(blocks.length > 0);
      await writeFile(log, '');
      await type([first, ...blocks].join('\n'), words);
      const lines = await readFile(log, 'utf8');
      for (const line of asked) assert.match(lines, line);
    });
  }

  it('would find a command that az or kubectl does not know', { skip }, async () => {
    await assert.rejects(type('az identity creat --name x', {}), /not known: az identity creat/);
    await assert.rejects(type('kubectl get azureidentitys', {}), /doesn't have a resource type/);
  });
});
