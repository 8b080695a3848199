/**
 * Holding a request for an object that is about to arrive. The decision is made again at every
 * change of what is known, and stands when it can no longer turn, the time is up, the client has
 * gone, or too many requests wait already, of all callers or of this one.
 */
import type { Clock } from '../../cache/clock.ts';
import type { Exchange } from './request.ts';
import type { CallerShare } from './caller-limits.ts';
import type { Holds } from '../state/waiters.ts';

export interface Patience {
  readonly clock: Clock;
  readonly holds: Holds;
  readonly share: CallerShare;
  readonly maxWaitMs: number;
}

/** @param isPending says of a decision whether a watch event may turn it. */
export async function settle<D>(
  patience: Patience,
  exchange: Exchange,
  decide: () => D,
  isPending: (decision: D) => boolean,
): Promise<D> {
  const { clock, holds, share } = patience;
  const first = decide();
  if (!isPending(first)) return first;
  const endHold = share.beginHold(exchange.caller.ip);
  if (endHold === undefined) return first;
  try {
    const deadlineMs = exchange.startedAtMs + patience.maxWaitMs;
    let decision = first;
    for (;;) {
      const leftMs = deadlineMs - clock.monotonicMs();
      if (leftMs <= 0 || exchange.isGone || holds.isFull) return decision;
      await holds.nextChange(leftMs);
      decision = decide();
      if (!isPending(decision)) return decision;
    }
  } finally {
    endHold();
  }
}
