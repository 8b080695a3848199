/**
 * One fetch for one key, queued or running, and its waiters. The cache owns it: a waiter that
 * leaves does not cancel it.
 */
import type { QueuedTimer } from '../../base/time/timer-queue.ts';
import type { Keyed } from './negative-cache.ts';
import type { Task } from '../../base/rate-limiter.ts';
import type { RenderedToken } from './token.ts';

/** Result of a fetch. The token is rendered once for all waiters. */
export type FetchResult<F> =
  | { readonly kind: 'token'; readonly rendered: RenderedToken }
  | { readonly kind: 'failure'; readonly failure: F }
  | { readonly kind: 'bug'; readonly error: unknown };

/** A waiting caller; settled once, by the result or by the timer of its own deadline. */
export interface Waiter<F> extends QueuedTimer {
  settle(result: FetchResult<F>): void;
}

export class InflightFetch<R extends Keyed, F> implements Task {
  readonly request: R;
  /** It began as a background refresh. */
  readonly isRefresh: boolean;
  readonly waiters = new Set<Waiter<F>>();
  /** At least one caller waited for it, so its token is stored even if none was in memory. */
  isForCaller: boolean;
  /** `drop` matched it: its result is not stored, and later callers do not get it. */
  isDropped = false;
  hasStarted = false;
  readonly #onStart: (fetch: InflightFetch<R, F>) => void;

  constructor(request: R, isRefresh: boolean, onStart: (fetch: InflightFetch<R, F>) => void) {
    this.request = request;
    this.isRefresh = isRefresh;
    this.isForCaller = !isRefresh;
    this.#onStart = onStart;
  }

  start(): void {
    this.hasStarted = true;
    this.#onStart(this);
  }
}
