/**
 * A binary heap of deadlines, soonest first. Each item stores its own index, so that removing one
 * from the middle is O(log n) and allocates nothing.
 */

/** An item of a heap. Only the heap writes both fields; `heapIndex` is -1 outside of a heap. */
export interface Deadline {
  /** Monotonic milliseconds. */
  dueAtMs: number;
  heapIndex: number;
}

export class DeadlineHeap<T extends Deadline> {
  /** `items[i]` is due no later than `items[2i + 1]` and `items[2i + 2]`. */
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  get first(): T | undefined {
    return this.#items[0];
  }

  /** Adds `item`, or moves it to its new deadline. */
  set(item: T, dueAtMs: number): void {
    item.dueAtMs = dueAtMs;
    if (item.heapIndex < 0) {
      item.heapIndex = this.#items.length;
      this.#items.push(item);
    }
    this.#rise(item);
    this.#sink(item);
  }

  /** Removes `item`; does nothing if it is absent. */
  delete(item: T): void {
    const index = item.heapIndex;
    if (index < 0) return;
    item.heapIndex = -1;
    const last = this.#items.pop();
    if (last === undefined || last === item) return;
    this.#place(last, index);
    this.#rise(last);
    this.#sink(last);
  }

  clear(): void {
    for (const item of this.#items) item.heapIndex = -1;
    this.#items.length = 0;
  }

  #rise(item: T): void {
    let index = item.heapIndex;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = this.#items[parentIndex];
      if (parent === undefined || parent.dueAtMs <= item.dueAtMs) break;
      this.#place(parent, index);
      index = parentIndex;
    }
    this.#place(item, index);
  }

  #sink(item: T): void {
    let index = item.heapIndex;
    for (;;) {
      const left = this.#items[2 * index + 1];
      const right = this.#items[2 * index + 2];
      const sooner =
        right !== undefined && left !== undefined && right.dueAtMs < left.dueAtMs ? right : left;
      if (sooner === undefined || sooner.dueAtMs >= item.dueAtMs) break;
      const vacated = sooner.heapIndex;
      this.#place(sooner, index);
      index = vacated;
    }
    this.#place(item, index);
  }

  #place(item: T, index: number): void {
    this.#items[index] = item;
    item.heapIndex = index;
  }
}
