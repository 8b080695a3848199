/** `kubectl nmi identity`: the verbs of `az aks pod-identity`, for managed mode. */
import { credentialKinds, kindsOfType } from '../../nmi/sources/entra/credentials/kinds.ts';
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { isGuid, isResourceId } from '../../cache/index/identifiers.ts';
import { asRecord, parseRecord, stringAt } from '../../base/json-value.ts';
import { cloudOf } from '../../nmi/sources/entra/clouds.ts';
import { renderAz, runAz, type AzLine } from '../azure/az.ts';
import { federateLine, maxCredentials, subjectOf, type Subject } from '../azure/federation.ts';
import { computesOf, identityLine } from '../azure/node-pools.ts';
import { bindingObject, identityObject } from '../azure/objects.ts';
import { labelsOf, nameOf, namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, PluginError, usageError, type ExitCode } from '../base/plugin-error.ts';
import { renderTable } from '../base/output.ts';
import { commonConfig, defaultConfig, verifiedOf, type AgentView } from '../cluster/agents.ts';
import { listNodes } from '../cluster/agent-state.ts';
import { identityResources } from '../cluster/resources.ts';
import { readSnapshot, type Snapshot } from '../cluster/snapshot.ts';
import { findOtherUsers, needsAssignment } from '../findings/identity-users.ts';
import { valueOf } from '../transport/kubectl.ts';
import { renderRule } from '../transport/kubectl-failure.ts';
import { namespaceFor, print, scopeOf, type VerbContext } from './context.ts';
import { explainObject } from './explain.ts';
import { carryOut, checkName, emptyPlan, planFlags, type PlanFlags } from './plan.ts';
import { nameArgument, switchFlag, textFlag, type AddVerb } from './verb.ts';

export const addIdentity: AddVerb = (parser, start) =>
  parser.command(
    'identity',
    'add, list, show, delete, assign, unassign and federate identities',
    (verb) =>
      verb
        .command(
          'add <name>',
          'an AzureIdentity, of what Azure has',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .option('resource-id', textFlag('Azure resource id of the user-assigned identity.'))
              .option(
                'client-id',
                textFlag('Client id; --run reads it by az where there is a resource id.'),
              )
              .option('tenant-id', textFlag('Tenant; for all but user-assigned.'))
              .option('type', {
                choices: [...typeTitles.values()],
                default: userAssigned,
                describe: 'Where its tokens come from.',
              })
              .options({
                secret: textFlag('Secret with the password or certificate.'),
                ...planFlags,
              })
              .example(
                '$0 identity add orders --resource-id /subscriptions/… --run --apply',
                'of a user-assigned identity',
              )
              .example(
                '$0 identity add orders --type federated --client-id … --tenant-id …',
                'without any assignment',
              ),
          (flags) => start(flags, (context) => add(context, flags.name, flags)),
        )
        .command(
          'list',
          'identities with their bindings and pods',
          (sub) => sub.example('$0 identity list -A', 'of all namespaces'),
          (flags) => start(flags, list),
        )
        .command(
          'show <name>',
          'one identity, and what its pods get',
          (sub) => sub.positional('name', nameArgument).example('$0 identity show orders', ''),
          (flags) => start(flags, (context) => explainObject(context, 'identity', flags.name)),
        )
        .command(
          'delete <name>',
          'an identity and the bindings that name it',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .options(planFlags)
              .example('$0 identity delete orders --apply', ''),
          (flags) => start(flags, (context) => remove(context, flags.name, flags)),
        )
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
              .option('role', textFlag('Role in Azure to give the identity, with --scope.'))
              .option('scope', textFlag('Azure resource that the role is for.'))
              .options(planFlags)
              .example(
                '$0 identity assign orders --selector orders',
                'shows the binding and the az lines',
              )
              .example(
                '$0 identity assign orders --role "Key Vault Secrets User" --scope /subscriptions/… --run --apply',
                'does it',
              ),
          (flags) => start(flags, (context) => assign(context, flags.name, flags)),
        )
        .command(
          'unassign <name>',
          'the reverse of assign; the AzureIdentity stays, and the assignment while others use it',
          (sub) =>
            sub
              .positional('name', nameArgument)
              .option(
                'ignore-unknown-users',
                switchFlag(
                  'Remove the assignment even if you cannot read whether other namespaces use the identity.',
                ),
              )
              .options(planFlags)
              .example('$0 identity unassign orders --apply --run', ''),
          (flags) => start(flags, (context) => unassign(context, flags.name, flags)),
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
              .options({ run: planFlags.run })
              .example('$0 identity federate orders --run', ''),
          (flags) =>
            start(flags, (context) =>
              federate(context, flags.name, flags['service-account'], flags.run),
            ),
        )
        .demandCommand(1, 'No verb is given after identity.'),
  );

