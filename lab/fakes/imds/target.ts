/**
 * How the fake IMDS reads a request target: as the most forgiving back end one can imagine. Escapes
 * are decoded until none is left, `\` is `/` as in IIS, slashes collapse, dot segments resolve. A
 * proxy that lets any spelling of the token path through is found out by it.
 */

export interface ImdsTarget {
  /**
   * Normalised: one leading slash, no trailing one, the first segment in lower case. The real
   * service folds the case of that segment and of no other.
   */
  readonly path: string;
  /** In order, decoded; names used twice appear twice. */
  readonly query: readonly (readonly [name: string, value: string])[];
}

/** Escapes inside escapes are followed this deep. */
const maxDecodings = 3;

export function parseImdsTarget(target: string): ImdsTarget {
  const withoutAuthority = target.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/\\?#]*/i, '');
  const [beforeFragment = ''] = withoutAuthority.split('#', 1);
  const mark = beforeFragment.indexOf('?');
  const rawPath = mark < 0 ? beforeFragment : beforeFragment.slice(0, mark);
  const rawQuery = mark < 0 ? '' : beforeFragment.slice(mark + 1);
  return { path: normalisePath(rawPath), query: parseQuery(rawQuery) };
}

function normalisePath(raw: string): string {
  const segments: string[] = [];
  for (const segment of decodeFully(raw).replaceAll('\\', '/').split('/')) {
    if (segment === '' || segment === '.') continue;
    if (segment === '..') segments.pop();
    else segments.push(segment);
  }
  const [first = '', ...rest] = segments;
  return `/${[first.toLowerCase(), ...rest].join('/')}`;
}

function decodeFully(raw: string): string {
  let text = raw;
  for (let round = 0; round < maxDecodings; round += 1) {
    const decoded = decodeOnce(text);
    if (decoded === text) break;
    text = decoded;
  }
  return text;
}

/** An escape that is none stays as it is. */
function decodeOnce(text: string): string {
  return text.replaceAll(/(?:%[0-9a-f]{2})+/gi, (escapes) =>
    Buffer.from(escapes.replaceAll('%', ''), 'hex').toString('utf8'),
  );
}

function parseQuery(raw: string): readonly (readonly [string, string])[] {
  return raw
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => {
      const equals = pair.indexOf('=');
      const name = equals < 0 ? pair : pair.slice(0, equals);
      const value = equals < 0 ? '' : pair.slice(equals + 1);
      return [decodeOnce(name.replaceAll('+', ' ')), decodeOnce(value.replaceAll('+', ' '))];
    });
}
