/**
 * How Azure identifiers compare. Client ids (GUIDs) and ARM resource ids are case-insensitive, and
 * people paste them with stray blanks and slashes; keys are made from the normal form only.
 */

/** Trimmed and in lower case; empty when the text names nothing. */
export function normaliseClientId(text: string): string {
  return text.trim().toLowerCase();
}

/**
 * Trimmed, in lower case, with one leading slash, none at the end and none doubled; empty when the
 * text names nothing, so that a bare `/` never equals an identity without a resource id.
 */
export function normaliseResourceId(text: string): string {
  const segments = text
    .trim()
    .toLowerCase()
    .split('/')
    .filter((segment) => segment !== '');
  return segments.length === 0 ? '' : `/${segments.join('/')}`;
}
