/**
 * `kubectl nmi identity assign` and `unassign`: the binding, and the az lines that assign the identity
 * to the scale sets.
 */
import { bindingLabel } from '../../../cache/index/binding-label.ts';
import { stringAt } from '../../../base/json-value.ts';
import { renderAz, type AzLine } from '../../azure/az.ts';
import { parseIdentityId } from '../../azure/identity-id.ts';
import { computesOf, identityLine } from '../../azure/node-pools.ts';
import { nameOf, namespaceOf, specOf, titleOf, type RawObject } from '../../base/object.ts';
import { failedError, usageError, type ExitCode } from '../../base/plugin-error.ts';
import { listNodes } from '../../cluster/agent-state.ts';
import { findIdentity, type Found } from '../../cluster/bound.ts';
import { identityResources } from '../../cluster/resources.ts';
import { findOtherUsers, needsAssignment } from '../../findings/identity-users.ts';
import { valueOf } from '../../transport/kubectl.ts';
import { renderRule } from '../../transport/kubectl-failure.ts';
import { nmiCommand, pin, type VerbContext } from '../context.ts';
import { carryOut, emptyPlan, unlessThere, type PlanFlags } from '../plan.ts';

interface AssignFlags extends PlanFlags {
  /** Default: the name of the identity. */
  readonly selector?: string | undefined;
  readonly serviceAccount: string;
}

export async function assign(
  unpinned: VerbContext,
  name: string,
  flags: AssignFlags,
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { identity } = await findIdentity(context.kubectl, context.namespace, name);
  const { selector = name, serviceAccount } = flags;
  if (!/^[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?$/.test(selector)) {
    throw usageError(
      `"${selector}" cannot be the value of a label`,
      'Use at most 63 letters, digits, hyphens, dots and underscores.',
    );
  }
  const added = await unlessThere(context, 'AzureIdentityBinding', name, {
    azureIdentity: name,
    selector,
    ...(serviceAccount === '' ? {} : { serviceAccount }),
  });
  const scaleSets = await scaleSetLines(context, identity, 'assign');
  const notes = [
    ...added.notes,
    `Pods get it by the label ${bindingLabel}=${selector} in their template.`,
    ...scaleSets.notes,
    ...(specOf(identity)['type'] === 3
      ? [`It is federated: ${nmiCommand(context, 'identity', 'federate', name)}`]
      : []),
  ];
  const plan = { ...emptyPlan, objects: added.objects, az: scaleSets.lines, notes };
  return carryOut(context, plan, flags);
}

export async function unassign(
  unpinned: VerbContext,
  name: string,
  flags: PlanFlags,
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const found = await findIdentity(context.kubectl, context.namespace, name);
  const { identity, bindings, pods } = found;
  const kept = await whyKept(context, found);
  const { lines, notes } =
    kept === undefined
      ? await scaleSetLines(context, identity, 'remove')
      : { lines: [], notes: [`It stays assigned to the scale sets${kept}`] };
  const plan = {
    ...emptyPlan,
    deletions: bindings.map((each) => ({
      resource: identityResources.bindings,
      namespace: namespaceOf(each),
      name: nameOf(each),
    })),
    az: lines,
    notes: [...usersNote(pods), ...notes],
  };
  return carryOut(context, plan, flags);
}

/** Why the scale sets keep the identity; undefined if nobody else needs it. */
async function whyKept(
  { kubectl }: VerbContext,
  { identity, identities }: Found,
): Promise<string | undefined> {
  if (!needsAssignment(identity)) return undefined;
  const read = await kubectl.list(identityResources.identities, undefined);
  const isBlind = !read.ok && read.failure.kind === 'forbidden';
  const all = isBlind ? identities : valueOf(read, 'list AzureIdentities');
  const { same, unknown } = findOtherUsers(identity, all);
  if (same.length > 0) {
    return ` for ${same.map((each) => `AzureIdentity ${titleOf(each)}`).join(', ')}.`;
  }
  if (!isBlind && unknown.length === 0) return undefined;
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
  return `: it is not known whether another namespace uses the identity: ${why}. ${remedy}.`;
}

/** Of two objects that cannot be compared. */
function halvesOf(one: RawObject, other: RawObject): string {
  const [first, second] =
    stringAt(specOf(one), 'clientID') === ''
      ? ['a resource id', 'a client id']
      : ['a client id', 'a resource id'];
  return `AzureIdentity ${titleOf(one)} has only ${first}, AzureIdentity ${titleOf(other)} only ${second}`;
}

async function scaleSetLines(
  { kubectl }: VerbContext,
  identity: RawObject,
  verb: 'assign' | 'remove',
): Promise<{ readonly lines: readonly AzLine[]; readonly notes: readonly string[] }> {
  if (!needsAssignment(identity)) return { lines: [], notes: [] };
  const found = stringAt(specOf(identity), 'resourceID').trim();
  const title = `AzureIdentity ${nameOf(identity)}`;
  if (found !== '' && parseIdentityId(found) === undefined) {
    throw failedError(
      `${title} has a spec.resourceID that is no id of a user-assigned identity: ${found}`,
      'Correct it: az identity list shows resource ids.',
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

function usersNote(pods: readonly RawObject[]): readonly string[] {
  return pods.length === 0
    ? []
    : [`Pods that lose it (${pods.length}): ${pods.slice(0, 10).map(nameOf).join(', ')}`];
}
