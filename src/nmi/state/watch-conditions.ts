/** What must hold of the watches for this node to be served. */
import type { Condition } from '../base/readiness.ts';
import type { Watches } from '../kube/watch/watches.ts';
import { describeUnsynced } from './watch-report.ts';

/**
 * @param stalenessLimitMs without proof for longer that it is current, what is known is used on,
 * but new pods are probably missed.
 */
export function watchConditions(
  watches: Pick<Watches, 'unsynced' | 'stale' | 'stats'>,
  stalenessLimitMs: number,
): readonly Condition[] {
  return [
    {
      name: 'watches',
      problem: () => describeUnsynced(watches),
    },
    {
      name: 'watches_current',
      problem: () => {
        const stale = watches.stale(stalenessLimitMs);
        if (stale.length === 0) return undefined;
        return `no proof for ${stalenessLimitMs / 1000} s that ${stale.join(', ')} are current`;
      },
    },
  ];
}
