/** What a young grant still lacks may arrive later: objects, a federated credential in minutes. */
import type { GrantIndex } from '../../cache/index/grant-index.ts';
import type { Granted } from './grant.ts';

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
