/** `kubectl nmi identity delete`: undoes add and assign, and nothing that others use. */
import { stringAt } from '../../../base/json-value.ts';
import { printableList } from '../../../base/printable.ts';
import { azLine } from '../../azure/az.ts';
import { isOfNode } from '../../azure/federation.ts';
import { parseIdentityId } from '../../azure/identity-id.ts';
import { computesOf } from '../../azure/node-pools.ts';
import { nameOf, specOf, titleOf, type RawObject } from '../../base/object.ts';
import type { ExitCode } from '../../base/plugin-error.ts';
import { findIdentity } from '../../cluster/bound.ts';
import { identityResources } from '../../cluster/resources.ts';
import { pin, type PinnedContext, type VerbContext } from '../context.ts';
import { carryOut, emptyPlan, type Plan } from '../plan.ts';

export async function remove(
  unpinned: VerbContext,
  name: string,
  apply: boolean,
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { kubectl, namespace } = context;
  const { identity, bindings, pods } = await findIdentity(kubectl, namespace, name);
  const own = bindings.filter((each) => nameOf(each) === name);
  const others = bindings.filter((each) => nameOf(each) !== name);
  const { identities: kind, bindings: kindOfBindings } = identityResources;
  const deletion = (resource: string) => ['delete', resource, name, `--namespace=${namespace}`];
  const isKept = others.length > 0;
  const azure = isKept ? emptyPlan : await azureOf(context, identity);
  const notes = [
    ...(isKept
      ? [
          `AzureIdentity ${titleOf(identity)} is kept: ${named('AzureIdentityBinding', others)} uses it.`,
        ]
      : []),
    ...(pods.length === 0 || isKept
      ? []
      : [`Pods that lose it: ${printableList(pods.map(nameOf), 5)}.`]),
    ...azure.notes,
  ];
  const changes = [...own.map(() => deletion(kindOfBindings)), ...(isKept ? [] : [deletion(kind)])];
  return carryOut(context, { ...emptyPlan, changes, az: azure.az, notes }, apply);
}

/** Azure keeps the assignment while an AzureIdentity of any namespace needs it, or may need it. */
async function azureOf(
  { kubectl }: PinnedContext,
  identity: RawObject,
): Promise<Pick<Plan, 'az' | 'notes'>> {
  const resourceId = stringAt(specOf(identity), 'resourceID').trim();
  if (!isOfNode(identity)) return emptyPlan;
  const keep = (why: string) => ({
    az: [],
    notes: [`Its assignment to the nodes is kept: ${why}.`],
  });
  if (parseIdentityId(resourceId) === undefined) return keep('the object has no resource id of it');
  const [all, nodes] = await Promise.all([
    kubectl.list(identityResources.identities, undefined),
    kubectl.list('nodes', undefined),
  ]);
  if (!all.ok || !nodes.ok)
    return keep('you may not list nodes and AzureIdentities of all namespaces');
  const others = all.value.filter(
    (each) => titleOf(each) !== titleOf(identity) && isOfNode(each) && mayBeSame(each, identity),
  );
  if (others.length > 0) return keep(`${named('AzureIdentity', others)} needs it`);
  const computes = computesOf(nodes.value);
  const lines = computes.map(({ kind, subscription, resourceGroup, name }) =>
    azLine([kind, 'identity', 'remove'], {
      subscription,
      'resource-group': resourceGroup,
      name,
      identities: resourceId,
    }),
  );
  const note =
    'If nothing else on the nodes uses it, end its assignment; its AzureIdentityGrant and its role assignments stay.';
  return { az: lines, notes: [note] };
}

/** In Azure. Two without an id of the same kind may be. */
function mayBeSame(one: RawObject, other: RawObject): boolean {
  const idOf = (object: RawObject, field: string) =>
    stringAt(specOf(object), field).trim().toLowerCase().replace(/\/$/, '');
  const pairs = ['resourceID', 'clientID']
    .map((field) => [idOf(one, field), idOf(other, field)])
    .filter((pair) => !pair.includes(''));
  return pairs.length === 0 || pairs.some(([first, second]) => first === second);
}

function named(kind: string, objects: readonly RawObject[]): string {
  return `${kind} ${printableList(objects.map(titleOf), 5)}`;
}
