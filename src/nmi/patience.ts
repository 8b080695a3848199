/**
 * Holding a request for an object that is about to arrive. The decision is made again at every
 * change of what is known, and stands when it can no longer turn, the time is up, the client has
 * gone, or too many requests wait already.
 */
import type { Clock } from '../cache/clock.ts';
import type { Exchange } from './exchange.ts';
import type { Holds } from './holds.ts';

export interface Patience {
  readonly clock: Clock;
  readonly holds: Holds;
  readonly maxWaitMs: number;
}

/** @param isPending says of a decision whether a watch event may turn it. */
export async function settle<D>(
  patience: Patience,
  exchange: Exchange,
  decide: () => D,
  isPending: (decision: D) => boolean,
): Promise<D> {
  const deadlineMs = exchange.startedAtMs + patience.maxWaitMs;
  for (;;) {
    const decision = decide();
    const leftMs = deadlineMs - patience.clock.monotonicMs();
    if (!isPending(decision) || leftMs <= 0 || exchange.isGone || patience.holds.isFull) {
      return decision;
    }
    await patience.holds.nextChange(leftMs);
  }
}
