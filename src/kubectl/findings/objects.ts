/** Mistakes in the objects themselves, independent of pods. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { fullName } from '../../cache/index/object-name.ts';
import { maxBindingsOfLabel, oldest } from '../../cache/index/grant-index.ts';
import { createFinding, type Finding, oneFinding } from '../../nmi/diagnosis/finding.ts';
import {
  findingOfIgnored,
  findingsOfBinding,
  findingsOfIdentity,
} from '../../nmi/diagnosis/objects.ts';
import { nearIdentities } from '../../nmi/diagnosis/pod.ts';
import { nearestIn } from '../../nmi/grants/near-names.ts';
import { parseBinding, parseIdentity } from '../../nmi/kube/watch/parse.ts';
import { labelsOf, nameOf, namespaceOf, titleOf, type RawObject } from '../base/object.ts';
import { hasEnded, hasExceptedLabel, podLabelsOf, type PodContext } from './pods.ts';
import { findingsOfStatus } from './status.ts';
import { lacksNode } from './variants.ts';

export function examineObjects(context: PodContext): readonly Finding[] {
  return [
    // Findings of identities and bindings name an unusable one.
    ...context.view.unusable
      .filter(({ kind }) => kind !== 'AzureIdentity' && kind !== 'AzureIdentityBinding')
      .map(({ kind, title, reason }) => findingOfIgnored(`${kind} ${title}`, reason)),
    ...ofIdentities(context),
    ...ofBindings(context),
    ...ofExceptions(context),
  ];
}

function ofIdentities({ snapshot, view, knowsOptions }: PodContext): readonly Finding[] {
  const { grants, ...rules } = view.clusterState;
  const isDecided = knowsOptions && snapshot.grants !== undefined;
  const bindings = [...grants.allBindings()];
  const bound = new Set(
    bindings.map(({ namespace, identityName }) => `${namespace}/${identityName}`),
  );
  const all = new Set(snapshot.identities.map(titleOf));
  return inScope(snapshot.identities, snapshot).flatMap((raw) => {
    const ref = { namespace: namespaceOf(raw), name: nameOf(raw) };
    const own = findingsOfIdentity(ref, parseIdentity(raw), undefined, rules);
    const found = own.length > 0 ? own : findingsOfStatus(raw, isDecided);
    if (bound.has(fullName(ref))) return found;
    const elsewhere = bindings.find(
      ({ namespace, identityName }) =>
        identityName === ref.name && !all.has(`${namespace}/${identityName}`),
    );
    const object = `AzureIdentity ${fullName(ref)}`;
    const text = 'No AzureIdentityBinding of its namespace names it.';
    if (elsewhere === undefined) {
      const fix = `Bind it: kubectl nmi identity assign ${ref.name} -n ${ref.namespace} --apply`;
      return [...found, createFinding('identity_unbound', { object, text, fix })];
    }
    const { namespace } = elsewhere;
    return [
      ...found,
      createFinding('identity_unbound', {
        object,
        text: `${text} AzureIdentityBinding ${fullName(elsewhere)} does, and uses only identities of namespace ${namespace}.`,
        fix: `Bind it in its own namespace, or have the owners of namespace ${namespace} create theirs.`,
      }),
    ];
  });
}

function ofBindings(context: PodContext): readonly Finding[] {
  const { snapshot, view } = context;
  const { grants } = view.clusterState;
  const identities = new Map(snapshot.identities.map((raw) => [titleOf(raw), parseIdentity(raw)]));
  const bySelector = Map.groupBy(
    grants.allBindings(),
    ({ namespace, selector }) => `${namespace}/${selector}`,
  );
  const labels = new Set(
    snapshot.pods.map((pod) => `${namespaceOf(pod)}/${labelsOf(pod).get(bindingLabel) ?? ''}`),
  );
  return inScope(snapshot.bindings, snapshot).flatMap((raw) => {
    const ref = { namespace: namespaceOf(raw), name: nameOf(raw) };
    const { namespace } = ref;
    const parsed = parseBinding(raw);
    if (!parsed.ok) return findingsOfBinding(ref, parsed);
    const binding = parsed.value;
    const { identityName, selector } = binding;
    const key = `${namespace}/${selector}`;
    const counting = oldest(bySelector.get(key) ?? [], maxBindingsOfLabel);
    const found = findingsOfBinding(ref, parsed, {
      identity: identities.get(`${namespace}/${identityName}`),
      meant: nearestIn(namespace, identityName, grants.allIdentities(), ({ name }) => name),
      isSurplus: !counting.some(({ name }) => name === binding.name),
    }).map((finding) =>
      finding.code === 'identity_missing'
        ? { ...finding, details: nearIdentities(binding, grants) }
        : finding,
    );
    if (labels.has(key) || found.some(({ code }) => code === 'selector_unusable')) return found;
    return [
      ...found,
      createFinding('binding_unused', {
        object: `AzureIdentityBinding ${fullName(ref)}`,
        text: `No pod of namespace ${namespace} has the label ${bindingLabel}=${selector}.`,
        fix: `Label the pod template of what is meant to have it, or delete it: kubectl -n ${namespace} delete azureidentitybinding ${ref.name}`,
      }),
    ];
  });
}

/** An exception for fewer is hardly a mistake. */
const fewPods = 3;

function ofExceptions(context: PodContext): readonly Finding[] {
  const { snapshot } = context;
  return inScope(snapshot.exceptions, snapshot).flatMap((exception) => {
    const namespace = namespaceOf(exception);
    const object = `AzurePodIdentityException ${titleOf(exception)}`;
    if (podLabelsOf(exception).size === 0) {
      return oneFinding('exception_without_labels', {
        object,
        text: 'Its spec.podLabels is empty: it matches no pod.',
      });
    }
    const pods = snapshot.pods.filter((pod) => namespaceOf(pod) === namespace && !hasEnded(pod));
    const matching = pods.filter((pod) => hasExceptedLabel(pod, exception));
    if (matching.length === 0) {
      const text = `No pod of namespace ${namespace} has one of its labels.`;
      return oneFinding('exception_unused', { object, text });
    }
    const doubt = doubtOfGrants(namespace, context);
    const found =
      doubt === undefined
        ? []
        : [createFinding('identity_not_owned', { object, severity: 'info', text: doubt })];
    const isBroad = matching.length >= fewPods && matching.length * 2 > pods.length;
    if (!isBroad) return found;
    const text = `It matches ${matching.length} of the ${pods.length} pods of namespace ${namespace}: their requests are for every identity of the nodes.`;
    return [...found, createFinding('exception_broad', { object, text })];
  });
}

/** Of grants that cannot be read: no status of an exception shows what they decide. */
function doubtOfGrants(
  namespace: string,
  { snapshot, config, knowsOptions }: PodContext,
): string | undefined {
  const mayEnforce = !knowsOptions || config.identityOwners === 'enforce';
  if (snapshot.grants !== undefined || !mayEnforce) return undefined;
  const where = knowsOptions ? '' : ' where the agent has --identity-owners=enforce,';
  return `Its pods get 400 identity_not_owned${where} if ${lacksNode(`namespace ${namespace}`)}.`;
}

/** Objects of other namespaces are read for near misses only. */
function inScope(
  objects: readonly RawObject[],
  { scope }: PodContext['snapshot'],
): readonly RawObject[] {
  return objects.filter((each) => scope === undefined || scope === namespaceOf(each));
}
