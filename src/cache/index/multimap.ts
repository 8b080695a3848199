/**
 * Many values under one key. A single value is stored without a Set: with 20,000 bindings, nearly
 * each the only one of its selector, the Sets would cost more memory than the bindings.
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

  /** O(1); does nothing if the value is absent. */
  delete(key: string, value: T): void {
    const group = this.#groups.get(key);
    if (group === value) this.#groups.delete(key);
    if (!(group instanceof Set)) return;
    group.delete(value);
    if (group.size === 0) this.#groups.delete(key);
  }

  count(key: string): number {
    const group = this.#groups.get(key);
    return group instanceof Set ? group.size : group === undefined ? 0 : 1;
  }

  of(key: string): Iterable<T> {
    const group = this.#groups.get(key);
    if (group === undefined) return [];
    return group instanceof Set ? group : [group];
  }
}
