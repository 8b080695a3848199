/**
 * Objects in the order in which they were added; each is in one list. A Map or Set does the same, but copies its
 * table every few changes, and each copy in V8's old generation keeps the next one, with all that it refers to, until
 * everything is collected: so what lives as long as a request became garbage of the expensive kind.
 */
export interface Linked<T> {
  before: T | undefined;
  after: T | undefined;
}

export class LinkedList<T extends Linked<T>> {
  size = 0;
  #first: T | undefined;
  #last: T | undefined;

  get first(): T | undefined {
    return this.#first;
  }

  /** At the end. */
  add(item: T): void {
    item.before = this.#last;
    if (this.#last === undefined) this.#first = item;
    else this.#last.after = item;
    this.#last = item;
    this.size += 1;
  }

  /** An item of this list. */
  remove(item: T): void {
    const { before, after } = item;
    if (before === undefined) this.#first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
    item.before = undefined;
    item.after = undefined;
    this.size -= 1;
  }

  /** The item that was returned last may be removed meanwhile. */
  *[Symbol.iterator](): Generator<T, void> {
    for (let item = this.#first; item !== undefined;) {
      const { after } = item;
      yield item;
      item = after;
    }
  }
}
