/** Whom an index tells that it changed, and what it says. One observer's failure stays its own. */
export class Observers<Args extends readonly unknown[] = []> {
  readonly #subscriptions = new Set<{ readonly observer: (...args: Args) => void }>();
  readonly #onError: (error: unknown) => void;

  /** `onError` receives what a observer throws; it must not throw itself. */
  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
  }

  /** The returned function unsubscribes; calling it twice does nothing more. */
  add(observer: (...args: Args) => void): () => void {
    const subscription = { observer };
    this.#subscriptions.add(subscription);
    return () => this.#subscriptions.delete(subscription);
  }

  /** Calls those subscribed now; one that another unsubscribes meanwhile is not called. */
  notify(...args: Args): void {
    for (const subscription of [...this.#subscriptions]) {
      if (!this.#subscriptions.has(subscription)) continue;
      try {
        subscription.observer(...args);
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}

/** For an index whose owner does not care what its observers throw. */
export function ignoreObserverError(): void {
  // What a observer throws is no fact about the index.
}
