/** `kubectl nmi identity assign`: the binding, and the az lines that assign the identity to the scale sets. */
import { bindingLabel } from '../../../cache/index/binding-label.ts';
import { stringAt } from '../../../base/json-value.ts';
import type { AzLine } from '../../azure/az.ts';
import { labelValue } from '../../../nmi/diagnosis/objects.ts';
import { isChain, isOfNode } from '../../azure/federation.ts';
import { parseIdentityId } from '../../azure/identity-id.ts';
import { assignLine, computesOf } from '../../azure/node-pools.ts';
import { nameOf, specOf, type RawObject } from '../../base/object.ts';
import { failedError, usageError, type ExitCode } from '../../base/plugin-error.ts';
import { findIdentity } from '../../cluster/bound.ts';
import { isOfKarpenter } from '../../findings/karpenter.ts';
import { nmiCommand, pin, type PinnedContext, type VerbContext } from '../context.ts';
import { carryOut, emptyPlan, unlessThere, type Plan } from '../plan.ts';

interface BindingFlags {
  /** Default: the name of the identity. */
  readonly selector?: string | undefined;
  readonly serviceAccount?: string;
}

export async function assign(
  unpinned: VerbContext,
  name: string,
  flags: BindingFlags & { readonly apply: boolean },
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { identity } = await findIdentity(context.kubectl, context.namespace, name);
  const added = await bind(context, name, flags);
  const azure = await azureOf(context, identity);
  const notes = [...added.notes, ...azure.notes];
  return carryOut(context, { ...emptyPlan, ...azure, objects: added.objects, notes }, flags.apply);
}

/** The binding, unless it is there. @throws PluginError */
export async function bind(
  context: PinnedContext,
  name: string,
  { selector = name, serviceAccount = '' }: BindingFlags,
): Promise<Pick<Plan, 'objects' | 'notes'>> {
  if (!labelValue.test(selector)) {
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
  const note = `Pods get it by the label ${bindingLabel}=${selector} in their template.`;
  return { objects: added.objects, notes: [...added.notes, note] };
}

/** What Azure and who runs the cluster have to give it, as lines and notes. */
export async function azureOf(
  context: PinnedContext,
  identity: RawObject,
): Promise<Pick<Plan, 'az' | 'notes'>> {
  const { lines, notes } = await scaleSetLines(context, identity);
  const federate = nmiCommand(context, 'identity', 'federate', nameOf(identity));
  const isFederated = specOf(identity)['type'] === 3;
  return {
    az: lines,
    notes: [
      ...notes,
      ...(isFederated ? [`It is federated: ${federate}`] : []),
      ...(isChain(identity)
        ? [`Its application has to trust what it begins with: ${federate}`]
        : []),
    ],
  };
}

async function scaleSetLines(
  context: PinnedContext,
  identity: RawObject,
): Promise<{ readonly lines: readonly AzLine[]; readonly notes: readonly string[] }> {
  // The tokens of other types do not come from the node.
  if (!isOfNode(identity)) return { lines: [], notes: [] };
  const found = stringAt(specOf(identity), 'resourceID').trim();
  const title = `AzureIdentity ${nameOf(identity)}`;
  if (found !== '' && parseIdentityId(found) === undefined) {
    throw failedError(
      `${title} has a spec.resourceID that is no id of a user-assigned identity: ${found}`,
      'Correct it: az identity list shows resource ids.',
    );
  }
  const resourceId = found === '' ? '<resource id of the identity>' : found;
  const read = await context.kubectl.list('nodes', undefined);
  const nodes = read.ok ? read.value : [];
  const kept = nodes.filter((each) => !isOfKarpenter(each));
  const federate = nmiCommand(context, 'migrate', 'to-federation', nameOf(identity));
  const notes = [
    `Agents with --identity-owners=enforce need a grant for it: ${nmiCommand(context, 'grants')}`,
    ...(kept.length === nodes.length
      ? []
      : [
          `Azure assigns it to no node that Karpenter makes${isChain(identity) ? '.' : `. There, use type 3: ${federate}`}`,
        ]),
  ];
  const computes = computesOf(kept);
  if (computes.length > 0) {
    return { lines: computes.map((each) => assignLine(each, resourceId)), notes };
  }
  const text = `az vmss identity assign --subscription <id> --resource-group <node resource group> --name <scale set> --identities ${resourceId}`;
  const none = `No ${kept.length === nodes.length ? '' : 'other '}node of Azure is visible to you. For each scale set: ${text}`;
  return { lines: [], notes: [...notes, none] };
}
