/**
 * One caller's share of what is scarce: fetches under way for it, and its requests that wait for an
 * object. Within its share a caller is not limited; beyond it, it is told to slow down and nobody
 * else notices. Requests that join a fetch the caller already waits for cost no fetch, but a place to
 * wait, and those are limited for the node as a whole.
 */
export interface CallerShareLimits {
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

export class CallerShare {
  readonly #limits: CallerShareLimits;
  readonly #shares = new Map<string, Share>();

  constructor(limits: CallerShareLimits) {
    this.#limits = limits;
  }

  /** Callers that wait for something now. */
  get size(): number {
    return this.#shares.size;
  }

  /** @returns what to call at the end, or undefined when the share is used up. */
  beginFetch(caller: string, token: string): (() => void) | undefined {
    const share = this.#shareOf(caller);
    const waiting = share.fetches.get(token) ?? 0;
    const isNew = waiting === 0;
    if (
      share.waiting >= this.#limits.waiting ||
      (isNew && share.fetches.size >= this.#limits.fetches)
    ) {
      this.#tidy(caller, share);
      return undefined;
    }
    share.fetches.set(token, waiting + 1);
    share.waiting++;
    return () => {
      share.waiting--;
      const left = (share.fetches.get(token) ?? 1) - 1;
      if (left === 0) share.fetches.delete(token);
      else share.fetches.set(token, left);
      this.#tidy(caller, share);
    };
  }

  /** @returns what to call at the end, or undefined when the share is used up. */
  beginHold(caller: string): (() => void) | undefined {
    const share = this.#shareOf(caller);
    if (share.held >= this.#limits.held) {
      this.#tidy(caller, share);
      return undefined;
    }
    share.held++;
    return () => {
      share.held--;
      this.#tidy(caller, share);
    };
  }

  #shareOf(caller: string): Share {
    const known = this.#shares.get(caller);
    if (known !== undefined) return known;
    const share = { fetches: new Map<string, number>(), waiting: 0, held: 0 };
    this.#shares.set(caller, share);
    return share;
  }

  #tidy(caller: string, share: Share): void {
    if (share.held === 0 && share.fetches.size === 0) this.#shares.delete(caller);
  }
}
