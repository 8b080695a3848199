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
  let edits = to.length;
  for (const letter of from) {
    let replaced = Infinity;
    edits = Infinity;
    row = row.map((inserted, index) => {
      const isSame = letter === to[index - 1];
      edits = Math.min(isSame ? replaced : replaced + 1, inserted + 1, edits + 1);
      replaced = inserted;
      return edits;
    });
  }
  return edits;
}
