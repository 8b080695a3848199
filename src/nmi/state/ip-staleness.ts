/**
 * How long a source address identifies a pod, if it is the only evidence. Addresses are reused:
 * without news of the node's pods, a new pod at an address would be served as its predecessor.
 * Without the API server, the agent cannot determine whether the kubelet still starts pods, so the
 * time is limited.
 *
 * 1. A working watch proves at least every 101 s that it is current, even in an idle cluster. A
 *    lower limit needs an explicit proof: after half of the limit the watch is checked, and
 *    replaced if it does not answer.
 * 2. Staleness is computed at each use; together with the authorization it is cached for a second.
 */
import type { Clock } from '../../base/time/clock.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';

export interface IpStalenessOptions {
  readonly clock: Clock;
  /** Longest time without proof; 0 for no limit. */
  readonly limitMs: number;
  /** Whether the kernel records callers: then few of them are known by address, and no limit is a fault. */
  readonly attests: boolean;
  /** Milliseconds since the last proof that the stored pods are those of the node. */
  readonly stalenessMs: () => number;
  /** Requests a proof from the watch, which is replaced if it sends none. */
  readonly checkNow: () => void;
}

/** Interval between checks while a proof is due, as a fraction of the limit. */
const lookEvery = 1 / 10;

export class IpStaleness implements Disposable {
  readonly #options: IpStalenessOptions;
  readonly #job: Disposable | undefined;

  constructor(options: IpStalenessOptions) {
    this.#options = options;
    const { clock, limitMs } = options;
    if (limitMs > 0) this.#job = startPeriodicJob(clock, limitMs / 2, () => this.#look());
  }

  get isCurrent(): boolean {
    const { limitMs, stalenessMs } = this.#options;
    return limitMs === 0 || stalenessMs() <= limitMs;
  }

  /** Problem for readiness, or undefined. */
  problem(): string | undefined {
    if (this.#options.attests || this.isCurrent) return undefined;
    const limitS = this.#options.limitMs / 1000;
    return `pods are known by address only, and not proven current for ${limitS} s`;
  }

  [Symbol.dispose](): void {
    this.#job?.[Symbol.dispose]();
  }

  /** Returns milliseconds until the next check. */
  #look(): number {
    const { limitMs, stalenessMs, checkNow } = this.#options;
    const restMs = limitMs / 2 - stalenessMs();
    if (restMs <= 0) checkNow();
    return Math.max(restMs, limitMs * lookEvery);
  }
}
