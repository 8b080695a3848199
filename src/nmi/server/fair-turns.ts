/**
 * Limits the time that one caller may use in one turn of the event loop. Only one connection is
 * accepted per turn, so a pod with many busy connections would otherwise decide how long all others
 * wait: with 512 of them, one answer took 3.7 s (Node 26.10, November 2026).
 *
 * A caller within its share is served at once. Work beyond it waits for the next turns, in order,
 * and is done there within the share of each turn: one caller delays the others by that much.
 */
const shareMs = 0.4;
/**
 * The share while connections arrive: another connection may wait behind each accepted one, and a
 * turn with one or two requests of each caller is short.
 */
const hurriedMs = 0.1;
/** The time of reading a request and writing its answer, before and after the work. */
const aroundMs = 0.03;
/**
 * The start of the next turn is observed only once a caller has used this much: it costs another
 * turn.
 */
const lookFromMs = 0.1;
const maxCallers = 1_024;

export class FairTurns {
  readonly #nowMs: () => number;
  readonly #nextTurn: (work: () => void) => void;
  /** Used in this turn, and in earlier turns that were not observed. */
  readonly #taken = new Map<string, { turn: number; ms: number }>();
  #turn = 0;
  readonly #waiting = new Map<string, (() => void)[]>();
  #isLooking = false;
  #shareMs = shareMs;
  #hasAccepted = false;

  /** @param nextTurn calls `work` once all that is ready now is done, as `setImmediate` does. */
  constructor(nowMs: () => number, nextTurn: (work: () => void) => void = setImmediate) {
    this.#nowMs = nowMs;
    this.#nextTurn = nextTurn;
  }

  /**
   * @param work must not throw, and must check whether it is still needed.
   * @returns whether it ran at once.
   */
  run(caller: string, work: () => void): boolean {
    const waiting = this.#waiting.get(caller);
    if (waiting === undefined && this.#takenMs(caller) < this.#shareMs) {
      this.#do(caller, work);
      return true;
    }
    if (waiting === undefined) this.#waiting.set(caller, [work]);
    else waiting.push(work);
    this.#look();
    return false;
  }

  /** A connection was accepted in this turn. */
  accepted(): void {
    this.#hasAccepted = true;
    this.#shareMs = hurriedMs;
    this.#look();
  }

  /** Charges a caller for work that is begun now and done later. */
  charge(caller: string, ms: number): void {
    const taken = this.#taken.get(caller);
    if (taken === undefined) this.#taken.set(caller, { turn: this.#turn, ms });
    else {
      taken.ms = this.#takenMs(caller) + ms;
      taken.turn = this.#turn;
    }
  }

  #takenMs(caller: string): number {
    const taken = this.#taken.get(caller);
    return taken?.turn === this.#turn ? taken.ms : 0;
  }

  #do(caller: string, work: () => void): void {
    const startMs = this.#nowMs();
    work();
    this.charge(caller, this.#nowMs() - startMs + aroundMs);
    if (this.#takenMs(caller) >= lookFromMs || this.#taken.size > maxCallers) this.#look();
  }

  #look(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    this.#nextTurn(this.#begin);
  }

  readonly #begin = (): void => {
    this.#isLooking = false;
    // Not each turn: V8 would keep the table of a map that was cleared until it collects everything.
    if (this.#taken.size > maxCallers) this.#taken.clear();
    this.#turn += 1;
    this.#shareMs = this.#hasAccepted ? hurriedMs : shareMs;
    this.#hasAccepted = false;
    for (const [caller, waiting] of this.#waiting) {
      let done = 0;
      while (done < waiting.length && this.#takenMs(caller) < this.#shareMs) {
        const work = waiting[done++];
        if (work !== undefined) this.#do(caller, work);
      }
      if (done === waiting.length) this.#waiting.delete(caller);
      else waiting.splice(0, done);
    }
    // Work still waits only for callers that have used their share: `#do` observes the next turn.
    if (this.#shareMs < shareMs) this.#look();
  };
}
