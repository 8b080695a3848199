/**
 * What one caller may take of one turn of the event loop. A connection is accepted once a turn, so a
 * pod with many busy connections would otherwise decide how long all others wait for theirs: 512 of
 * them made it 3.7 s for one answer (Node 26.10, November 2026).
 *
 * A caller within its time is served at once. What is beyond waits for the next turns, in order, and
 * is served there for as long as a turn's share lasts: one caller delays the others by that much.
 */
const shareMs = 0.4;
/**
 * While connections come: behind each that is accepted another may wait, and a turn with a request or
 * two of each caller is soon over.
 */
const hurriedMs = 0.1;
/** What reading a request and writing its answer take, which is done before and after the work. */
const aroundMs = 0.03;
/** A turn is looked at when a caller has taken this much since the last: looking costs another turn. */
const lookFromMs = 0.1;
const maxCallers = 1_024;

export class FairTurns {
  readonly #nowMs: () => number;
  readonly #nextTurn: (work: () => void) => void;
  /** In this turn, and in those before that were not looked at. */
  readonly #takenMs = new Map<string, number>();
  readonly #waiting = new Map<string, (() => void)[]>();
  #isLooking = false;
  #shareMs = shareMs;
  #hasAccepted = false;

  /** @param nextTurn calls back once all that is ready now is done, as `setImmediate` does. */
  constructor(nowMs: () => number, nextTurn: (work: () => void) => void = setImmediate) {
    this.#nowMs = nowMs;
    this.#nextTurn = nextTurn;
  }

  /**
   * @param work must not throw, and look whether it is still of use.
   * @returns whether it was done at once.
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

  /** What is begun for a caller, and done later. */
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
    if (this.#waiting.size > 0 || this.#shareMs < shareMs) this.#look();
  };
}
