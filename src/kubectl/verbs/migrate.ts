/** `kubectl nmi migrate`: away from the AKS add-on, or to Workload Identity. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { asRecord, stringAt } from '../../base/json-value.ts';
import { readAz, renderAz, type AzLine } from '../azure/az.ts';
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
import { identityResources } from '../cluster/resources.ts';
import { readSnapshot, type Snapshot } from '../cluster/snapshot.ts';
import { renderUnread, type Unread } from '../cluster/unread.ts';
import { valueOf } from '../transport/kubectl.ts';
import { exitOf, print, scopeOf, type VerbContext } from './context.ts';
import { planFlags, runFlag } from './plan.ts';
import { toWorkloadIdentity } from './to-workload-identity.ts';
import type { AddVerb } from './verb.ts';

export const addMigrate: AddVerb = (parser, start) =>
  parser.command('migrate', 'leave the AKS add-on, or move to Workload Identity', (verb) =>
    verb
      .command(
        'export-addon',
        'identities, bindings and exceptions as files; those of the add-on as copies that AKS does not delete',
        (sub) => sub.example('$0 migrate export-addon -A > pod-identity.yaml', ''),
        (flags) => start(flags, exportAddon),
      )
      .command(
        'check',
        'what each node pool lacks',
        (sub) =>
          sub
            .options({ run: runFlag })
            .example('$0 migrate check --run', 'reads assignments from Azure'),
        (flags) => start(flags, (context) => check(context, flags.run)),
      )
      .command(
        'to-workload-identity',
        'service accounts, labels and federated credentials for the bound pods of a namespace',
        (sub) =>
          sub
            .options(planFlags)
            .example('$0 migrate to-workload-identity -n shop', '')
            .example(
              '$0 migrate to-workload-identity -n shop --apply',
              'when the federated credentials exist',
            ),
        (flags) => start(flags, (context) => toWorkloadIdentity(context, flags.apply)),
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
  const identities = new Set(
    reads
      .flat()
      .filter((object) => object['kind'] === 'AzureIdentity' && isOfAddon(object))
      .map(titleOf),
  );
  const objects = reads.flat().map((object) => copyOf(object, identities));
  if (objects.length === 0) {
    throw failedError('there is no object to export', 'Use -A for all namespaces.');
  }
  context.io.stdout(renderYaml(objects));
  return exitCodes.ok;
}

const addonLabel = /addonmanager\.kubernetes\.io|kubernetes\.azure\.com/;

const isOfAddon = (object: RawObject): boolean =>
  [...labelsOf(object).keys()].some((key) => addonLabel.test(key));

/**
 * The object as written by its author, without fields of a server or add-on manager. An object of the
 * add-on gets another name: applied before the add-on is disabled, the copy stays when AKS deletes the
 * original.
 * @param identities those of the add-on, which bindings then name by the copy.
 */
function copyOf(object: RawObject, identities: ReadonlySet<string>): object {
  const own = (entries: ReadonlyMap<string, string>, isKept: (key: string) => boolean) => {
    const kept = [...entries].filter(([key]) => isKept(key));
    return kept.length === 0 ? undefined : Object.fromEntries(kept);
  };
  const labels = own(
    labelsOf(object),
    (key) => !addonLabel.test(key) && key !== 'app.kubernetes.io/managed-by',
  );
  const annotations = own(
    annotationsOf(object),
    (key) => !key.startsWith('kubectl.kubernetes.io/'),
  );
  const spec = specOf(object);
  const azureIdentity = stringAt(spec, 'azureIdentity');
  return {
    apiVersion: object['apiVersion'],
    kind: object['kind'],
    metadata: {
      name: isOfAddon(object) ? nameOfCopy(nameOf(object)) : nameOf(object),
      namespace: namespaceOf(object),
      ...(labels === undefined ? {} : { labels }),
      ...(annotations === undefined ? {} : { annotations }),
    },
    spec: identities.has(`${namespaceOf(object)}/${azureIdentity}`)
      ? { ...spec, azureIdentity: nameOfCopy(azureIdentity) }
      : spec,
  };
}

const nameOfCopy = (name: string): string => `${name}-copy`;

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
    `User-assigned identities that are bound to pods: ${wanted.length}.`,
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
