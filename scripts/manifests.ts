/**
 * Writes the manifests for use without Helm, from the chart, and the version of package.json into the
 * chart: `node scripts/manifests.ts`. The script itself needs helm: in the PATH, or as `HELM=FILE`. A test compares the manifests, so that the
 * chart is the only source of deployments.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { buildStamp } from './build.ts';
import { chartFolder } from './chart-schema.ts';

const deploy = join(import.meta.dirname, '../deploy');

interface Manifest {
  /** Below `deploy`; the first is for users to apply, the others are copies for kustomize. */
  readonly paths: readonly string[];
  readonly about: string;
  /** Values of `helm template` besides the defaults. */
  readonly flags: readonly string[];
}

/** The last version whose API servers do not hold an agent to its node; its rights work with later ones too. */
const everyVersion = '--kube-version=1.35.0';
/** Users put their own in its place. */
const oneNamespace = 'my-namespace';

const manifests: readonly Manifest[] = [
  {
    paths: ['nmi.yaml', 'kustomize/agent/nmi.yaml'],
    about: `The agent on every Linux node. Apply crds.yaml first. Where aad-pod-identity runs, see docs/upgrade.md: this
file does not take its place, since nodes would be open in between.`,
    flags: [everyVersion, '--set=nmi.privilegeSplit=false'],
  },
  {
    paths: ['nmi-split.yaml'],
    about: `The same with its rights split, as the chart has it: a container that keeps the kernel's side
and answers no pod, and one that answers pods as uid 65532 without a capability. The new agent of a node starts beside
the old one. Over nmi.yaml, or another redirect, set maxSurge: 0 and maxUnavailable: 1 for that update.`,
    flags: [everyVersion, '--set=nmi.updateStrategy.rollingUpdate.maxSurge=1'],
  },
  {
    paths: ['rights-secrets.yaml', 'kustomize/secrets/rights-secrets.yaml'],
    about: `One RoleBinding for each namespace whose AzureIdentities name a Secret; change ${oneNamespace}.`,
    flags: [
      `--set=rbac.allowAccessToSecrets=true,rbac.secretsNamespaces={${oneNamespace}}`,
      '--show-only=templates/rights-secrets.yaml',
    ],
  },
  {
    paths: ['rights-federation.yaml', 'kustomize/federation/rights-federation.yaml'],
    about: `For Kubernetes 1.36 and later. To grant it in single namespaces only, bind both ClusterRoles there with
RoleBindings. Without --workload-identity the second rule of the first one can be left out. The admission policy is part of it, and
names the agent's service account.`,
    flags: [
      '--kube-version=1.36.0',
      '--set=rbac.allowFederation=true,nmi.workloadIdentity=true',
      '--show-only=templates/rights-federation.yaml',
    ],
  },
  {
    paths: ['rights-federation-before-1.36.yaml'],
    about: `For Kubernetes 1.30 to 1.35: one RoleBinding for each namespace; change ${oneNamespace}. The admission policy is part of
it, and names the agent's service account. Without --workload-identity the second rule can be left out.`,
    flags: [
      everyVersion,
      `--set=rbac.allowFederation=true,nmi.workloadIdentity=true,rbac.federationNamespaces={${oneNamespace}}`,
      '--show-only=templates/rights-federation.yaml',
    ],
  },
  {
    paths: ['open-nodes.yaml', 'kustomize/open-nodes/open-nodes.yaml'],
    about: `Takes the agent's place and opens every node, the step before an uninstallation:
  kubectl apply -f open-nodes.yaml
  kubectl -n kube-system rollout status daemonset/nmi
When that comes back, pods reach the real metadata service again, with the node's identities.`,
    flags: ['--set=uninstall.openNodes=true', '--show-only=templates/daemonset.yaml'],
  },
];

const noRepository = 'no-repository';

/** Files below `deploy`, and their copies for helm and kustomize, which read no other folder. */
export const copies = {
  'crds.yaml': ['chart/crds/crds.yaml', 'kustomize/agent/crds.yaml'],
  'monitoring/alerts.yaml': ['chart/files/alerts.yaml'],
  'monitoring/dashboard.json': ['chart/files/dashboard.json'],
  ...Object.fromEntries(
    ['binding-label', 'drop-net-raw', 'identity-owners', 'warn-identities'].map((name) => [
      `policies/${name}.yaml`,
      [`chart/files/policies/${name}.yaml`],
    ]),
  ),
} satisfies Readonly<Record<string, readonly string[]>>;

/** Path below `deploy` → text. @throws Error with the error of helm. */
export async function renderManifests(helm: string): Promise<ReadonlyMap<string, string>> {
  const files = new Map<string, string>();
  for (const { paths, about, flags } of manifests) {
    const text = await tidy(about, runHelm(helm, flags));
    for (const path of paths) files.set(path, text);
  }
  return files;
}

function runHelm(helm: string, flags: readonly string[]): string {
  const image = `--set=image.repository=${noRepository}`;
  const words = ['template', 'nmi', chartFolder, '--namespace=kube-system', '--skip-tests', image];
  const run = spawnSync(helm, [...words, ...flags], { encoding: 'utf8', timeout: 60_000 });
  if (run.error !== undefined) {
    throw new Error(
      `${helm} cannot be started: name helm as HELM=FILE; ./dev test helm builds one below .cache/cluster`,
      { cause: run.error },
    );
  }
  if (run.status !== 0) throw new Error(`helm template: ${run.stderr}`);
  // Users prepend their own repository: see docs/install.md.
  return run.stdout.replaceAll(`${noRepository}/`, '');
}

/** Labels with the Helm release of an object: these objects have none. */
const releaseLabel = /^ +(?:helm\.sh\/chart|app\.kubernetes\.io\/(?:managed-by|instance)): .*\n/gm;

/** The chart does not know that these names need no quotes. */
const quotedName = /^( +(?:namespace|app\.kubernetes\.io\/name): )"(.*)"$/gm;

async function tidy(about: string, rendered: string): Promise<string> {
  const header = `Made by scripts/manifests.ts from the chart; change that instead.\n\n${about}`;
  const comment = header.replaceAll(/^(?=.)/gm, '# ').replaceAll(/^$/gm, '#');
  const body = rendered
    .replaceAll(/^(?:# Source: .*)?\n/gm, '')
    .replaceAll(releaseLabel, '')
    .replaceAll(quotedName, '$1$2');
  const config = await resolveConfig(join(deploy, 'nmi.yaml'));
  return format(`${comment}\n${body}`, { ...config, parser: 'yaml' });
}

/** The version of package.json is the only one that is written by hand. */
function setVersion(): void {
  const path = join(deploy, 'chart/Chart.yaml');
  const { version } = buildStamp();
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.replaceAll(/^(version|appVersion): .*/gm, `$1: ${version}`));
}

if (import.meta.main) {
  setVersion();
  for (const [source, paths] of Object.entries(copies)) {
    for (const path of paths) cpSync(join(deploy, source), join(deploy, path));
  }
  for (const [path, text] of await renderManifests(process.env['HELM'] ?? 'helm')) {
    writeFileSync(join(deploy, path), text);
  }
}
