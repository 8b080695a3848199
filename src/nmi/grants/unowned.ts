/** Objects that give pods of this node an identity that no grant gives to their namespace. Pure. */
import type { PodGrants } from '../../cache/index/grant-index.ts';
import { hasEnded, type Exception, type Identity, type Pod } from '../../cache/index/objects.ts';
import type { Unowned } from './grant.ts';
import type { DemandState } from './identities-in-use.ts';

/** Namespace users decide how many bindings exist. */
export const maxUnowned = 1_000;

/** Each object once; at most `maxUnowned`. */
export function countUnowned(clusterState: DemandState): number {
  const { pods, grants } = clusterState;
  // Pods of one label share their grants.
  const done = new Set<PodGrants>();
  const objects = new Set<Identity | Exception>();
  for (const pod of pods.all()) {
    const ofPod = grants.grantsOf(pod.uid);
    if (hasEnded(pod) || ofPod === undefined || done.has(ofPod)) continue;
    // No mutation: it only saves time, since each object counts once.
    done.add(ofPod);
    for (const [object] of unownedOfPod(pod, clusterState)) objects.add(object);
    if (objects.size >= maxUnowned) return maxUnowned;
  }
  return objects.size;
}

export function unownedOfPod(
  pod: Pod,
  { grants, owners, upstreams }: Omit<DemandState, 'pods'>,
): readonly (readonly [Identity | Exception, Unowned])[] {
  const ofPod = grants.grantsOf(pod.uid);
  if (ofPod?.kind === 'exception') {
    const { exception } = ofPod;
    const entry = owners.lacking(pod.namespace);
    if (entry === undefined) return [];
    return [[exception, { kind: 'AzurePodIdentityException', name: exception.name, entry }]];
  }
  if (ofPod?.kind !== 'bound') return [];
  return ofPod.identities.flatMap((identity) => {
    const choice = upstreams.of(identity, pod);
    if (choice.kind === 'unusable') return [];
    const entry = owners.lacking(pod.namespace, choice.upstream);
    if (entry === undefined) return [];
    return [[identity, { kind: 'AzureIdentity', name: identity.name, entry }] as const];
  });
}
