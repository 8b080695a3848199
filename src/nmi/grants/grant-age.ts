/**
 * The age of the newest object that a pod's authorization depends on. Objects arrive in any order,
 * and a federated credential takes minutes to propagate: what a young grant lacks may arrive later.
 */
import type { GrantIndex } from '../../cache/index/grant-index.ts';
import type { Granted } from './grant.ts';

/** Wall-clock milliseconds of the newest of pod, binding and identity. */
export function grantedSinceWallMs(authorized: Granted, index: GrantIndex): number {
  const { pod, identity } = authorized;
  let newestMs = Math.max(pod.createdAtWallMs, identity?.createdAtWallMs ?? 0);
  const grants = index.grantsOf(pod.uid);
  if (grants?.kind !== 'bound') return newestMs;
  for (const binding of grants.bindings) {
    if (binding.identityName === identity?.name) {
      newestMs = Math.max(newestMs, binding.createdAtWallMs);
    }
  }
  return newestMs;
}
