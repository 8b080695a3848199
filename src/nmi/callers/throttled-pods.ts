/**
 * The pods that recently exceeded one of their limits, and which limit: for `explain`, the metrics
 * and the Events. A bounded number of pods and limits is kept, each for some minutes.
 */
import type { Clock } from '../../base/time/clock.ts';
import { ExpiringMap } from '../../base/expiring-map.ts';
import { keysOf } from '../../base/keys-of.ts';

/** What is limited for each pod, and what it did; a sentence without its subject. */
export const throttleTexts = {
  connections: 'opened more connections at once than one pod may have',
  connection_rate: 'opened connections faster than one pod may',
  tokens: 'waited for more different tokens at once than one pod may',
  requests: 'had more requests for tokens waiting at once than one pod may have',
  pending_objects:
    'had more requests waiting at once for its binding or identity than one pod may have',
  resources: 'requested tokens of more new resources within a minute than one pod may have',
  metadata: 'waited for more different metadata at once than one pod may',
} as const;

export type ThrottleLimit = keyof typeof throttleTexts;

export interface Throttling {
  readonly limit: ThrottleLimit;
  /** Requests or connections beyond the limit, in the last minutes. */
  readonly count: number;
  /** Milliseconds since the latest of them. */
  readonly agoMs: number;
}

const keptMs = 5 * 60_000;
const maxKept = 1_024;

interface Counted {
  count: number;
  lastAtMs: number;
}

export class ThrottledPods implements Disposable {
  readonly #clock: Clock;
  readonly #counted: ExpiringMap<Counted>;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#counted = new ExpiringMap(clock, maxKept);
  }

  note(uid: string, limit: ThrottleLimit): void {
    const key = `${uid} ${limit}`;
    const lastAtMs = this.#clock.monotonicMs();
    const counted = this.#counted.get(key);
    if (counted === undefined) {
      this.#counted.set(key, { count: 1, lastAtMs }, keptMs);
    } else {
      counted.count += 1;
      counted.lastAtMs = lastAtMs;
    }
  }

  of(uid: string): readonly Throttling[] {
    const nowMs = this.#clock.monotonicMs();
    return keysOf(throttleTexts).flatMap((limit) => {
      const counted = this.#counted.get(`${uid} ${limit}`);
      if (counted === undefined) return [];
      return [{ limit, count: counted.count, agoMs: nowMs - counted.lastAtMs }];
    });
  }

  [Symbol.dispose](): void {
    this.#counted[Symbol.dispose]();
  }
}
