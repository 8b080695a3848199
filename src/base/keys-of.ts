/** The keys of a record, which has those of its type and no others. */
export function keysOf<K extends string>(record: Readonly<Record<K, unknown>>): readonly K[];
export function keysOf(record: object): readonly string[] {
  return Object.keys(record);
}
