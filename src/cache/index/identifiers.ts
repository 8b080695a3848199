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

/** What a token is for: in lower case and without slashes at its end, which say nothing. */
export function normaliseResource(text: string): string {
  const trimmed = text.trim().toLowerCase();
  let end = trimmed.length;
  // An expression for them would look at each row of slashes from each of its slashes.
  while (trimmed.endsWith('/', end)) end--;
  return trimmed.slice(0, end);
}

/** A client id as Entra writes it: a GUID, in any letter case. */
export function isGuid(text: string): boolean {
  return /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}

/** An Azure resource id: visible ASCII below a subscription. */
export function isResourceId(text: string): boolean {
  return text.length <= 1024 && /^\/?subscriptions\/[\x21-\x7e]+$/i.test(text);
}
