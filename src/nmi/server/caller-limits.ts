/**
 * One caller's share of what is scarce: fetches under way for it, and its requests that wait for an
 * object. Within its share a caller is not limited; beyond it, it is told to slow down and nobody
 * else notices. Requests that join a fetch the caller already waits for cost no fetch, but a place to
 * wait, and those are limited for the node as a whole.
 */
export interface CallerMaxima {
  /** Different tokens one caller may wait for at the same time. */
  readonly fetches: number;
  /** Requests of one caller that may wait for tokens, the same or different ones. */
  readonly waiting: number;
  /** Requests of one caller that may be held at the same time. */
  readonly held: number;
}

interface Share {
  readonly fetches: Map<string, number>;
  waiting: number;
  held: number;
}

export class CallerLimits {
  readonly #max: CallerMaxima;
  readonly #shares = new Map<string, Share>();

  constructor(max: CallerMaxima) {
    this.#max = max;
  }

  /** Callers that wait for something now. */
  get size(): number {
    return this.#shares.size;
  }

  /** @returns what to call at the end, or undefined when the share is used up. */
  beginFetch(limitKey: string, token: string): (() => void) | undefined {
    const share = this.#shareOf(limitKey);
    const waiting = share.fetches.get(token) ?? 0;
    const isNew = waiting === 0;
    if (share.waiting >= this.#max.waiting || (isNew && share.fetches.size >= this.#max.fetches)) {
      this.#tidy(limitKey, share);
      return undefined;
    }
    share.fetches.set(token, waiting + 1);
    share.waiting++;
    return () => {
      share.waiting--;
      const left = (share.fetches.get(token) ?? 1) - 1;
      if (left === 0) share.fetches.delete(token);
      else share.fetches.set(token, left);
      this.#tidy(limitKey, share);
    };
  }

  /** @returns what to call at the end, or undefined when the share is used up. */
  beginWait(limitKey: string): (() => void) | undefined {
    const share = this.#shareOf(limitKey);
    if (share.held >= this.#max.held) {
      this.#tidy(limitKey, share);
      return undefined;
    }
    share.held++;
    return () => {
      share.held--;
      this.#tidy(limitKey, share);
    };
  }

  #shareOf(limitKey: string): Share {
    const known = this.#shares.get(limitKey);
    if (known !== undefined) return known;
    const share = { fetches: new Map<string, number>(), waiting: 0, held: 0 };
    this.#shares.set(limitKey, share);
    return share;
  }

  #tidy(limitKey: string, share: Share): void {
    if (share.held === 0 && share.fetches.size === 0) this.#shares.delete(limitKey);
  }
}
