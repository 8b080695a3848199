/** `kubectl nmi migrate`: away from the AKS add-on, or to Workload Identity. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { asRecord, parseRecord, stringAt } from '../../nmi/base/json-value.ts';
import { renderAz, runAz, type AzLine } from '../azure/az.ts';
import { computesOf, identityLine, type Compute } from '../azure/node-pools.ts';
import { tryExchange, type TrialResult } from '../azure/trial-exchange.ts';
import {
  annotationsOf,
  labelsOf,
  nameOf,
  namespaceOf,
  specOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { renderTable, renderYaml } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import { PluginError, type ExitCode } from '../base/plugin-error.ts';
import { listNodes } from '../cluster/agent-state.ts';
import { commonConfig, defaultConfig, verifiedOf, viewAgent } from '../cluster/agents.ts';
import { identityResources } from '../cluster/resources.ts';
import { readSnapshot, type Snapshot, type Unread } from '../cluster/snapshot.ts';
import { readSeenClients } from '../cluster/seen-clients.ts';
import { findMic } from '../findings/agents.ts';
import { labelPatch, ownersOf } from '../findings/owners.ts';
import { classifySdk, sdkRule } from '../findings/sdk-versions.ts';
import { maxCredentials, federateLine, subjectOf } from '../azure/federation.ts';
import type { Config } from '../../nmi/config/config.ts';
import { cloudOf, resolveAuthority } from '../../nmi/sources/entra/clouds.ts';
import { valueOf } from '../transport/kubectl.ts';
import { exitOf, namespaceFor, print, scopeOf, type VerbContext } from './context.ts';
import { renderUnread } from './explain.ts';
import { issuerOf } from './identity.ts';
import { carryOut, checkName, emptyPlan, planFlags, type PlanFlags } from './plan.ts';
import type { AddVerb } from './verb.ts';

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
            .option('live', {
              type: 'boolean',
              default: false,
              describe:
                'Ask the agents which SDKs they saw the pods use; needs exec on their pods.',
            })
            .option('try', {
              type: 'boolean',
              default: false,
              describe:
                'Exchange a token of each service account at Entra ID first; --apply changes nothing if one is refused.',
            })
            .option('tenant-id', {
              type: 'string',
              default: '',
              describe: 'For --try: tenant of identities without spec.tenantID.',
            })
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
    throw new PluginError(
      exitCodes.findings,
      'there is no object to export',
      'Use -A for all namespaces.',
    );
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
  const wanted = resourceIdsInUse(snapshot);
  const ready = new Set(
    (snapshot.agents ?? [])
      .filter((each) => each.isReady && !each.isOldNmi)
      .map(({ node }) => node),
  );
  const pools: PoolLine[] = [];
  const lines: AzLine[] = [];
  for (const compute of computesOf(nodes)) {
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
    ...lines.map(renderAz),
    ...renderUnread(unread),
  ]);
  return exitOf(context, lines.length === 0 && pools.every((each) => each.ready === each.nodes));
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
  const shown = parseRecord(
    await runAz(io, [...identityLine(compute, 'show'), '--output', 'json']),
  );
  const assigned = Object.keys(asRecord(shown?.['userAssignedIdentities']) ?? {}).map((id) =>
    id.toLowerCase(),
  );
  return wanted.filter((id) => !assigned.includes(id.toLowerCase()));
}

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
    ...(isHelm
      ? [
          'Switch the release in place, so that no node is open in between: helm upgrade RELEASE deploy/chart --set nameOverride=aad-pod-identity (README, "Upgrade from aad-pod-identity")',
        ]
      : [
          `Pods reach the identities of their node between this step and the next but one. Take the add-on off: az aks update --resource-group ${group} --name ${cluster} --disable-pod-identity`,
          'Bring the objects back: kubectl apply -f deploy/crds.yaml -f pod-identity.yaml',
          'Install the agent: helm upgrade --install nmi deploy/chart --namespace kube-system --set image.repository=REGISTRY/entra-pod-identity',
        ]),
    'Wait: kubectl nmi status --wait',
    'Look at every pod: kubectl nmi analyze -A --exit-code --threshold warning',
  ];
  print(context, { kind: 'MigrationPlan', steps, oldAgents: old.length }, () =>
    steps.map((step, index) => `${index + 1}. ${step}`),
  );
  return exitCodes.ok;
}

interface WorkloadIdentityFlags extends PlanFlags {
  readonly live: boolean;
  readonly try: boolean;
  readonly 'tenant-id': string;
}

async function toWorkloadIdentity(
  context: VerbContext,
  flags: WorkloadIdentityFlags,
): Promise<ExitCode> {
  if (flags.try && flags.run) {
    throw new PluginError(
      exitCodes.usage,
      '--try is for federated credentials that exist, and --run makes them',
      'Give --run first; Entra ID takes minutes to know a new credential.',
    );
  }
  const namespace = await namespaceFor(context);
  const snapshot = await readSnapshot(context, namespace);
  const config = commonConfig(verifiedOf(snapshot.agents)) ?? defaultConfig;
  const uses = usesOf(snapshot, namespace);
  if (uses.length === 0) {
    throw new PluginError(
      exitCodes.findings,
      `no pod of namespace ${namespace} is bound to an identity`,
      'See kubectl nmi identity list',
    );
  }
  const issuer = await issuerOf(context);
  const audience = cloudOf(config.cloud).audience;
  if (flags.try) await tryAll(context, namespace, uses, config, flags['tenant-id']);
  const objects = uses.map(({ account, identity }) => accountObject(namespace, account, identity));
  const az = uses.map(({ account, identity }) => {
    const spec = specOf(identity);
    const federation = {
      resourceId: stringAt(spec, 'resourceID'),
      clientId: stringAt(spec, 'clientID'),
      issuer,
      audience,
    };
    return federateLine(federation, { namespace, serviceAccount: account });
  });
  const patches = new Set(
    uses.flatMap(({ pods }) =>
      pods
        .flatMap((pod) => ownersOf(pod, snapshot.workloads))
        .map((workload) => labelPatch(workload, 'azure.workload.identity/use', 'true')),
    ),
  );
  const counts = Map.groupBy(uses, ({ identity }) => nameOf(identity));
  const notes = [
    ...[...counts].flatMap(([name, each]) =>
      each.length > maxCredentials
        ? [
            `AzureIdentity ${name} would have ${each.length} federated credentials, and Azure allows ${maxCredentials}: share service accounts.`,
          ]
        : [],
    ),
    ...uses.flatMap(({ account, others }) =>
      others.length === 0
        ? []
        : [
            `Service account ${account} is used with ${others.join(', ')} too: set AZURE_CLIENT_ID in those pods.`,
          ],
    ),
    ...uses.map(
      ({ account, identity }) =>
        `${subjectOf({ namespace, serviceAccount: account })} becomes ${nameOf(identity)}`,
    ),
    ...(flags.live
      ? await sdkNotes(
          context,
          snapshot,
          uses.flatMap(({ pods }) => pods),
        )
      : [`${sdkRule} Add --live to see what the agents saw the pods use.`]),
    'When the credentials exist, label the pod templates; the binding label may stay until all is well:',
    ...patches,
  ];
  return carryOut(context, { ...emptyPlan, objects, az, notes }, flags);
}

/** @throws PluginError when one is refused; then nothing is changed. */
async function tryAll(
  context: VerbContext,
  namespace: string,
  uses: readonly Use[],
  config: Config,
  tenantId: string,
): Promise<void> {
  const problems: string[] = [];
  for (const { account, identity } of uses) {
    const result = await tryUse(context, namespace, account, identity, config, tenantId);
    const title = `service account ${namespace}/${account} as AzureIdentity ${nameOf(identity)}`;
    if (!result.ok) problems.push(`${title}: ${result.reason}: ${result.detail}`);
    else context.io.stderr(`trial exchange: ${title}: Entra ID gives a token\n`);
  }
  if (problems.length === 0) return;
  throw new PluginError(
    exitCodes.findings,
    `the trial exchange failed, and no object was changed: ${problems.join('; ')}`,
    'Leave out --try to see the az lines of the federated credentials; Entra ID takes minutes to know a new one. See kubectl nmi reasons federation_refused',
  );
}

