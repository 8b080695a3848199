/**
 * Waits for an object that is about to arrive. The decision is made again at every change of the
 * index. It is final when no object can change it, the time is up, the client has disconnected, or
 * too many requests are waiting already, of all callers or of this one.
 */
import type { Clock } from '../../base/time/clock.ts';
import type { Pod } from '../../cache/index/objects.ts';
import { limitKeyOf } from '../callers/caller.ts';
import type { Waiters } from '../state/waiters.ts';
import type { CallerLimits } from './caller-limits.ts';
import type { Exchange } from './request.ts';

export interface ObjectWait {
  readonly clock: Clock;
  readonly waiters: Waiters;
  readonly limits: CallerLimits;
  readonly maxWaitMs: number;
}

interface Decided {
  readonly pod: Pod | undefined;
  /** A watch event may change it. */
  readonly isPending?: boolean;
}

/** @param first decision, made just now. */
export async function waitForObject<D extends Decided>(
  { clock, waiters, limits, maxWaitMs }: ObjectWait,
  exchange: Exchange,
  first: D,
  decide: () => D,
): Promise<D> {
  if (first.isPending !== true) return first;
  const { pod } = first;
  const endWait = limits.beginWait(pod === undefined ? exchange.caller.limitKey : limitKeyOf(pod));
  if (endWait === undefined) return first;
  try {
    const deadlineMs = exchange.startedAtMs + maxWaitMs;
    let decision = first;
    for (;;) {
      const leftMs = deadlineMs - clock.monotonicMs();
      if (leftMs <= 0 || exchange.isGone || waiters.isFull) return decision;
      await waiters.nextChange(leftMs);
      decision = decide();
      if (decision.isPending !== true) return decision;
    }
  } finally {
    endWait();
  }
}
