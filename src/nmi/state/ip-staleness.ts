/**
 * For how long an address says whose it is, where nothing else does. Addresses go from pod to pod:
 * who has one now is known only as well as the node's pods are, and while nothing is heard of these,
 * a new pod at an address would be served as the one before it. An agent that is cut off from the
 * API server cannot tell whether the kubelet is, too, and starts no pods; so this has an end.
 *
 * 1. A watch that is well proves every 101 s at the latest that it is current, in the quietest of
 *    clusters, too. Where the limit leaves less time than that, it is asked for a proof: from half of
 *    the limit on the watch is checked, and replaced if it stays silent.
 * 2. Whether an address is believed is worked out when somebody asks; with the right to a token it is
 *    remembered for a second.
 */
import type { Clock } from '../../cache/clock.ts';
import type { Log } from '../base/log.ts';
import { startPeriodicJob } from '../base/periodic-job.ts';

export interface IpStalenessOptions {
  readonly clock: Clock;
  /** Longest time without proof; 0 for no end. */
  readonly limitMs: number;
  /** Since the last proof that the pods known are those of the node. */
  readonly stalenessMs: () => number;
  /** Asks the watch for a proof: it comes, or the watch is replaced. */
  readonly checkNow: () => void;
  readonly log: Log;
}

/** Between two looks while a proof is wanted, as a part of the limit. */
const lookEvery = 1 / 10;

export class IpStaleness implements Disposable {
  readonly #options: IpStalenessOptions;
  readonly #job: Disposable | undefined;
  #wasLost = false;

  constructor(options: IpStalenessOptions) {
    this.#options = options;
    const { clock, limitMs } = options;
    if (limitMs > 0) this.#job = startPeriodicJob(clock, limitMs / 2, () => this.#look());
  }

  get isCurrent(): boolean {
    const { limitMs, stalenessMs } = this.#options;
    return limitMs === 0 || stalenessMs() <= limitMs;
  }

  /** For readiness. */
  problem(): string | undefined {
    if (this.isCurrent) return undefined;
    const limitS = this.#options.limitMs / 1000;
    return `pods are known by address only, and not proven current for ${limitS} s`;
  }

  [Symbol.dispose](): void {
    this.#job?.[Symbol.dispose]();
  }

  /** Milliseconds until the next look. */
  #look(): number {
    const { limitMs, stalenessMs, checkNow } = this.#options;
    this.#report();
    const restMs = limitMs / 2 - stalenessMs();
    if (restMs <= 0) checkNow();
    return Math.max(restMs, limitMs * lookEvery);
  }

  #report(): void {
    const { log } = this.#options;
    const problem = this.problem();
    const isLost = problem !== undefined;
    if (isLost === this.#wasLost) return;
    this.#wasLost = isLost;
    if (isLost)
      log.error({ problem }, 'pod watch is stale, refusing pods that are known by address only');
    else log.info({}, 'pod watch is current again, serving pods that are known by address only');
  }
}