async function tryUse(
  { kubectl, io }: VerbContext,
  namespace: string,
  account: string,
  identity: RawObject,
  { cloud }: Config,
  tenantOfUser: string,
): Promise<TrialResult> {
  const spec = specOf(identity);
  const tenantId = stringAt(spec, 'tenantID') || tenantOfUser;
  if (tenantId === '') {
    const detail = 'its tenant is not known: give --tenant-id (az account show --query tenantId)';
    return { ok: false, reason: 'not tried', detail };
  }
  const adEndpoint = stringAt(spec, 'adEndpoint');
  const found = resolveAuthority({ adEndpoint, cloud, allowedHosts: [] });
  if (!found.ok) return { ok: false, reason: 'not tried', detail: found.problem };
  const assertion = await kubectl.expect(`create a token of service account ${account}`, [
    'create',
    'token',
    // This verb of kubectl accepts no name after `--`, so the name is checked.
    checkName(account),
    `--namespace=${namespace}`,
    `--audience=${found.audience}`,
    '--duration=10m',
  ]);
  return tryExchange(io, {
    authority: found.authority,
    tenantId,
    clientId: stringAt(spec, 'clientID'),
    assertion: assertion.trim(),
  });
}

/** A sentence for each pod, those that need work first. */
async function sdkNotes(
  { kubectl }: VerbContext,
  { agents = [] }: Snapshot,
  pods: readonly RawObject[],
): Promise<readonly string[]> {
  const nodes = new Set(pods.map((pod) => stringAt(specOf(pod), 'nodeName')));
  const asked = agents.filter(({ node, isOldNmi }) => nodes.has(node) && !isOldNmi);
  const unread: Unread[] = [];
  const seen = await readSeenClients(kubectl, asked, unread);
  const titles = [...new Set(pods.map(titleOf))].toSorted();
  const [old, unknown, fine]: [string[], string[], string[]] = [[], [], []];
  for (const title of titles) {
    const verdicts = (seen.get(title) ?? []).map(classifySdk);
    const tooOld = verdicts.filter((each) => each.kind === 'too-old');
    const [known] = verdicts.filter((each) => each.kind === 'knows');
    for (const { title: sdk, version, minimum } of tooOld) {
      old.push(`Pod ${title} uses ${sdk} ${version}: update it to ${minimum} or later first.`);
    }
    if (tooOld.length > 0) continue;
    if (verdicts.some(({ kind }) => kind === 'unknown') || known === undefined) {
      unknown.push(`Pod ${title}: ${whyUnknown(seen.get(title))}; check its SDK yourself.`);
    } else {
      fine.push(`Pod ${title} uses ${known.title} ${known.version}, which is new enough.`);
    }
  }
  return [
    ...old,
    ...unknown,
    ...fine,
    ...(unknown.length === 0 ? [] : [sdkRule]),
    'Code that creates a ManagedIdentityCredential itself still calls IMDS, whatever its version.',
    ...unread.map(({ what, why, loses }) => `Not known: ${loses}: cannot ${what}: ${why}`),
  ];
}

