/**
 * Parses a request target into a route. Pure, total, never throws.
 *
 * A token path in another spelling must not pass as something else (CVE-2022-23551 was a
 * backslash). So the path is decoded once and normalized once, the decision is made on that form,
 * and the path sent upstream is rebuilt from it, never from the caller's spelling. Only paths of
 * the allow list are forwarded.
 *
 * 1. `http://any.host/path` (absolute form) is the same as `/path`.
 * 2. Percent escapes are decoded once. Broken escapes, escapes of `/`, `\` and `%`, raw
 *    backslashes, control and non-path characters, `.` segments and those that begin with `..` are
 *    refused; a forwarded target has only plain segments and a visible query.
 * 3. Repeated slashes collapse (msal4j sends `//metadata/...`), one trailing slash is allowed.
 * 4. `metadata` and the area behind it match in any letter case, `identity/oauth2/token` exactly,
 *    as the real IMDS does.
 */

/** Areas of the instance metadata service, other than tokens, that may be passed through. */
export const passthroughAreas = [
  'instance',
  'versions',
  'attested',
  'scheduledevents',
  'loadbalancer',
] as const;
export type PassthroughArea = (typeof passthroughAreas)[number];

export type Route =
  | { readonly kind: 'token'; readonly query: string }
  | { readonly kind: 'host-token'; readonly query: string }
  | {
      readonly kind: 'passthrough';
      readonly area: PassthroughArea;
      /** Normalised path, safe to send upstream. */
      readonly path: string;
      /** The query as sent, without the question mark; empty when there is none. */
      readonly query: string;
    }
  | { readonly kind: 'refused'; readonly reason: 'path_invalid' | 'not_found' };

export const tokenPath = '/metadata/identity/oauth2/token';
export const hostTokenPath = '/host/token';

const invalid: Route = { kind: 'refused', reason: 'path_invalid' };
const notFound: Route = { kind: 'refused', reason: 'not_found' };
const questionMark = 0x3f;

/** @param target the request target exactly as in the request line. */
export function parseRoute(target: string): Route {
  // The target that every SDK sends; the slow path below returns the same route.
  if (target.startsWith(tokenPath)) {
    if (target.length === tokenPath.length) return { kind: 'token', query: '' };
    if (target.charCodeAt(tokenPath.length) === questionMark) {
      return { kind: 'token', query: target.slice(tokenPath.length + 1) };
    }
  }
  return parseUnusual(target);
}

function parseUnusual(target: string): Route {
  const [rawPath = '', ...queries] = target.replace(authority, '').split('?');
  if (!rawPath.startsWith('/')) return notFound;
  const query = queries.join('?');
  const path = decodePath(rawPath);
  if (path === undefined) return invalid;
  const segments = path.split('/').filter((segment) => segment !== '');
  if (segments.some((segment) => segment === '.' || segment.startsWith('..'))) return invalid;
  return decide(segments, path.endsWith('/'), query);
}

function decide(segments: readonly string[], trailingSlash: boolean, query: string): Route {
  const [first, second, ...rest] = segments;
  if (first === undefined || second === undefined) return notFound;
  if (first === 'host' && second === 'token' && rest.length === 0) {
    return { kind: 'host-token', query };
  }
  if (first.toLowerCase() !== 'metadata') return notFound;
  if (second === 'identity') {
    const isToken = rest.length === 2 && rest[0] === 'oauth2' && rest[1] === 'token';
    return isToken ? { kind: 'token', query } : notFound;
  }
  const area = passthroughAreas.find((known) => known === second.toLowerCase());
  if (area === undefined) return notFound;
  // Servers interpret path parameters (`..;`) differently, and no path of IMDS has them.
  if (!rest.every((segment) => plainSegment.test(segment))) return invalid;
  if (!forwardableQuery.test(query)) return invalid;
  const path = `/metadata/${[area, ...rest].join('/')}${trailingSlash ? '/' : ''}`;
  return { kind: 'passthrough', area, path, query };
}

/** `GET http://host/path` (a proxy's form) counts as `/path`. */
const authority = /^https?:\/\/[^/?]*/i;

/** A segment of a path that is forwarded: RFC 3986's unreserved characters. */
const plainSegment = /^[A-Za-z0-9\-._~]+$/;

/** Visible ASCII without `#`, which would end the query for the next parser. */
const forwardableQuery = /^[\x21-\x22\x24-\x7e]*$/;

/** The characters RFC 3986 allows in a path, minus the percent sign. */
const pathCharacters = /^[A-Za-z0-9\-._~!$&'()*+,;=:@/]*$/;

function decodePath(raw: string): string | undefined {
  if (/%(?:2f|5c|25)/i.test(raw)) return undefined;
  let decoded: string;
  try {
    decoded = decodeURIComponent(raw);
  } catch {
    return undefined;
  }
  return pathCharacters.test(decoded) ? decoded : undefined;
}
