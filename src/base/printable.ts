/** Makes a text of a caller or an object safe for an error description: one short line. */
export function printable(text: string): string {
  const clean = text.replaceAll(/[^\x20-\x7e]|['"\\<>]/g, '?');
  return clean.length > 300 ? `${clean.slice(0, 297)}...` : clean;
}

/** The first of them, each printable, and how many more there are. */
export function printableList(texts: readonly string[], most = 10): string {
  const shown = texts.slice(0, most).map((text) => printable(text));
  const more = texts.length > most ? ` and ${texts.length - most} more` : '';
  return `${shown.join(', ')}${more}`;
}

/** JSON that escapes more than it must, so that no text of an object can control the terminal. */
export function renderJson(value: object): string {
  return `${JSON.stringify(value, undefined, 2).replaceAll(/[^\n\x20-\x7e]/g, escapeUnit)}\n`;
}

/** For JSON and YAML. */
export function escapeUnit(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** A clause, as in an error, as a sentence. */
export function sentence(clause: string): string {
  return `${clause.charAt(0).toUpperCase()}${clause.slice(1)}.`;
}

/** Columns as wide as their widest cell; an empty cell is a dash. */
export function renderTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): readonly string[] {
  const table = [head, ...rows.map((row) => row.map((cell) => (cell === '' ? '-' : cell)))];
  const widths = head.map((_, column) =>
    // No mutation: a row has all cells, and only the compiler needs a default.
    Math.max(...table.map((cells) => cells[column]?.length ?? 0)),
  );
  return table.map((cells) =>
    cells
      // No mutation: likewise.
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
