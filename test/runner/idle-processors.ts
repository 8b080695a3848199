/** How many processors of this machine do nothing. */
import { cpus } from 'node:os';

/** What a new process needs before its load shows. */
const settleMs = 6_000;

interface Moment {
  readonly atMs: number;
  readonly idleMs: number;
}

export class IdleProcessors {
  readonly #look: () => Moment;
  #from: Moment;

  constructor(look: () => Moment = lookAtMachine) {
    this.#look = look;
    this.#from = look();
  }

  /** On average in the last seconds; 0 until enough have passed since the last restart. */
  read(): number {
    const now = this.#look();
    const ms = now.atMs - this.#from.atMs;
    if (ms < settleMs) return 0;
    const idle = (now.idleMs - this.#from.idleMs) / ms;
    if (ms > 2 * settleMs) this.#from = now;
    return idle;
  }

  /** Something has begun whose load does not show yet. */
  restart(): void {
    this.#from = this.#look();
  }
}

function lookAtMachine(): Moment {
  const idleMs = cpus().reduce((sum, { times }) => sum + times.idle, 0);
  return { atMs: performance.now(), idleMs };
}
