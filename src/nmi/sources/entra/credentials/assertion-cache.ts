/**
 * Assertions in memory, each for as long as it is sure to be accepted.
 *
 * Two clocks: the monotonic one counts the life that was granted, from before it was asked for; the
 * wall clock is compared with the expiry the token itself names. Both must allow it. So neither a
 * step of the wall clock nor a machine that slept lends an assertion any life; a wall clock that is
 * ahead costs a request and no more.
 */
import { Alarms, type Alarm } from '../../../../cache/token/timer-queue.ts';
import type { Clock } from '../../../../cache/clock.ts';
import { RecencyList, type Linked } from '../../../../cache/token/lru-list.ts';
import type { ServiceAccountToken } from '../../../kube/accounts/token-request.ts';

/** Whose assertion it is. */
export interface AssertionOwner {
  readonly key: string;
  /** The pod it is bound to; empty for none. */
  readonly podUid: string;
}

/**
 * An assertion has to live until Entra ID has looked at it: after a fetch with its tries, by a
 * clock that agrees with the API server's to within minutes. Five are what Entra ID's own libraries
 * leave a token. A short-lived one serves half of its life.
 */
const marginMs = 5 * 60_000;

class KeptAssertion<O extends AssertionOwner> implements Alarm, Linked<KeptAssertion<O>> {
  readonly owner: O;
  readonly assertion: string;
  readonly usableUntilWallMs: number;
  readonly usableUntilMs: number;
  dueAtMs = 0;
  heapIndex = -1;
  newer: KeptAssertion<O> | undefined = undefined;
  older: KeptAssertion<O> | undefined = undefined;
  readonly #onEnd: (kept: KeptAssertion<O>) => void;

  constructor(
    owner: O,
    token: ServiceAccountToken,
    sentAtMs: number,
    onEnd: (kept: KeptAssertion<O>) => void,
  ) {
    const spareMs = Math.min(marginMs, token.lifeMs / 2);
    this.owner = owner;
    this.assertion = token.token;
    this.usableUntilWallMs = token.expiresAtWallMs - spareMs;
    this.usableUntilMs = sentAtMs + token.lifeMs - spareMs;
    this.#onEnd = onEnd;
  }

  isUsable(clock: Clock): boolean {
    return clock.monotonicMs() < this.usableUntilMs && clock.wallMs() < this.usableUntilWallMs;
  }

  ring(): void {
    this.#onEnd(this);
  }
}

/** One assertion per key, at most `max`, least recently used out first. */
export class KeptAssertions<O extends AssertionOwner> implements Disposable {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #kept = new Map<string, KeptAssertion<O>>();
  readonly #recency = new RecencyList<KeptAssertion<O>>();
  readonly #alarms: Alarms;
  #isDisposed = false;

  constructor(clock: Clock, max: number) {
    this.#clock = clock;
    this.#max = max;
    this.#alarms = new Alarms(clock);
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Only what was put for the same key and pod, and is usable now. */
  get({ key, podUid }: AssertionOwner): string | undefined {
    const kept = this.#kept.get(key);
    if (kept === undefined || kept.owner.podUid !== podUid) return undefined;
    if (!kept.isUsable(this.#clock)) return undefined;
    this.#recency.touch(kept);
    return kept.assertion;
  }

  /** @param sentAtMs monotonic milliseconds of when the token was asked for. */
  put(owner: O, token: ServiceAccountToken, sentAtMs: number): void {
    const kept = new KeptAssertion<O>(owner, token, sentAtMs, this.#remove);
    if (this.#isDisposed || !kept.isUsable(this.#clock)) return;
    this.drop(owner.key);
    this.#kept.set(owner.key, kept);
    this.#recency.add(kept);
    this.#alarms.set(kept, kept.usableUntilMs - this.#clock.monotonicMs());
    const { oldest } = this.#recency;
    if (this.#kept.size > this.#max && oldest !== undefined) this.#remove(oldest);
  }

  /** Returns whether there was one. */
  drop(key: string): boolean {
    const kept = this.#kept.get(key);
    if (kept === undefined) return false;
    this.#remove(kept);
    return true;
  }

  dropAll(isDropped: (owner: O) => boolean): void {
    for (const kept of this.#kept.values()) if (isDropped(kept.owner)) this.#remove(kept);
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.dropAll(() => true);
    this.#alarms[Symbol.dispose]();
  }

  readonly #remove = (kept: KeptAssertion<O>): void => {
    this.#kept.delete(kept.owner.key);
    this.#recency.delete(kept);
    this.#alarms.clear(kept);
  };
}
