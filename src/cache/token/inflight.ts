/**
 * One fetch for one key, from when it is wanted until it has ended, and everyone who waits for it.
 * It belongs to the cache: a waiter that leaves does not end it.
 */
import type { QueuedTimer } from './timer-queue.ts';
import type { Keyed } from './negative-cache.ts';
import type { Task } from './rate-limiter.ts';
import type { RenderedToken } from './token.ts';

/** How a flight ends. The token is rendered once for all who wait. */
export type FetchResult<F> =
  | { readonly kind: 'token'; readonly rendered: RenderedToken }
  | { readonly kind: 'failure'; readonly failure: F }
  | { readonly kind: 'bug'; readonly error: unknown };

/** Who waits; settled once, by the result or by the alarm of its own deadline. */
export interface Waiter<F> extends QueuedTimer {
  settle(result: FetchResult<F>): void;
}

export class InflightFetch<R extends Keyed, F> implements Task {
  readonly request: R;
  /** It began as a refresh that nobody waited for. */
  readonly isRefresh: boolean;
  readonly waiters = new Set<Waiter<F>>();
  /** A caller asked for it, if only for a while: its token is kept even where none was. */
  isForCaller: boolean;
  /** The right to its token ended meanwhile: what it brings is not kept, and answers nobody new. */
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
