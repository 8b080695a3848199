/**
 * What is left of a pod that is gone: its connections. Nobody is at their other end any more, and
 * the next pod at the address must not meet them, nor what the kernel tracks of them: a reset ends
 * both. They are given a moment, in which a request on one is answered with the reason.
 */
import type { Clock } from '../../cache/clock.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import type { Listener } from './listener.ts';
import { debounce } from '../base/debounce.ts';
import type { Log } from '../base/log.ts';

export interface GonePodsOptions {
  readonly pods: PodIndex;
  readonly listeners: readonly Pick<Listener, 'reset'>[];
  readonly clock: Clock;
  readonly log: Log;
}

const afterMs = 2_000;

/** Resets connections some time after their pod has gone, until disposed. */
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
