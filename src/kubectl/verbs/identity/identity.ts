/** `kubectl nmi identity`: the verbs of `az aks pod-identity`, for managed mode. */
import { credentialKinds } from '../../../nmi/sources/entra/credentials/kinds.ts';
import { stringAt } from '../../../base/json-value.ts';
import { renderAz } from '../../azure/az.ts';
import { servedIdOf } from '../../azure/federation.ts';
import { parseIdentityId, showClientIdLine } from '../../azure/identity-id.ts';
import { exitCodes } from '../../base/io.ts';
import { nameOf, namespaceOf, specOf } from '../../base/object.ts';
import { renderTable } from '../../../base/printable.ts';
import { usageError, type ExitCode } from '../../base/plugin-error.ts';
import { readBound, usesIn } from '../../cluster/bound.ts';
import {
  nmiCommand,
  pin,
  print,
  refuseUnknownNamespace,
  scopeOf,
  type VerbContext,
} from '../context.ts';
import { carryOut, emptyPlan, planFlags, unlessThere } from '../plan.ts';
import { nameArgument, reportFlags, scopeFlags, textFlag, type AddVerb } from '../verb.ts';
import { assign, azureOf, bind } from './assign.ts';
import { federate } from './federate.ts';
import { remove } from './remove.ts';
import { revoke } from './revoke.ts';

export const addIdentity: AddVerb = (parser, start) =>
  parser.command('identity', 'add, list, assign, federate, delete and revoke identities', (verb) =>
    addUses(addObjects(verb, start), start).demandCommand(1, 'No verb is given after identity.'),
  );

const addObjects: AddVerb = (parser, start) =>
  parser
    .command(
      'add <name>',
      'an AzureIdentity for an existing identity in Azure',
      (sub) =>
        sub
          .positional('name', nameArgument)
          .option('resource-id', textFlag('Azure resource id of the user-assigned identity.'))
          .option('client-id', textFlag('Client id.'))
          .option(
            'tenant-id',
            textFlag('Tenant; for all but user-assigned. Of a chain: of the application.'),
          )
          .option('type', {
            choices: [...typeTitles.values()],
            default: userAssigned,
            describe: 'Where its tokens come from.',
          })
          .option('federation', {
            choices: ['pod', 'binding', 'node'] as const,
            describe:
              'Of type federated: whose service account; default pod. Of a chain with an agent identity: instead of a client id.',
          })
          .options({
            secret: textFlag('Secret with the password or certificate.'),
            application: textFlag('Of a chain: client id of the application.'),
            'agent-identity': textFlag('Of a chain: client id of an agent identity.'),
            selector: textFlag(
              'Binds it too: to pods with this value of the label aadpodidbinding.',
            ),
            ...planFlags,
          })
          .example(
            '$0 identity add orders --resource-id /subscriptions/… --client-id … --selector orders',
            'of a user-assigned identity, with its binding and its az lines',
          )
          .example(
            '$0 identity add orders --type federated --client-id … --tenant-id …',
            'without any assignment',
          )
          .example(
            '$0 identity add orders --type chain --client-id … --application … --tenant-id …',
            'of an application that trusts a user-assigned identity',
          )
          .example(
            '$0 identity add agent --type chain --federation pod --application … --agent-identity … --tenant-id …',
            'of an agent identity whose blueprint trusts service accounts',
          ),
      (flags) => start(flags, (context) => add(context, flags.name, flags)),
    )
    .command(
      'list',
      'identities with their bindings and pods',
      (sub) =>
        sub
          .options({ ...reportFlags, ...scopeFlags })
          .example('$0 identity list -A', 'of all namespaces'),
      (flags) => start(flags, list),
    );

const addUses: AddVerb = (parser, start) =>
  parser
    .command(
      'assign <name>',
      'a binding for pods, and the identity to every scale set',
      (sub) =>
        sub
          .positional('name', nameArgument)
          .option('selector', {
            type: 'string',
            describe: 'Value of the pod label aadpodidbinding; default NAME.',
          })
          .option('service-account', textFlag('Only for pods under this service account.'))
          .options(planFlags)
          .example(
            '$0 identity assign orders --selector orders',
            'shows the binding and the az lines',
          ),
      (flags) => start(flags, (context) => assign(context, flags.name, flags)),
    )
    .command(
      'federate <name>',
      'federated credentials for the service accounts of its pods',
      (sub) =>
        sub
          .positional('name', nameArgument)
          .option('service-account', {
            type: 'string',
            array: true,
            default: [],
            describe: 'Instead of those of the bound pods.',
          })
          .options(reportFlags)
          .example('$0 identity federate orders', ''),
      (flags) => start(flags, (context) => federate(context, flags.name, flags['service-account'])),
    )
    .command(
      'delete <name>',
      'the identity with its binding, and the az lines, unless others use them',
      (sub) =>
        sub
          .positional('name', nameArgument)
          .options(planFlags)
          .example('$0 identity delete orders', 'shows what is deleted, and what is kept for whom'),
      (flags) => start(flags, (context) => remove(context, flags.name, flags.apply)),
    )
    .command(
      'revoke <name>',
      'drop the tokens that agents have of an identity',
      (sub) =>
        sub
          .positional('name', nameArgument)
          .options(planFlags)
          .example('$0 identity revoke orders --apply', 'on every node, within a second'),
      (flags) => start(flags, (context) => revoke(context, flags.name, flags.apply)),
    );

