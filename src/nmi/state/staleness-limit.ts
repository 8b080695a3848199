/**
 * How long what the watches delivered counts without a proof that it is current. There are two limits:
 *
 * 1. Of the node's pods, where a source address is the only evidence. Addresses are reused: a new pod
 *    at an address would be served as its predecessor, and without the API server the agent cannot
 *    determine whether the kubelet still starts pods.
 * 2. Of all that rights depend on: a grant that was deleted meanwhile would go on.
 *
 * A working watch proves at least every 101 s that it is current, even in an idle cluster. A lower
 * limit needs an explicit proof: after half of the limit a watch is checked, and replaced if it does
 * not answer. Staleness is computed at each use; together with the authorization it is cached for a
 * second.
 */
import type { Clock } from '../../base/time/clock.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import { describeAges, olderThan } from '../kube/watch/watch-report.ts';
import type { WatchedResource, Watches } from '../kube/watch/watches.ts';

export interface StalenessLimitOptions {
  readonly clock: Clock;
  /** Longest time without proof; 0 for no limit. */
  readonly limitMs: number;
  readonly watches: Pick<Watches, 'ages' | 'checkNow'>;
  /** The only watch with this limit; by default all have it. */
  readonly resource?: WatchedResource;
}

/** Interval between checks while a proof is due, as a fraction of the limit. */
const lookEvery = 1 / 10;

export class StalenessLimit implements Disposable {
  readonly #options: StalenessLimitOptions;
  readonly #job: Disposable | undefined;

  constructor(options: StalenessLimitOptions) {
    this.#options = options;
    const { clock, limitMs } = options;
    if (limitMs > 0) this.#job = startPeriodicJob(clock, limitMs / 2, () => this.#look());
  }

  /** The watches beyond the limit and their ages, or undefined if there are none. */
  problem(prefix = ''): string | undefined {
    const { limitMs, watches, resource } = this.#options;
    const old = limitMs === 0 ? [] : olderThan(limitMs, watches.ages(resource));
    return old.length === 0 ? undefined : `${prefix}not proven current: ${describeAges(old)}`;
  }

  [Symbol.dispose](): void {
    this.#job?.[Symbol.dispose]();
  }

  /** Returns milliseconds until the next check. */
  #look(): number {
    const { limitMs, watches, resource } = this.#options;
    const rests = watches.ages(resource).map((each) => {
      const restMs = limitMs / 2 - each.stalenessMs;
      // No mutation: a millisecond sooner is as good.
      if (restMs <= 0) watches.checkNow(each.resource);
      return restMs;
    });
    return Math.max(Math.min(...rests), limitMs * lookEvery);
  }
}
