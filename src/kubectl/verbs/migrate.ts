/** `kubectl nmi migrate`: away from the AKS add-on, from type 0, or to Workload Identity. */
import { stringAt } from '../../base/json-value.ts';
import {
  annotationsOf,
  labelsOf,
  nameOf,
  namespaceOf,
  specOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { renderYaml } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, type ExitCode } from '../base/plugin-error.ts';
import { identityResources } from '../cluster/resources.ts';
import { valueOf } from '../transport/kubectl.ts';
import { scopeOf, type VerbContext } from './context.ts';
import { planFlags } from './plan.ts';
import { toFederation } from './to-federation.ts';
import { toWorkloadIdentity } from './to-workload-identity.ts';
import { scopeFlags, textFlag, type AddVerb } from './verb.ts';

export const addMigrate: AddVerb = (parser, start) =>
  parser.command('migrate', 'leave the AKS add-on, type 0, or this agent', (verb) =>
    verb
      .command(
        'export-addon',
        'identities, bindings and exceptions as files; those of the add-on as copies that AKS does not delete',
        (sub) =>
          sub.options(scopeFlags).example('$0 migrate export-addon -A > pod-identity.yaml', ''),
        (flags) => start(flags, exportAddon),
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
      .command(
        'to-federation [name]',
        'identities of type 0 to type 3, with federated credentials for the service accounts that use them',
        (sub) =>
          sub
            .positional('name', { type: 'string', describe: 'Only this AzureIdentity.' })
            .option('tenant-id', textFlag('Tenant of the identities that name none.'))
            .options(planFlags)
            .example('$0 migrate to-federation -n shop --tenant-id …', '')
            .example(
              '$0 migrate to-federation orders -n shop --tenant-id … --apply',
              'one of them',
            ),
        (flags) => start(flags, (context) => toFederation(context, flags.name, flags)),
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
 * The object as written by its author. An object of the add-on gets another name: applied before
 * the add-on is disabled, the copy stays when AKS deletes the original. @param identities those of
 * the add-on, which bindings then name by the copy.
 */
function copyOf(object: RawObject, identities: ReadonlySet<string>): object {
  const own = (entries: ReadonlyMap<string, string>, isKept: (key: string) => boolean) => {
    const kept = [...entries].filter(([key]) => isKept(key));
    return kept.length === 0 ? undefined : Object.fromEntries(kept);
  };
  const spec = specOf(object);
  const azureIdentity = stringAt(spec, 'azureIdentity');
  return {
    apiVersion: object['apiVersion'],
    kind: object['kind'],
    metadata: {
      name: isOfAddon(object) ? nameOfCopy(nameOf(object)) : nameOf(object),
      namespace: namespaceOf(object),
      labels: own(
        labelsOf(object),
        (key) => !addonLabel.test(key) && key !== 'app.kubernetes.io/managed-by',
      ),
      annotations: own(annotationsOf(object), (key) => !key.startsWith('kubectl.kubernetes.io/')),
    },
    spec: identities.has(`${namespaceOf(object)}/${azureIdentity}`)
      ? { ...spec, azureIdentity: nameOfCopy(azureIdentity) }
      : spec,
  };
}

const nameOfCopy = (name: string): string => `${name}-copy`;
