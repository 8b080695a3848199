/** The name with the fewest edits (Levenshtein); undefined if all need more than `maxEdits`. */
export function nearest(
  wrong: string,
  names: Iterable<string>,
  maxEdits = Infinity,
): string | undefined {
  return [...names]
    .map((name) => ({ name, edits: countEdits(wrong, name) }))
    .filter(({ edits }) => edits <= maxEdits)
    .toSorted((one, other) => one.edits - other.edits)[0]?.name;
}

function countEdits(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let at = 0; at < from.length; at++) {
    const next = [at + 1];
    for (let index = 0; index < to.length; index++) {
      const replaced = (row[index] ?? 0) + (from[at] === to[index] ? 0 : 1);
      next.push(Math.min(replaced, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
