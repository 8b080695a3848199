/** Identities of type 0 where Karpenter makes the nodes: Azure assigns them to no such node. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { type Finding, oneFinding } from '../../nmi/diagnosis/finding.ts';
import { isChain, isOfNode } from '../azure/federation.ts';
import { labelsOf, nameOf, namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import { usesIn, type Bound } from '../cluster/bound.ts';
import { hasEnded } from './pods.ts';

/** Node auto-provisioning of AKS is Karpenter, too. */
export function isOfKarpenter(node: RawObject): boolean {
  return labelsOf(node).has('karpenter.sh/nodepool');
}

export function findUserAssigned(
  nodes: readonly RawObject[] = [],
  { identities, bindings, pods }: Bound,
): readonly Finding[] {
  const made = new Set(nodes.filter(isOfKarpenter).map(nameOf));
  const here = pods.filter((pod) => made.has(stringAt(specOf(pod), 'nodeName')) && !hasEnded(pod));
  const usesOf = usesIn({ bindings, pods: here });
  return identities.flatMap((identity) => {
    const { pods: own } = usesOf(identity);
    if (!isOfNode(identity) || own.length === 0) return [];
    const fix = isChain(identity)
      ? 'Run its pods on other nodes: a chain cannot begin with a token by federation.'
      : `Use type 3: kubectl nmi migrate to-federation ${nameOf(identity)} -n ${namespaceOf(identity)}`;
    return oneFinding('type_0_on_karpenter', {
      object: `AzureIdentity ${titleOf(identity)}`,
      text: 'Its tokens come from the node, and bound pods run on nodes that Karpenter makes.',
      details: own.slice(0, 10).map((pod) => `Pod ${titleOf(pod)}`),
      fix,
    });
  });
}
