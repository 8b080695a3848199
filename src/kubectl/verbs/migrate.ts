/** `kubectl nmi migrate`: away from the AKS add-on, or to Workload Identity. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { buildInfo } from '../../nmi/base/build-info.ts';
import { asRecord, stringAt } from '../../base/json-value.ts';
import { azLine, readAz, renderAz, type AzLine } from '../azure/az.ts';
import { parseIdentityId } from '../azure/identity-id.ts';
import { computesOf, identityLine, type Compute } from '../azure/node-pools.ts';
import {
  annotationsOf,
  labelsOf,
  nameOf,
  namespaceOf,
  specOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { renderTable, renderYaml, toLine } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, type ExitCode } from '../base/plugin-error.ts';
import { listNodes } from '../cluster/agent-state.ts';
import { viewAgent } from '../cluster/agents.ts';
import { identityResources } from '../cluster/resources.ts';
import { readSnapshot, type Snapshot } from '../cluster/snapshot.ts';
import { renderUnread, type Unread } from '../cluster/unread.ts';
import { findMic } from '../findings/agents.ts';
import { valueOf } from '../transport/kubectl.ts';
import { exitOf, print, scopeOf, type VerbContext } from './context.ts';
import { planFlags } from './plan.ts';
import { toWorkloadIdentity } from './to-workload-identity.ts';
import { switchFlag, textFlag, type AddVerb } from './verb.ts';

export const addMigrate: AddVerb = (parser, start) =>
  parser.command('migrate', 'leave the AKS add-on, or move to Workload Identity', (verb) =>
    verb
      .command(
        'export-addon',
        'identities, bindings and exceptions as files, before AKS deletes them',
        (sub) => sub.example('$0 migrate export-addon -A > pod-identity.yaml', ''),
        (flags) => start(flags, exportAddon),
      )
      .command(
        'check',
        'what each node pool lacks',
        (sub) =>
          sub
            .options({ run: planFlags.run })
            .example('$0 migrate check --run', 'reads assignments from Azure'),
        (flags) => start(flags, (context) => check(context, flags.run)),
      )
      .command(
        'plan',
        'the steps for this cluster, as commands',
        (sub) =>
          sub
            .option('resource-group', {
              type: 'string',
              default: 'RESOURCE_GROUP',
              describe: 'Of the AKS cluster.',
            })
            .option('cluster-name', {
              type: 'string',
              default: 'CLUSTER',
              describe: 'Name of the AKS cluster.',
            })
            .example('$0 migrate plan', ''),
        (flags) =>
          start(flags, (context) => plan(context, flags['resource-group'], flags['cluster-name'])),
      )
      .command(
        'to-workload-identity',
        'service accounts, labels and federated credentials for the bound pods of a namespace',
        (sub) =>
          sub
            .options(planFlags)
            .option(
              'live',
              switchFlag(
                'Ask the agents which SDKs they saw the pods use; needs exec on their pods.',
              ),
            )
            .option(
              'try',
              switchFlag(
                'Exchange a token of each service account at Entra ID first; --apply changes nothing if one is refused.',
              ),
            )
            .option('tenant-id', textFlag('For --try: tenant of identities without spec.tenantID.'))
            .example('$0 migrate to-workload-identity -n shop --live', '')
            .example(
              '$0 migrate to-workload-identity -n shop --try --tenant-id … --apply',
              'when the federated credentials exist',
            ),
        (flags) => start(flags, (context) => toWorkloadIdentity(context, flags)),
      )
      .demandCommand(1, 'No verb is given after migrate.'),
  );

async function exportAddon(context: VerbContext): Promise<ExitCode> {
  const scope = await scopeOf(context);
  const reads = await Promise.all(
    Object.values(identityResources).map(async (resource) =>
      valueOf(await context.kubectl.list(resource, scope), `list ${resource}`),
    ),
  );
  const objects = reads.flat().map(withoutServerFields);
  if (objects.length === 0) {
    throw failedError('there is no object to export', 'Use -A for all namespaces.');
  }
  context.io.stdout(renderYaml(objects));
  return exitCodes.ok;
}

/** The object as written by its author, without fields of a server or add-on manager. */
function withoutServerFields(object: RawObject): object {
  const own = (entries: ReadonlyMap<string, string>, isKept: (key: string) => boolean) => {
    const kept = [...entries].filter(([key]) => isKept(key));
    return kept.length === 0 ? undefined : Object.fromEntries(kept);
  };
  const labels = own(
    labelsOf(object),
    (key) =>
      !/addonmanager\.kubernetes\.io|kubernetes\.azure\.com|app\.kubernetes\.io\/managed-by/.test(
        key,
      ),
  );
  const annotations = own(
    annotationsOf(object),
    (key) => !key.startsWith('kubectl.kubernetes.io/'),
  );
  return {
    apiVersion: object['apiVersion'],
    kind: object['kind'],
    metadata: {
      name: nameOf(object),
      namespace: namespaceOf(object),
      ...(labels === undefined ? {} : { labels }),
      ...(annotations === undefined ? {} : { annotations }),
    },
    spec: specOf(object),
  };
}

interface PoolLine {
  readonly pool: string;
  readonly scaleSet: string;
  readonly nodes: number;
  readonly ready: number;
  /** Undefined when Azure was not queried. */
  readonly missing: readonly string[] | undefined;
}

