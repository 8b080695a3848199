/**
 * Many values under one key. A key with one value holds it bare: with 20,000 bindings, nearly all
 * alone under their selector, a Set for each would cost more memory than the bindings.
 */
export class Multimap<T extends object> {
  readonly #groups = new Map<string, T | Set<T>>();

  /** O(1). */
  add(key: string, value: T): void {
    const group = this.#groups.get(key);
    if (group === undefined) this.#groups.set(key, value);
    else if (group instanceof Set) group.add(value);
    else if (group !== value) this.#groups.set(key, new Set([group, value]));
  }

  /** O(1); a value that is not there is no error. */
  delete(key: string, value: T): void {
    const group = this.#groups.get(key);
    if (group === value) this.#groups.delete(key);
    if (!(group instanceof Set)) return;
    group.delete(value);
    if (group.size === 0) this.#groups.delete(key);
  }

  has(key: string): boolean {
    return this.#groups.has(key);
  }

  of(key: string): Iterable<T> {
    const group = this.#groups.get(key);
    if (group === undefined) return [];
    return group instanceof Set ? group : [group];
  }
}
