/** Deletes the entries that were added first, until there are at most `max`. */
export function dropOldest<K>(from: Map<K, unknown> | Set<K>, max: number): void {
  for (const key of from.keys()) {
    if (from.size <= max) return;
    from.delete(key);
  }
}
