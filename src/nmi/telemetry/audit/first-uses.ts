/**
 * The identities and resources that each pod was served before. The first token of each is recorded
 * even if the budget of the pod is used up: no flood of other requests hides what a pod reached.
 * Only served tokens count, so a pod cannot invent uses. It has at most `maxUses` in memory, and
 * beyond `mostInPeriod` new ones in a minute they are recorded within its budget only.
 */
import { dropOldest } from '../../../base/drop-oldest.ts';
import type { Clock } from '../../../base/time/clock.ts';

const maxUses = 256;
const mostInPeriod = 600;
const periodMs = 60_000;
/** A node has 250 pods at most. What the longest known pod used is recorded once more. */
const maxPods = 512;

interface PodUses {
  readonly known: Set<string>;
  periodStartMs: number;
  inPeriod: number;
}

export class FirstUses {
  readonly #clock: Clock;
  readonly #byPod = new Map<string, PodUses>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  take(pod: string, use: string): boolean {
    const uses = this.#byPod.get(pod) ?? this.#add(pod);
    const { known } = uses;
    if (known.has(use)) return false;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - uses.periodStartMs >= periodMs) {
      uses.periodStartMs = nowMs;
      uses.inPeriod = 0;
    }
    if (uses.inPeriod >= mostInPeriod) return false;
    uses.inPeriod += 1;
    known.add(use);
    dropOldest(known, maxUses);
    return true;
  }

  #add(pod: string): PodUses {
    const added: PodUses = { known: new Set(), periodStartMs: -Infinity, inPeriod: 0 };
    this.#byPod.set(pod, added);
    dropOldest(this.#byPod, maxPods);
    return added;
  }
}
