/**
 * Virtual time. Events run one after the other, in the order of their times and at equal times in an
 * order by seed. After each event all promises are settled before the next one runs, so the same
 * seed gives the same run.
 */
import { createRandom } from '../../lab/test-bed/random.ts';

/** Whose events they are: none of an owner that is not alive runs. */
export interface Owner {
  readonly number: number;
  readonly isAlive: boolean;
  /** A busy machine does not run the owner before this time. */
  readonly stalledUntilMs: number;
  enter(work: () => void): void;
}

interface Event {
  readonly atMs: number;
  readonly tie: number;
  readonly owner: Owner | undefined;
  readonly label: string;
  work: (() => void) | undefined;
}

export class Scheduler {
  nowMs = 0;
  /** Events that have run. */
  count = 0;
  /** Of all events that have run, in their order. */
  #hash = 2_166_136_261;
  readonly random: () => number;
  readonly #heap: Event[] = [];

  constructor(seed: number) {
    this.random = createRandom(seed);
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0');
  }

  /** @returns how to cancel it. */
  schedule(delayMs: number, owner: Owner | undefined, label: string, work: () => void): () => void {
    const event = { atMs: this.nowMs + delayMs, tie: this.random(), owner, label, work };
    this.#push(event);
    return () => {
      (event as Event).work = undefined;
    };
  }

  /** Waits without an owner. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.schedule(ms, undefined, 'sleep', resolve);
    });
  }

  /**
   * Runs events until the work is done.
   * @param check runs after each event; when it throws, the run ends.
   * @param settle calls back when nothing of the event is left to run.
   */
  run<T>(work: () => Promise<T>, check: () => void, settle = afterPromises): Promise<T> {
    return new Promise((resolve, reject) => {
      let isOver = false;
      const end = (finish: () => void): void => {
        isOver = true;
        finish();
      };
      work().then(
        (result) => end(() => resolve(result)),
        (error: unknown) => end(() => reject(asError(error))),
      );
      const step = (): void => {
        if (isOver) return;
        try {
          check();
          this.#runNext();
        } catch (error) {
          end(() => reject(asError(error)));
          return;
        }
        settle(step);
      };
      settle(step);
    });
  }

  #runNext(): void {
    for (;;) {
      const event = this.#pop();
      if (event === undefined) throw new Error('nothing will ever happen again');
      const { owner, label, work } = event;
      if (work === undefined || owner?.isAlive === false) continue;
      if (owner !== undefined && owner.stalledUntilMs > event.atMs) {
        this.#push({ ...event, atMs: owner.stalledUntilMs });
        continue;
      }
      this.nowMs = event.atMs;
      this.count += 1;
      this.#mix(event.atMs * 1_024);
      this.#mix(owner?.number ?? 0);
      this.#mix(label.length);
      this.#mix(label.charCodeAt(0));
      if (owner === undefined) work();
      else owner.enter(work);
      return;
    }
  }

  #mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 16_777_619);
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above]!;
      if (!isBefore(event, parent)) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || first === last) return first;
    const size = heap.length;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= size) break;
      if (below + 1 < size && isBefore(heap[below + 1]!, heap[below]!)) below += 1;
      const child = heap[below]!;
      if (!isBefore(child, last)) break;
      heap[at] = child;
      at = below;
    }
    heap[at] = last;
    return first;
  }
}

/** The microtask runs in the midst of those of the event; the tick only when none is left. */
function afterPromises(step: () => void): void {
  queueMicrotask(() => process.nextTick(step));
}

/** Streams alternate between ticks and microtasks, and undici uses immediates. */
export function afterImmediates(step: () => void): void {
  setImmediate(step);
}

export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error('no error was thrown', { cause: thrown });
}

function isBefore(one: Event, other: Event): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.tie < other.tie);
}
