/**
 * How the fake IMDS parses a request target: like the most tolerant back end imaginable. Escapes
 * are decoded repeatedly, `\` counts as `/` as in IIS, slashes are merged, dot segments are
 * resolved. A proxy that lets any spelling of the token path through is detected.
 */

export interface ImdsTarget {
  /**
   * Normalized: one leading slash, no trailing one, the first segment in lower case. The real
   * service ignores case in that segment only.
   */
  readonly path: string;
  /** In order, decoded; names used twice appear twice. */
  readonly query: readonly (readonly [name: string, value: string])[];
}

/** Maximum depth of escapes inside escapes. */
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

/** Invalid escapes are kept unchanged. */
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
