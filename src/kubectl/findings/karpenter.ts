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

const mostPods = 10;

/** A warning where a pod runs on such a node; a note where one may be scheduled to such a node. */
export function findUserAssigned({
  nodes = [],
  identities,
  bindings,
  pods,
}: Bound & { readonly nodes?: readonly RawObject[] | undefined }): readonly Finding[] {
  const made = nodes.filter(isOfKarpenter);
  if (made.length === 0) return [];
  const names = new Set(made.map(nameOf));
  const podsOf = podsByBinding(pods.filter((pod) => !hasEnded(pod)));
  const byIdentity = Map.groupBy(
    bindings,
    (each) => `${namespaceOf(each)}/${stringAt(specOf(each), 'azureIdentity')}`,
  );
  const nodeOf = (pod: RawObject) => stringAt(specOf(pod), 'nodeName');
  return identities.flatMap((identity) => {
    const title = titleOf(identity);
    if ((specOf(identity)['type'] ?? 0) !== 0) return [];
    const own = podsOf(byIdentity.get(title) ?? []);
    const here = own.filter((pod) => names.has(nodeOf(pod)));
    const isHere = here.length > 0;
    const next = isHere ? undefined : own.find((pod) => made.some((node) => mayRun(pod, node)));
    if (!isHere && next === undefined) return [];
    return [
      createFinding('type_0_on_karpenter', {
        object: `AzureIdentity ${title}`,
        severity: isHere ? 'warning' : 'info',
        text: isHere
          ? 'It is of type 0, and bound pods run on nodes that Karpenter made.'
          : 'It is of type 0, and bound pods may be scheduled to nodes that Karpenter makes.',
        details: (next === undefined ? here : [next])
          .slice(0, mostPods)
          .map((pod) =>
            isHere
              ? `Pod ${titleOf(pod)} runs on node ${nodeOf(pod)}`
              : `Pod ${titleOf(pod)} has no rule against such nodes`,
          ),
        fix: `Use type 3: kubectl nmi migrate to-federation ${nameOf(identity)} -n ${namespaceOf(identity)}`,
      }),
    ];
  });
}

/** By labels; taints are not looked at. */
function mayRun(pod: RawObject, node: RawObject): boolean {
  const labels = labelsOf(node);
  const spec = specOf(pod);
  const affinity = asRecord(asRecord(spec['affinity'])?.['nodeAffinity']);
  const terms = recordsAt(
    asRecord(affinity?.['requiredDuringSchedulingIgnoredDuringExecution']),
    'nodeSelectorTerms',
  );
  return (
    [...stringsAt(spec, 'nodeSelector')].every(([key, value]) => labels.get(key) === value) &&
    (terms.length === 0 || terms.some((term) => matchesSelector(term, labels)))
  );
}
