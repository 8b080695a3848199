/**
 * Resets the connections of deleted pods. The next pod with the same address must not collide with
 * them or with their conntrack entries; a reset ends both. Until the reset, a request on such a
 * connection is refused with the reason.
 */
import type { Clock } from '../../base/time/clock.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import type { Listener } from './listener.ts';
import { debounce } from '../../base/time/debounce.ts';
import type { Log } from '../../base/log.ts';

export interface GonePodsOptions {
  readonly pods: PodIndex;
  readonly listeners: readonly Pick<Listener, 'reset'>[];
  readonly clock: Clock;
  readonly log: Log;
}

const afterMs = 2_000;

/** Resets connections some time after the deletion of their pod, until disposed. */
export function resetGonePods({ pods, listeners, clock, log }: GonePodsOptions): Disposable {
  const sweep = debounce(clock, afterMs, () => {
    let connections = 0;
    for (const listener of listeners) {
      connections += listener.reset((caller) => caller.hasOutlived(pods));
    }
    if (connections > 0) log.info({ connections }, 'connections of deleted pods reset');
  });
  const unsubscribe = pods.onChange(() => sweep.trigger());
  return {
    [Symbol.dispose]: () => {
      unsubscribe();
      sweep[Symbol.dispose]();
    },
  };
}