const userAssigned = 'user-assigned';
/** By `spec.type`. */
const typeTitles: ReadonlyMap<number, string> = new Map([
  [0, userAssigned],
  ...credentialKinds.map(({ type, typeTitle }) => [type, typeTitle] as const),
]);

interface AddFlags extends PlanFlags {
  readonly resourceId: string;
  readonly clientId: string;
  readonly tenantId: string;
  /** One of `typeTitles`. */
  readonly type: string;
  readonly secret: string;
}

async function add(context: VerbContext, name: string, flags: AddFlags): Promise<ExitCode> {
  const namespace = await namespaceFor(context);
  const { resourceId } = flags;
  const [type = 0] = [...typeTitles].find(([, title]) => title === flags.type) ?? [];
  const kinds = kindsOfType(type);
  if (resourceId !== '' && !isResourceId(resourceId)) {
    throw usageError(
      `${resourceId} is no Azure resource id`,
      'Print it: az identity show --name NAME --resource-group GROUP --query id',
    );
  }
  const found = await completeIds(context, flags);
  if (!isGuid(found.clientId)) {
    const look =
      resourceId === '' ? 'az identity list --output table' : renderAz(showLine(resourceId));
    throw usageError(
      'the client id is missing or is no GUID',
      `Give --client-id, or add --run to read it: ${look}`,
    );
  }
  const isOfEntra = kinds.length > 0;
  if (isOfEntra && found.tenantId === '')
    throw usageError(`type ${flags.type} needs a tenant`, 'Give --tenant-id.');
  const needsSecret = kinds.some(({ objectKind }) => objectKind === 'Secret');
  if (needsSecret && flags.secret === '')
    throw usageError(
      `type ${flags.type} needs a Secret`,
      'Give --secret, a Secret of the same namespace.',
    );
  const spec = {
    type,
    ...(resourceId === '' ? {} : { resourceID: resourceId }),
    clientID: found.clientId,
    ...(isOfEntra ? { tenantID: found.tenantId } : {}),
    ...(needsSecret ? { clientPassword: { name: flags.secret } } : {}),
  };
  const objects = [identityObject(namespace, checkName(name), spec)];
  const next = `Then bind it: kubectl nmi identity assign ${name} -n ${namespace}`;
  // The `az` line that reads the identity has already run.
  return carryOut(context, { ...emptyPlan, objects, notes: [next] }, flags);
}

/** Prints the client id of an identity, or the list of all if its resource id is not known. */
export function showClientIdLine(resourceId: string): AzLine {
  if (resourceId.trim() === '') return ['identity', 'list', '--output', 'table'];
  return ['identity', 'show', '--ids', resourceId, '--query', 'clientId', '--output', 'tsv'];
}

function showLine(resourceId: string): AzLine {
  return ['identity', 'show', '--ids', resourceId, '--output', 'json'];
}

async function completeIds({ io }: VerbContext, flags: AddFlags) {
  const { clientId, tenantId, resourceId, run } = flags;
  if (!run || resourceId === '' || clientId !== '') return { clientId, tenantId };
  const shown = parseRecord(await runAz(io, showLine(resourceId)));
  return {
    clientId: stringAt(shown, 'clientId'),
    tenantId: tenantId || stringAt(shown, 'tenantId'),
  };
}