const userAssigned = 'user-assigned';
/** By `spec.type`. */
const typeTitles: ReadonlyMap<number, string> = new Map([
  [0, userAssigned],
  ...credentialKinds.map(({ type, typeTitle }) => [type, typeTitle] as const),
]);

interface AddFlags {
  readonly apply: boolean;
  readonly resourceId: string;
  readonly clientId: string;
  readonly tenantId: string;
  readonly type: string;
  readonly federation?: string | undefined;
  readonly secret: string;
  readonly application: string;
  readonly agentIdentity: string;
  readonly selector: string;
}

/** Whether the flags fit together, the API server says. */
async function add(unpinned: VerbContext, name: string, flags: AddFlags): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { resourceId, clientId, tenantId, federation, secret, application, agentIdentity } = flags;
  if (resourceId + clientId + agentIdentity === '') {
    throw usageError(
      'no id of the identity is given',
      `Give --client-id. This shows it: ${renderAz(showClientIdLine(''))}`,
    );
  }
  const [type = 0] = [...typeTitles].find(([, title]) => title === flags.type) ?? [];
  const ofTenant = tenantId === '' ? {} : { tenantID: tenantId };
  const ofApplication = { application: { tenantID: tenantId, clientID: application } };
  const spec = {
    type,
    ...(resourceId === '' ? {} : { resourceID: resourceId }),
    ...(clientId === '' ? {} : { clientID: clientId }),
    ...(application === '' ? ofTenant : ofApplication),
    ...(agentIdentity === '' ? {} : { agentIdentity }),
    ...(federation === undefined ? {} : { federation }),
    ...(secret === '' ? {} : { clientPassword: { name: secret } }),
  };
  const added = await unlessThere(context, 'AzureIdentity', name, spec);
  const bound =
    flags.selector === ''
      ? { objects: [], notes: [`Then bind it: ${nmiCommand(context, 'identity', 'assign', name)}`] }
      : await bind(context, name, flags);
  const identity = { metadata: { name, namespace: context.namespace }, spec };
  // A wrong id is refused by the API server, in its words.
  const isId = resourceId === '' || parseIdentityId(resourceId) !== undefined;
  const azure = isId ? await azureOf(context, identity) : emptyPlan;
  const notes = [
    ...added.notes,
    ...bound.notes,
    ...azure.notes,
    ...(application === '' ? [] : [`Pods name it by the client id ${servedIdOf({ spec })}.`]),
  ];
  const objects = [...added.objects, ...bound.objects];
  return carryOut(context, { ...emptyPlan, ...azure, objects, notes }, flags.apply);
}

async function list(context: VerbContext): Promise<ExitCode> {
  const scope = await scopeOf(context);
  const bound = await readBound(context.kubectl, scope);
  if (scope !== undefined && bound.identities.length === 0)
    await refuseUnknownNamespace(context, scope);
  const usesOf = usesIn(bound);
  const rows = bound.identities.map((identity) => {
    const { bindings, pods } = usesOf(identity);
    return {
      namespace: namespaceOf(identity),
      name: nameOf(identity),
      type: typeTitles.get(Number(specOf(identity)['type'] ?? 0)) ?? 'unknown',
      clientId: servedIdOf(identity),
      selectors: bindings.map((each) => stringAt(specOf(each), 'selector')),
      pods: pods.map(nameOf),
    };
  });
  print(context, { kind: 'IdentityList', identities: rows }, () =>
    renderTable(
      ['NAMESPACE', 'NAME', 'TYPE', 'CLIENT-ID', 'SELECTORS', 'PODS'],
      rows.map(({ namespace, name, type, clientId, selectors, pods: names }) => [
        ...[namespace, name, type, clientId, selectors.join(',')],
        names.length > 3
          ? `${names.slice(0, 3).join(',')} and ${names.length - 3} more`
          : names.join(','),
      ]),
    ),
  );
  return exitCodes.ok;
}
