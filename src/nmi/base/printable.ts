/** A caller's or an object's own text inside an error description: one short harmless line. */
export function printable(text: string): string {
  const clean = text.replaceAll(/[^\x20-\x7e]|['"\\<>]/g, '?');
  return clean.length > 300 ? `${clean.slice(0, 297)}...` : clean;
}
