/**
 * Normal forms of Azure identifiers. Client ids (GUIDs) and ARM resource ids are case-insensitive,
 * and people paste them with stray blanks and slashes. Keys are made from the normal form only.
 */

/** Trimmed and in lower case; empty for a blank text. */
export function normaliseClientId(text: string): string {
  return text.trim().toLowerCase();
}

/**
 * Trimmed, in lower case, with one leading slash, without trailing or doubled slashes. Empty if no
 * segment is left, so that a bare `/` never equals an identity without a resource id.
 */
export function normaliseResourceId(text: string): string {
  const segments = text
    .trim()
    .toLowerCase()
    .split('/')
    .filter((segment) => segment !== '');
  return segments.length === 0 ? '' : `/${segments.join('/')}`;
}

/** The resource of a token in lower case, without trailing slashes, which carry no meaning. */
export function normaliseResource(text: string): string {
  const trimmed = text.trim().toLowerCase();
  let end = trimmed.length;
  // A regular expression for trailing slashes backtracks quadratically on a run of slashes.
  while (trimmed.endsWith('/', end)) end--;
  return trimmed.slice(0, end);
}

/** A client id as Entra writes it: a GUID, in any letter case. */
export function isGuid(text: string): boolean {
  return /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}

/** The Azure resource id of a user-assigned identity, in visible ASCII. */
export function isResourceId(text: string): boolean {
  return text.length <= 1024 && /^[\x21-\x7e]+$/.test(text) && ofIdentity.test(text);
}

const ofIdentity =
  /^\/?subscriptions\/[^/]+\/resourcegroups\/[^/]+\/providers\/microsoft\.managedidentity\/userassignedidentities\/[^/]+$/i;