async function list(context: VerbContext): Promise<ExitCode> {
  const scope = await scopeOf(context);
  const snapshot = await readSnapshot(context, scope);
  const own = snapshot.identities.filter(
    (each) => scope === undefined || namespaceOf(each) === scope,
  );
  const identities = own.map((identity) => {
    const bindings = bindingsOf(identity, snapshot);
    return {
      namespace: namespaceOf(identity),
      name: nameOf(identity),
      type: typeTitles.get(Number(specOf(identity)['type'] ?? 0)) ?? 'unknown',
      clientId: stringAt(specOf(identity), 'clientID'),
      selectors: bindings.map((each) => stringAt(specOf(each), 'selector')),
      pods: podsOf(bindings, snapshot).map(nameOf),
    };
  });
  print(context, { kind: 'IdentityList', identities }, () =>
    renderTable(
      ['NAMESPACE', 'NAME', 'TYPE', 'CLIENT-ID', 'SELECTORS', 'PODS'],
      identities.map(({ namespace, name, type, clientId, selectors, pods }) => [
        ...[namespace, name, type, clientId, selectors.join(',')],
        pods.length > 3
          ? `${pods.slice(0, 3).join(',')} and ${pods.length - 3} more`
          : pods.join(','),
      ]),
    ),
  );
  return exitCodes.ok;
}

async function remove(context: VerbContext, name: string, flags: PlanFlags): Promise<ExitCode> {
  const { identity, bindings, pods } = await find(context, name);
  const namespace = namespaceOf(identity);
  const deletions = [
    ...deletionsOf(bindings),
    ['delete', identityResources.identities, `--namespace=${namespace}`, name],
  ];
  return carryOut(context, { ...emptyPlan, deletions, notes: usersNote(pods) }, flags);
}

interface AssignFlags extends PlanFlags {
  /** Default: the name of the identity. */
  readonly selector?: string | undefined;
  readonly serviceAccount: string;
  readonly role: string;
  readonly scope: string;
}