function whyUnknown(clients: readonly string[] | undefined): string {
  if (clients === undefined) return 'no agent reported it';
  if (clients.length === 0) return 'the agent saw no request of it';
  return 'the agent saw requests of something else than an Azure SDK';
}

interface Use {
  readonly account: string;
  /** The first by name; a service account names one. */
  readonly identity: RawObject;
  readonly others: readonly string[];
  readonly pods: readonly RawObject[];
}

function usesOf({ pods, bindings, identities }: Snapshot, namespace: string): readonly Use[] {
  const byAccount = new Map<string, { identities: Map<string, RawObject>; pods: RawObject[] }>();
  for (const pod of pods) {
    const label = labelsOf(pod).get(bindingLabel) ?? '';
    const account = stringAt(specOf(pod), 'serviceAccountName') || 'default';
    for (const binding of bindings) {
      const { selector, serviceAccount, azureIdentity } = specOf(binding);
      const isFor = (serviceAccount ?? '') === '' || serviceAccount === account;
      if (label === '' || namespaceOf(binding) !== namespace || selector !== label || !isFor)
        continue;
      const identity = identities.find(
        (each) => namespaceOf(each) === namespace && nameOf(each) === azureIdentity,
      );
      if (identity === undefined) continue;
      const use = byAccount.get(account) ?? { identities: new Map<string, RawObject>(), pods: [] };
      byAccount.set(account, use);
      use.identities.set(nameOf(identity), identity);
      use.pods.push(pod);
    }
  }
  return [...byAccount].flatMap(([account, use]) => {
    const [first, ...others] = [...use.identities.keys()].toSorted();
    const identity = use.identities.get(first ?? '');
    return identity === undefined ? [] : [{ account, identity, others, pods: use.pods }];
  });
}

function accountObject(namespace: string, name: string, identity: RawObject): object {
  const spec = specOf(identity);
  const tenant = stringAt(spec, 'tenantID');
  return {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: {
      name,
      namespace,
      annotations: {
        'azure.workload.identity/client-id': stringAt(spec, 'clientID'),
        ...(tenant === '' ? {} : { 'azure.workload.identity/tenant-id': tenant }),
      },
    },
  };
}
