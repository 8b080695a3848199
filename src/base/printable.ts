/** Makes a text of a caller or an object safe for an error description: one short line. */
export function printable(text: string): string {
  const clean = text.replaceAll(/[^\x20-\x7e]|['"\\<>]/g, '?');
  return clean.length > 300 ? `${clean.slice(0, 297)}...` : clean;
}

/** JSON that escapes more than it must, so that no text of an object can control the terminal. */
export function renderJson(value: object): string {
  return `${JSON.stringify(value, undefined, 2).replaceAll(/[^\n\x20-\x7e]/g, escapeUnit)}\n`;
}

/** For JSON and YAML. */
export function escapeUnit(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
