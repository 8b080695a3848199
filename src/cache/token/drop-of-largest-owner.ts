/**
 * Deletes the oldest entry of the owner that has most: who fills a map with ever new entries loses
 * its own. O(entries), as often as a full map gets another entry.
 */
export function dropOfLargestOwner<V>(
  entries: Map<string, V>,
  ownerOf: (value: V, key: string) => string,
): void {
  const keysByOwner = new Map<string, string[]>();
  for (const [key, value] of entries) {
    const owner = ownerOf(value, key);
    const keys = keysByOwner.get(owner);
    if (keys === undefined) keysByOwner.set(owner, [key]);
    else keys.push(key);
  }
  let most: readonly string[] = [];
  for (const keys of keysByOwner.values()) if (keys.length > most.length) most = keys;
  entries.delete(most[0] ?? '');
}