async function check(context: VerbContext, run: boolean): Promise<ExitCode> {
  const unread: Unread[] = [];
  const [snapshot, nodes] = await Promise.all([
    readSnapshot(context, undefined),
    listNodes(context.kubectl, unread),
  ]);
  const inUse = resourceIdsInUse(snapshot);
  const wanted = inUse.filter((id) => parseIdentityId(id) !== undefined);
  const wrong = inUse.filter((id) => !wanted.includes(id));
  const ready = new Set(
    (snapshot.agents ?? [])
      .filter((each) => each.isReady && !each.isOldNmi)
      .map(({ node }) => node),
  );
  const pools: PoolLine[] = [];
  const lines: AzLine[] = [];
  for (const compute of computesOf(nodes ?? [])) {
    const missing = run ? await missingOf(context, compute, wanted) : undefined;
    if (missing !== undefined && missing.length > 0)
      lines.push(identityLine(compute, 'assign', missing));
    pools.push({
      pool: compute.pool,
      scaleSet: compute.name,
      nodes: compute.nodes.length,
      ready: compute.nodes.filter((node) => ready.has(node)).length,
      missing,
    });
  }
  const value = { kind: 'MigrationCheck', pools, identitiesInUse: wanted, az: lines, unread };
  print(context, value, () => [
    ...renderTable(
      ['POOL', 'SCALE-SET', 'NODES', 'AGENTS-READY', 'IDENTITIES-MISSING'],
      pools.map((each) => [
        ...[each.pool, each.scaleSet, String(each.nodes), String(each.ready)],
        each.missing === undefined ? 'unknown; add --run' : String(each.missing.length),
      ]),
    ),
    `${wanted.length} user-assigned identities are bound to pods.`,
    ...wrong.map((id) => `No resource id of a user-assigned identity, left out: ${toLine(id)}`),
    ...lines.map(renderAz),
    ...renderUnread(unread),
  ]);
  const isFine =
    lines.length === 0 && wrong.length === 0 && pools.every((each) => each.ready === each.nodes);
  return exitOf(context, nodes !== undefined && isFine);
}

function resourceIdsInUse({ identities, bindings, pods }: Snapshot): readonly string[] {
  const labels = new Set(
    pods.map((pod) => `${namespaceOf(pod)}/${labelsOf(pod).get(bindingLabel) ?? ''}`),
  );
  const named = new Set(
    bindings
      .filter((each) => labels.has(`${namespaceOf(each)}/${stringAt(specOf(each), 'selector')}`))
      .map((each) => `${namespaceOf(each)}/${stringAt(specOf(each), 'azureIdentity')}`),
  );
  const ids = identities
    .filter((each) => named.has(titleOf(each)) && (specOf(each)['type'] ?? 0) === 0)
    .map((each) => stringAt(specOf(each), 'resourceID'))
    .filter((id) => id !== '');
  return [...new Set(ids)];
}

async function missingOf(
  { io }: VerbContext,
  compute: Compute,
  wanted: readonly string[],
): Promise<readonly string[]> {
  const shown = asRecord(await readAz(io, identityLine(compute, 'show')));
  const assigned = Object.keys(asRecord(shown?.['userAssignedIdentities']) ?? {}).map((id) =>
    id.toLowerCase(),
  );
  return wanted.filter((id) => !assigned.includes(id.toLowerCase()));
}

/** The chart puts the name of the image behind this value of image.repository. */
const registry = 'REGISTRY';
const image = 'entra-pod-identity';
const linuxOnly = '{"spec":{"nodeSelector":{"kubernetes.io/os":"linux"}}}';
const pullCheck = `kubectl --namespace kube-system run nmi-pull --image=${registry}/${image}:${buildInfo.version} --restart=Never --rm --attach --overrides='${linuxOnly}' -- --version`;

async function plan(context: VerbContext, group: string, cluster: string): Promise<ExitCode> {
  const read = await context.kubectl.list('pods', undefined);
  const pods = valueOf(read, 'list pods of all namespaces');
  const old = pods.map(viewAgent).filter(({ isOldNmi }) => isOldNmi);
  const isHelm =
    old.length > 0 &&
    pods.some(
      (pod) =>
        labelsOf(pod).get('app.kubernetes.io/managed-by') === 'Helm' && viewAgent(pod).isOldNmi,
    );
  const mic = findMic(pods).length > 0;
  const steps = [
    ...(mic
      ? [
          'The MIC runs: bring the old system into managed mode first (its own documentation), so that identities are assigned by hand.',
        ]
      : []),
    'Save the objects: kubectl nmi migrate export-addon -A > pod-identity.yaml',
    'Assign identities to every scale set: kubectl nmi migrate check --run, and the lines that it prints',
    'Check the cluster: kubectl nmi doctor --pre',
    // Before anything opens a node: it stays open for as long as the new agent cannot be pulled.
    `Build and push the image (docs/install.md), and check that a node can pull and run it: ${pullCheck}`,
    ...(isHelm
      ? [
          `Switch the release in place, so that no node is open in between (docs/upgrade.md; old.yaml has the values of the release): helm upgrade RELEASE deploy/chart --namespace NAMESPACE --values old.yaml --set nameOverride=aad-pod-identity --set image.repository=${registry} --set nmi.image=${image} --set nmi.tag=${buildInfo.version}`,
        ]
      : [
          `Pods reach the identities of their node from this step until the agent of the next step runs there. Take the add-on off: ${renderAz(azLine(['aks', 'update'], { 'resource-group': group, name: cluster }))} --disable-pod-identity`,
          `Install the agent: helm upgrade --install nmi deploy/chart --namespace kube-system --set image.repository=${registry}`,
          'Bring the objects back: kubectl apply -f deploy/crds.yaml -f pod-identity.yaml',
        ]),
    'Wait: kubectl nmi status --wait',
    'Look at every pod: kubectl nmi analyze -A --exit-code --threshold warning',
  ];
  print(context, { kind: 'MigrationPlan', steps, oldAgents: old.length }, () =>
    steps.map((step, index) => `${index + 1}. ${step}`),
  );
  return exitCodes.ok;
}
