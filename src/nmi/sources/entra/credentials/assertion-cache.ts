/**
 * Assertions in memory, each for as long as it is sure to be accepted.
 *
 * Two clocks: the monotonic one counts the life that was granted, from before it was asked for; the
 * wall clock is compared with the expiry the token itself names. Both must allow it. So neither a
 * step of the wall clock nor a machine that slept lends an assertion any life; a wall clock that is
 * ahead costs a request and no more.
 */
import type { Clock } from '../../../../cache/clock.ts';
import { ExpiringMap } from '../../../base/expiring-map.ts';
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

interface KeptAssertion<O> {
  readonly owner: O;
  readonly assertion: string;
  readonly usableUntilWallMs: number;
}

/** One assertion per key, at most `max`, least recently used out first. */
export class KeptAssertions<O extends AssertionOwner> implements Disposable {
  readonly #clock: Clock;
  readonly #kept: ExpiringMap<KeptAssertion<O>>;

  constructor(clock: Clock, max: number) {
    this.#clock = clock;
    this.#kept = new ExpiringMap(clock, max);
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Only what was put for the same key and pod, and is usable now. */
  get({ key, podUid }: AssertionOwner): string | undefined {
    const kept = this.#kept.get(key);
    const isUsable = kept?.owner.podUid === podUid && this.#clock.wallMs() < kept.usableUntilWallMs;
    return isUsable ? kept.assertion : undefined;
  }

  /** @param sentAtMs monotonic milliseconds of when the token was asked for. */
  put(owner: O, token: ServiceAccountToken, sentAtMs: number): void {
    const spareMs = Math.min(marginMs, token.lifeMs / 2);
    const usableUntilWallMs = token.expiresAtWallMs - spareMs;
    const usableForMs = sentAtMs + token.lifeMs - spareMs - this.#clock.monotonicMs();
    if (usableForMs <= 0 || this.#clock.wallMs() >= usableUntilWallMs) return;
    const kept = { owner, assertion: token.token, usableUntilWallMs };
    this.#kept.set(owner.key, kept, usableForMs);
  }

  /** Returns whether there was one. */
  drop(key: string): boolean {
    return this.#kept.delete(key);
  }

  dropAll(isDropped: (owner: O) => boolean): void {
    this.#kept.deleteWhere(({ owner }) => isDropped(owner));
  }

  [Symbol.dispose](): void {
    this.#kept[Symbol.dispose]();
  }
}