async function assign(context: VerbContext, name: string, flags: AssignFlags): Promise<ExitCode> {
  const { identity, namespace } = await find(context, name);
  const { selector = name, serviceAccount, role, scope } = flags;
  if ((role === '') !== (scope === ''))
    throw usageError('--role and --scope belong together', 'Give both, or none.');
  if (!/^[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?$/.test(selector)) {
    throw usageError(
      `"${selector}" cannot be the value of a label`,
      'Use at most 63 letters, digits, hyphens, dots and underscores.',
    );
  }
  const objects = [bindingObject(namespace, checkName(name), name, selector, serviceAccount)];
  const scaleSets = await scaleSetLines(context, identity, 'assign', flags.run);
  const clientId = stringAt(specOf(identity), 'clientID');
  const roles: readonly AzLine[] =
    role === ''
      ? []
      : [
          [
            ...['role', 'assignment', 'create', '--assignee', clientId],
            ...['--role', role, '--scope', scope],
          ],
        ];
  const notes = [
    `Pods get it by the label ${bindingLabel}=${selector} in their template.`,
    ...scaleSets.notes,
    ...(specOf(identity)['type'] === 3
      ? [`It is federated: kubectl nmi identity federate ${name} -n ${namespace}`]
      : []),
  ];
  return carryOut(
    context,
    { ...emptyPlan, objects, az: [...scaleSets.lines, ...roles], notes },
    flags,
  );
}

interface UnassignFlags extends PlanFlags {
  readonly ignoreUnknownUsers: boolean;
}

async function unassign(
  context: VerbContext,
  name: string,
  flags: UnassignFlags,
): Promise<ExitCode> {
  const found = await find(context, name);
  const { identity, bindings, pods } = found;
  const kept = await whyKept(context, found, flags);
  const { lines, notes } =
    kept === undefined
      ? await scaleSetLines(context, identity, 'remove', flags.run)
      : { lines: [], notes: [`It stays assigned to the scale sets${kept}`] };
  return carryOut(
    context,
    {
      ...emptyPlan,
      deletions: deletionsOf(bindings),
      az: lines,
      notes: [...usersNote(pods), ...notes],
    },
    flags,
  );
}

/**
 * Why the scale sets keep the identity; undefined if nobody else is known to need it.
 * @throws PluginError with --run if that cannot be known.
 */
async function whyKept(
  { kubectl }: VerbContext,
  { identity, snapshot }: Found,
  { run, ignoreUnknownUsers }: UnassignFlags,
): Promise<string | undefined> {
  if (!needsAssignment(identity)) return undefined;
  const read = await kubectl.list(identityResources.identities, undefined);
  const isBlind = !read.ok && read.failure.kind === 'forbidden';
  const all = isBlind ? snapshot.identities : valueOf(read, 'list AzureIdentities');
  const { same, unknown } = findOtherUsers(identity, all);
  if (same.length > 0) {
    return ` for ${same.map((each) => `AzureIdentity ${titleOf(each)}`).join(', ')}.`;
  }
  if (ignoreUnknownUsers || (!isBlind && unknown.length === 0)) return undefined;
  const [why, remedy] =
    !read.ok && read.failure.kind === 'forbidden'
      ? [
          'you have no right to list AzureIdentities of all namespaces',
          `Ask for this RBAC rule: ${renderRule(read.failure.rule)}`,
        ]
      : [
          unknown.map((each) => halvesOf(each, identity)).join('; '),
          'Set both ids in both objects',
        ];
  const problem = `it is not known whether another namespace uses the identity: ${why}`;
  const nextStep = `${remedy}, or give --ignore-unknown-users.`;
  if (run)
    throw new PluginError(isBlind ? exitCodes.noRight : exitCodes.findings, problem, nextStep);
  return `: ${problem}. ${nextStep}`;
}

/** Of two objects that cannot be compared. */
function halvesOf(one: RawObject, other: RawObject): string {
  const [first, second] =
    stringAt(specOf(one), 'clientID') === ''
      ? ['a resource id', 'a client id']
      : ['a client id', 'a resource id'];
  return `AzureIdentity ${titleOf(one)} has only ${first}, AzureIdentity ${titleOf(other)} only ${second}`;
}

async function federate(
  context: VerbContext,
  name: string,
  accounts: readonly string[],
  run: boolean,
): Promise<ExitCode> {
  const { identity, pods, namespace, snapshot } = await find(context, name);
  const spec = specOf(identity);
  const bound = pods.map((pod) => stringAt(specOf(pod), 'serviceAccountName') || 'default');
  const isOfNode = stringAt(spec, 'federation') === 'node';
  const agents = verifiedOf(snapshot.agents);
  const subjects = isOfNode
    ? agentSubjects(agents)
    : [...new Set(accounts.length > 0 ? accounts : bound)].map((serviceAccount) => ({
        namespace,
        serviceAccount,
      }));
  if (subjects.length === 0 && isOfNode) {
    throw usageError(
      `no verified agent is in namespace ${context.agentNamespace}, so its service account is not known`,
      'Agents in another namespace need --agent-namespace; to verify agents is to list daemonsets.apps there.',
    );
  }
  if (subjects.length === 0) {
    throw usageError(
      `no pod has AzureIdentity ${name} yet, so no service account is known`,
      'Name them: --service-account NAME',
    );
  }
  const config = commonConfig(agents) ?? defaultConfig;
  const audience =
    config.entraAudience === '' ? cloudOf(config.cloud).audience : config.entraAudience;
  const federation = {
    resourceId: stringAt(spec, 'resourceID'),
    clientId: stringAt(spec, 'clientID'),
    issuer: await issuerOf(context),
    audience,
  };
  const tooMany =
    subjects.length > maxCredentials
      ? [
          `${subjects.length} service accounts, and Azure allows ${maxCredentials} federated credentials for an identity: share service accounts, or use federation: node.`,
        ]
      : [];
  const assumed =
    agents.length === 0
      ? ['No verified agent shows its options: the audience is assumed to be the default one.']
      : [];
  const notes = [...tooMany, ...assumed, ...subjects.map((each) => `subject ${subjectOf(each)}`)];
  const az = subjects.map((each) => federateLine(federation, each));
  return carryOut(context, { ...emptyPlan, az, notes }, { apply: false, run });
}

function agentSubjects([agent]: readonly AgentView[]): readonly Subject[] {
  if (agent === undefined) return [];
  const { namespace, serviceAccount } = agent;
  return [{ namespace, serviceAccount }];
}

/** @throws PluginError */
export async function issuerOf({ kubectl }: VerbContext): Promise<string> {
  const text = await kubectl.expect('read the issuer of service account tokens', [
    'get',
    '--raw=/.well-known/openid-configuration',
  ]);
  const issuer = stringAt(parseRecord(text), 'issuer');
  if (issuer.startsWith('https://')) return issuer;
  throw failedError(
    'the cluster has no issuer that Entra ID could read',
    'For AKS: az aks update --enable-oidc-issuer',
  );
}

async function scaleSetLines(
  { kubectl }: VerbContext,
  identity: RawObject,
  verb: 'assign' | 'remove',
  isRun: boolean,
): Promise<{ readonly lines: readonly AzLine[]; readonly notes: readonly string[] }> {
  if (!needsAssignment(identity)) return { lines: [], notes: [] };
  const found = stringAt(specOf(identity), 'resourceID');
  if (found === '' && isRun) {
    throw usageError(
      `AzureIdentity ${nameOf(identity)} has no spec.resourceID, which the az lines need`,
      'Set it: az identity list shows resource ids.',
    );
  }
  const resourceId = found === '' ? '<resource id of the identity>' : found;
  const computes = computesOf((await listNodes(kubectl, [])) ?? []);
  if (computes.length > 0) {
    return { lines: computes.map((each) => identityLine(each, verb, [resourceId])), notes: [] };
  }
  const template = {
    kind: 'vmss',
    subscription: '<id>',
    resourceGroup: '<node resource group>',
    name: '<scale set>',
    pool: '',
    nodes: [],
  } as const;
  const text = renderAz(identityLine(template, verb, [resourceId])).replaceAll("'", '');
  return { lines: [], notes: [`No node of Azure is visible to you. For each scale set: ${text}`] };
}

interface Found {
  readonly identity: RawObject;
  readonly namespace: string;
  readonly bindings: readonly RawObject[];
  readonly pods: readonly RawObject[];
  readonly snapshot: Snapshot;
}

/** @throws PluginError when there is none with the name. */
async function find(context: VerbContext, name: string): Promise<Found> {
  const namespace = await namespaceFor(context);
  const snapshot = await readSnapshot(context, namespace);
  const identity = snapshot.identities.find((each) => titleOf(each) === `${namespace}/${name}`);
  if (identity === undefined) {
    throw failedError(
      `namespace ${namespace} has no AzureIdentity ${name}`,
      `Create it: kubectl nmi identity add ${name} -n ${namespace} --resource-id …`,
    );
  }
  const bindings = bindingsOf(identity, snapshot);
  return { identity, namespace, bindings, pods: podsOf(bindings, snapshot), snapshot };
}

function bindingsOf(identity: RawObject, { bindings }: Snapshot): readonly RawObject[] {
  return bindings.filter(
    (each) =>
      namespaceOf(each) === namespaceOf(identity) &&
      stringAt(specOf(each), 'azureIdentity') === nameOf(identity),
  );
}

function podsOf(bindings: readonly RawObject[], { pods }: Snapshot): readonly RawObject[] {
  return pods.filter((pod) =>
    bindings.some((each) => {
      const { selector, serviceAccount } = asRecord(each['spec']) ?? {};
      const label = labelsOf(pod).get(bindingLabel);
      const account = stringAt(specOf(pod), 'serviceAccountName');
      return (
        namespaceOf(each) === namespaceOf(pod) &&
        label !== undefined &&
        label !== '' &&
        label === selector &&
        ((serviceAccount ?? '') === '' || serviceAccount === account)
      );
    }),
  );
}

function deletionsOf(bindings: readonly RawObject[]): readonly (readonly string[])[] {
  return bindings.map((each) => [
    ...['delete', identityResources.bindings, `--namespace=${namespaceOf(each)}`, nameOf(each)],
  ]);
}

function usersNote(pods: readonly RawObject[]): readonly string[] {
  return pods.length === 0
    ? []
    : [`${pods.length} pods lose it: ${pods.slice(0, 10).map(nameOf).join(', ')}`];
}
