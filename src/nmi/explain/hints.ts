/**
 * Likely mistakes in the objects of a pod that gets no token: names that are right except for
 * letter case or namespace. Pure; scans every binding or identity of the cluster.
 */
import { fullName } from '../../cache/index/object-name.ts';
import {
  bindingLabel,
  maxBindingsOfLabel,
  type BoundGrants,
  type GrantIndex,
} from '../../cache/index/grant-index.ts';
import type { Binding, ObjectRef, Pod } from '../../cache/index/objects.ts';
import { printable } from '../../base/printable.ts';
import { reasonGuide } from '../base/reason-guide.ts';
import { textOfUnowned } from '../grants/refusal-text.ts';
import { unownedOfPod } from '../grants/unowned.ts';
import { throttleTexts, type Throttling } from '../callers/throttled-pods.ts';

const maxNamed = 3;

/** Sentences, each with what to change. */
export function findHints(pod: Pod, index: GrantIndex): readonly string[] {
  const grants = index.grantsOf(pod.uid);
  switch (grants?.kind) {
    case 'no-label':
      return hintsOfLabels(pod);
    case 'no-binding':
      return [
        ...hintsOfAccounts(pod, grants.bindingsForOtherAccounts),
        ...hintsOfSelectors(pod, grants.label, index),
      ];
    case 'no-identity':
      return grants.bindings.flatMap((binding) => hintsOfIdentity(binding, index));
    case 'bound':
      return [
        ...hintsOfSurplus(grants),
        ...grants.danglingBindings.flatMap((binding) => hintsOfIdentity(binding, index)),
      ];
    case 'exception':
    case undefined:
      return [];
  }
}

/** What `enforce` would refuse; in that mode, the refusal itself is shown. */
export function findOwnerHints(
  pod: Pod,
  clusterState: Parameters<typeof unownedOfPod>[1],
): readonly string[] {
  if (clusterState.owners.mode !== 'warn') return [];
  return unownedOfPod(pod, clusterState).flatMap(([, { by, entry }], index) =>
    index < maxNamed ? [`${textOfUnowned(by, entry, pod)} --identity-owners=warn serves it.`] : [],
  );
}

/** Limits that the pod exceeded in the last minutes, whatever its grants. */
export function findThrottleHints(throttled: readonly Throttling[]): readonly string[] {
  return throttled.map(
    ({ limit, count, agoMs }) =>
      `This pod is being throttled: it ${throttleTexts[limit]}, ${count} times in the last minutes, the last ` +
      `time ${Math.round(agoMs / 1_000)} s ago. ${reasonGuide.caller_throttled.fix}`,
  );
}

function hintsOfSurplus({ label, surplusBindings }: BoundGrants): readonly string[] {
  if (surplusBindings === 0) return [];
  return [
    `Of the AzureIdentityBindings with the selector "${printable(label)}" the ${maxBindingsOfLabel} oldest count; ` +
      `${surplusBindings} more do not.`,
  ];
}

function hintsOfLabels(pod: Pod): readonly string[] {
  if (pod.labels[bindingLabel] === '')
    return [`The label ${bindingLabel} is empty; give it a value.`];
  return Object.keys(pod.labels)
    .filter((key) =>
      key
        .toLowerCase()
        .replaceAll(/[^a-z]/g, '')
        .endsWith(bindingLabel),
    )
    .map((key) => `The label ${printable(key)} is not read; its name must be ${bindingLabel}.`);
}

function hintsOfAccounts(pod: Pod, bindings: readonly Binding[]): readonly string[] {
  return nameFew(bindings).map(
    ({ name, serviceAccount }) =>
      `AzureIdentityBinding ${name} is for service account "${printable(serviceAccount)}" only; the ` +
      `pod runs under "${printable(pod.serviceAccount)}".`,
  );
}

function hintsOfSelectors(pod: Pod, label: string, index: GrantIndex): readonly string[] {
  const sameText: Binding[] = [];
  const sameSelector: Binding[] = [];
  let inNamespace = 0;
  for (const binding of index.allBindings()) {
    if (binding.namespace === pod.namespace) {
      inNamespace++;
      if (isNearly(binding.selector, label)) sameText.push(binding);
    } else if (binding.selector === label) {
      sameSelector.push(binding);
    }
  }
  return [
    ...nameFew(sameText).map(
      (binding) =>
        `AzureIdentityBinding ${binding.name} has the selector "${printable(binding.selector)}": ` +
        `make it exactly "${printable(label)}".`,
    ),
    ...nameFew(sameSelector).map(
      (binding) =>
        `AzureIdentityBinding ${binding.namespace}/${binding.name} has that selector, but only ` +
        `bindings in namespace ${pod.namespace} count for this pod.`,
    ),
    ...(inNamespace > 0 ? [] : [`Namespace ${pod.namespace} has no AzureIdentityBinding at all.`]),
  ];
}

function hintsOfIdentity(binding: Binding, index: GrantIndex): readonly string[] {
  const wanted = binding.identityName;
  const nearby: ObjectRef[] = [];
  const elsewhere: ObjectRef[] = [];
  for (const identity of index.allIdentities()) {
    if (identity.namespace === binding.namespace) {
      if (isNearly(identity.name, wanted)) nearby.push(identity);
    } else if (identity.name === wanted) {
      elsewhere.push(identity);
    }
  }
  const shown = wanted === '' ? 'no AzureIdentity at all' : `AzureIdentity "${printable(wanted)}"`;
  const names = `AzureIdentityBinding ${binding.name} names ${shown}`;
  if (wanted === '') return [`${names}: set spec.azureIdentity.`];
  return [
    ...nameFew(nearby).map(({ name }) => `${names}; the one there is called "${name}".`),
    ...nameFew(elsewhere).map(
      (identity) =>
        `${names}; there is one in namespace ${identity.namespace}, but only one in namespace ` +
        `${binding.namespace} counts.`,
    ),
  ];
}

function isNearly(text: string, wanted: string): boolean {
  return text !== wanted && text.trim().toLowerCase() === wanted.trim().toLowerCase();
}

function nameFew<T extends ObjectRef>(objects: readonly T[]): readonly T[] {
  return objects.toSorted((a, b) => (fullName(a) < fullName(b) ? -1 : 1)).slice(0, maxNamed);
}
