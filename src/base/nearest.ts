/** The name that was probably meant: at most a third of its letters differ, and at most four. */
export function nearest(wrong: string, names: Iterable<string>): string | undefined {
  const letters = Array.from(wrong);
  const maxEdits = Math.min(4, Math.floor(letters.length / 3));
  return [...names]
    .map((name) => ({ name, edits: countEdits(letters, Array.from(name)) }))
    .filter(({ edits }) => edits <= maxEdits)
    .toSorted((one, other) => one.edits - other.edits)[0]?.name;
}

/** Letters added, left out, replaced, or swapped with the next. */
function countEdits(from: readonly string[], to: readonly string[]): number {
  let before: readonly number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [position, letter] of from.entries()) {
    const row = [position + 1];
    for (const [index, other] of to.entries()) {
      const isSwap = letter === to[index - 1] && from[position - 1] === other;
      row.push(
        Math.min(
          at(last, index) + (letter === other ? 0 : 1),
          at(last, index + 1) + 1,
          at(row, index) + 1,
          isSwap ? at(before, index - 1) + 1 : Infinity,
        ),
      );
    }
    [before, last] = [last, row];
  }
  return at(last, to.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}
