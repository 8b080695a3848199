/**
 * Remembers the last check that found no problem. What stands in front of the agent is read by each check; what
 * lies behind it takes tools (15 ms of processor time), so it is read about once a minute, and after a problem.
 */
import type { Redirect, RedirectStatus } from '../../redirect/redirect.ts';

const behindMs = 60_000;
const mostFronts = 5;

export class LastCheck {
  readonly #fronts: number;
  #last: RedirectStatus | undefined;
  /** Checks of the front alone that may follow. */
  #left = 0;

  constructor(intervalMs: number) {
    this.#fronts = Math.min(mostFronts, Math.floor(behindMs / intervalMs) - 1);
  }

  async read(redirect: Pick<Redirect, 'isFrontWhole' | 'verify'>): Promise<RedirectStatus> {
    const last = this.#left-- > 0 ? this.#last : undefined;
    this.#last = undefined;
    if (last !== undefined && (await redirect.isFrontWhole(last.port))) return (this.#last = last);
    const status = await redirect.verify();
    this.#left = this.#fronts;
    if (status.problems.length === 0) this.#last = status;
    return status;
  }
}
