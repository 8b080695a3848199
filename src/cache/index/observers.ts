/** Whom an index tells that it changed, and what it says. One listener's failure stays its own. */
export class Listeners<Args extends readonly unknown[] = []> {
  readonly #subscriptions = new Set<{ readonly listener: (...args: Args) => void }>();
  readonly #onError: (error: unknown) => void;

  /** `onError` receives what a listener throws; it must not throw itself. */
  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
  }

  /** The returned function unsubscribes; calling it twice does nothing more. */
  add(listener: (...args: Args) => void): () => void {
    const subscription = { listener };
    this.#subscriptions.add(subscription);
    return () => this.#subscriptions.delete(subscription);
  }

  /** Calls those subscribed now; one that another unsubscribes meanwhile is not called. */
  notify(...args: Args): void {
    for (const subscription of [...this.#subscriptions]) {
      if (!this.#subscriptions.has(subscription)) continue;
      try {
        subscription.listener(...args);
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}

/** For an index whose owner does not care what its listeners throw. */
export function ignoreListenerError(): void {
  // What a listener throws is no fact about the index.
}
