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
  readonly #takenMs = new Map<string, number>();
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
    if (waiting === undefined && (this.#takenMs.get(caller) ?? 0) < this.#shareMs) {
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
    this.#takenMs.set(caller, (this.#takenMs.get(caller) ?? 0) + ms);
  }

  #do(caller: string, work: () => void): void {
    const startMs = this.#nowMs();
    work();
    const takenMs = (this.#takenMs.get(caller) ?? 0) + this.#nowMs() - startMs + aroundMs;
    this.#takenMs.set(caller, takenMs);
    if (takenMs >= lookFromMs || this.#takenMs.size > maxCallers) this.#look();
  }

  #look(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    this.#nextTurn(this.#begin);
  }

  readonly #begin = (): void => {
    this.#isLooking = false;
    this.#takenMs.clear();
    this.#shareMs = this.#hasAccepted ? hurriedMs : shareMs;
    this.#hasAccepted = false;
    for (const [caller, waiting] of this.#waiting) {
      let done = 0;
      while (done < waiting.length && (this.#takenMs.get(caller) ?? 0) < this.#shareMs) {
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
