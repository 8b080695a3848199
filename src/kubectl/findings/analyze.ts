/** Every finding of a snapshot: of its pods, objects, owners of pods, and nodes. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { sortFindings, type Finding } from '../../nmi/diagnosis/finding.ts';
import { nameOf, specOf, type RawObject } from '../base/object.ts';
import type { Snapshot } from '../cluster/snapshot.ts';
import { examineNodes, ofAgents } from './agents.ts';
import type { AgentContexts } from './contexts.ts';
import { findUserAssigned } from './karpenter.ts';
import { examineObjects } from './objects.ts';
import { findOwnerLabels } from './owners.ts';
import { examinePod, hasEnded, isOnWindows, wantsIdentity } from './pods.ts';

export function analyze(snapshot: Snapshot, contexts: AgentContexts): readonly Finding[] {
  const wanting = snapshot.pods.flatMap((pod) => {
    if (hasEnded(pod)) return [];
    const findings = examinePod(pod, contexts.of(pod))?.findings ?? [];
    return wantsIdentity(pod, findings) ? [{ pod, findings }] : [];
  });
  const all = [
    ...wanting.flatMap(({ findings }) => findings),
    ...contexts.all().flatMap(examineObjects),
    ...findOwnerLabels(snapshot.workloads),
    ...findUserAssigned(snapshot.nodes, snapshot),
    ...ofNodes(
      wanting.map(({ pod }) => pod).filter((pod) => !isOnWindows(pod, snapshot)),
      snapshot,
    ),
  ];
  // Each pod of an owner reports the same finding of that owner.
  const byText = new Map(all.map((each) => [`${each.code} ${each.object} ${each.text}`, each]));
  return sortFindings([...byText.values()]);
}

/** Of the whole cluster; in one namespace, the nodes of pods that want an identity. */
function ofNodes(
  wanting: readonly RawObject[],
  { agents, nodes = [], scope }: Snapshot,
): readonly Finding[] {
  if (agents === undefined) return [];
  const names = new Set(wanting.map((pod) => stringAt(specOf(pod), 'nodeName')));
  const relevant = nodes.filter((node) => scope === undefined || names.has(nameOf(node)));
  // Without the right to read nodes, they are known by the pods.
  const known = new Set(['', ...nodes.map(nameOf)]);
  const unread = [...names].filter((name) => !known.has(name));
  const all = [...relevant, ...unread.map((name) => ({ metadata: { name } }))];
  const examined = new Set(all.map(nameOf));
  return [
    ...examineNodes(all, agents),
    ...ofAgents(agents.filter(({ node }) => examined.has(node))),
  ];
}
