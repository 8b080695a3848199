/** Observers of an index. An error of one observer does not reach the others. */
export class Observers<Args extends readonly unknown[] = []> {
  readonly #subscriptions = new Set<{ readonly observer: (...args: Args) => void }>();
  readonly #onError: (error: unknown) => void;

  /** `onError` receives the errors of observers, which are theirs alone; it must not throw. */
  constructor(onError: (error: unknown) => void = () => undefined) {
    this.#onError = onError;
  }

  /** The returned function unsubscribes; a second call does nothing. */
  add(observer: (...args: Args) => void): () => void {
    const subscription = { observer };
    this.#subscriptions.add(subscription);
    return () => this.#subscriptions.delete(subscription);
  }

  /** Calls all current observers, except those that an earlier one unsubscribes. */
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
