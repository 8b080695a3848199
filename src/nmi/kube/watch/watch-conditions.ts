/** Readiness conditions of the watches. */
import type { Condition } from '../../base/readiness.ts';
import type { WatchGroup } from './watches.ts';
import { describeUnsynced } from './watch-report.ts';

/**
 * @param stalenessLimitMs longest time without proof that a watch is current. Beyond it the stored
 *   objects are still used, but new pods are probably missing.
 */
export function watchConditions(
  watches: Pick<WatchGroup, 'unsynced' | 'stale' | 'stats'>,
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
