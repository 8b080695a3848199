/** Makes a text of a caller or an object safe for an error description: one short line. */
export function printable(text: string): string {
  const clean = text.replaceAll(/[^\x20-\x7e]|['"\\<>]/g, '?');
  return clean.length > 300 ? `${clean.slice(0, 297)}...` : clean;
}
