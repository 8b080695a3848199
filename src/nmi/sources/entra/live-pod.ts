/** One live pod of a service account, as long as it lives: each pod costs a token. Pure. */
import type { ObjectName } from '../../../cache/index/object-name.ts';
import { hasEnded, type Pod } from '../../../cache/index/objects.ts';

/** Over at most the pods of one node, and only when a token is fetched. */
export function livePodOf(pods: Iterable<Pod>, account: ObjectName): Pod | undefined {
  let best: Pod | undefined;
  for (const pod of pods) {
    if (pod.namespace !== account.namespace || pod.serviceAccount !== account.name) continue;
    if (hasEnded(pod)) continue;
    if (best === undefined || isBetter(pod, best)) best = pod;
  }
  return best;
}

/** The API server issues no token for a pod that is nearly deleted. */
function isBetter(pod: Pod, than: Pod): boolean {
  if (pod.terminating !== than.terminating) return than.terminating;
  if (pod.createdAtWallMs !== than.createdAtWallMs) {
    return pod.createdAtWallMs < than.createdAtWallMs;
  }
  return pod.uid < than.uid;
}
