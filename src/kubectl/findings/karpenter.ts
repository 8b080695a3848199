/** Identities of type 0 where Karpenter makes the nodes: Azure assigns them to no such node. Pure. */
import { asRecord, stringAt } from '../../base/json-value.ts';
import { createFinding, type Finding } from '../../nmi/diagnosis/finding.ts';
import {
  labelsOf,
  nameOf,
  namespaceOf,
  recordsAt,
  specOf,
  stringsAt,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { podsByBinding, type Bound } from '../cluster/bound.ts';
import { matchesSelector } from './label-selector.ts';
import { hasEnded } from './pods.ts';

/** Node auto-provisioning of AKS is Karpenter, too. */
export function isOfKarpenter(node: RawObject): boolean {
  return labelsOf(node).has('karpenter.sh/nodepool');
}

/** A warning where a pod runs on such a node; a note where one may be scheduled to such a node. */
export function findUserAssigned(
  nodes: readonly RawObject[] = [],
  { identities, bindings, pods }: Bound,
): readonly Finding[] {
  const made = nodes.filter(isOfKarpenter);
  const [names, labels] = [new Set(made.map(nameOf)), made.map(labelsOf)];
  const isHere = (pod: RawObject) => names.has(stringAt(specOf(pod), 'nodeName'));
  // The pods of a workload have the same rules, and there may be thousands of nodes.
  const byRules = Map.groupBy(pods, (pod) => {
    const { nodeSelector, affinity } = specOf(pod);
    return JSON.stringify([nodeSelector, affinity]);
  });
  const possible = [...byRules.values()].flatMap((same) =>
    labels.some((each) => mayRun(same[0], each)) ? same : same.filter(isHere),
  );
  const podsOf = podsByBinding(possible.filter((pod) => !hasEnded(pod)));
  const byIdentity = Map.groupBy(
    bindings,
    (each) => `${namespaceOf(each)}/${stringAt(specOf(each), 'azureIdentity')}`,
  );
  return identities.flatMap((identity) => {
    const own = podsOf(byIdentity.get(titleOf(identity)) ?? []);
    if ((specOf(identity)['type'] ?? 0) !== 0 || own.length === 0) return [];
    const here = own.filter(isHere);
    const [verb, severity, shown] =
      here.length > 0 ? (['run', 'warning', here] as const) : (['may run', 'info', own] as const);
    return [
      createFinding('type_0_on_karpenter', {
        object: `AzureIdentity ${titleOf(identity)}`,
        severity,
        text: `It is of type 0, and bound pods ${verb} on nodes that Karpenter makes.`,
        details: shown.slice(0, 10).map((pod) => `Pod ${titleOf(pod)}`),
        fix: `Use type 3: kubectl nmi migrate to-federation ${nameOf(identity)} -n ${namespaceOf(identity)}`,
      }),
    ];
  });
}

/** By labels; taints are not looked at. */
function mayRun(pod: RawObject = {}, labels: ReadonlyMap<string, string>): boolean {
  const spec = specOf(pod);
  const affinity = asRecord(asRecord(spec['affinity'])?.['nodeAffinity']);
  const required = asRecord(affinity?.['requiredDuringSchedulingIgnoredDuringExecution']);
  const terms = recordsAt(required, 'nodeSelectorTerms');
  return (
    [...stringsAt(spec, 'nodeSelector')].every(([key, value]) => labels.get(key) === value) &&
    (terms.length === 0 || terms.some((term) => matchesSelector(term, labels)))
  );
}
