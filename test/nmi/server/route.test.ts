import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseRoute, passthroughAreas, type Route } from '../../../src/nmi/server/route.ts';

const token = (query = ''): Route => ({ kind: 'token', query });
const invalid: Route = { kind: 'refused', reason: 'path_invalid' };
const notFound: Route = { kind: 'refused', reason: 'not_found' };

describe('route of a request target', () => {
  const table: readonly (readonly [string, Route])[] = [
    ['/metadata/identity/oauth2/token', token()],
    ['/metadata/identity/oauth2/token?resource=x&a=/b?c', token('resource=x&a=/b?c')],
    ['/metadata/identity/oauth2/token/', token()],
    ['/metadata/identity/oauth2/token/?resource=x', token('resource=x')],
    ['/Metadata/identity/oauth2/token', token()],
    ['/METADATA/identity/oauth2/token/?q=1', token('q=1')],
    ['//metadata/identity/oauth2/token?q=1', token('q=1')],
    ['/metadata//identity/oauth2///token', token()],
    ['/metadata/identity/oauth2/%74oken?q=%2f', token('q=%2f')],
    ['http://169.254.169.254/metadata/identity/oauth2/token?q=1', token('q=1')],
    ['HTTP://metadata:80/metadata/identity/oauth2/token', token()],
    // Targets that only look like the token path must not be served, nor relayed.
    ['/metadata/Identity/oauth2/token', notFound],
    ['/metadata/identity/OAuth2/token', notFound],
    ['/metadata/identity/oauth2/tokenXYZ', notFound],
    ['/metadata/identity/oauth2/token/extra', notFound],
    ['/metadata/identity\\oauth2\\token', invalid],
    ['/metadata/identity\\oauth2/token/', invalid],
    ['/metadata/identity/oauth2\\token/', invalid],
    ['/metadata\\identity/oauth2/token', invalid],
    ['\\metadata\\identity\\oauth2\\token', notFound],
    ['/metadata/identity%5coauth2%5Ctoken', invalid],
    ['/metadata/identity%2foauth2%2Ftoken', invalid],
    ['/metadata/identity/%6fauth2%252ftoken', invalid],
    ['/metadata/identity/./oauth2/token', invalid],
    ['/metadata/instance/../identity/oauth2/token', invalid],
    ['/metadata/instance/%2e%2e/identity/oauth2/token', invalid],
    ['/metadata/instance/..%2fidentity/oauth2/token', invalid],
    ['/metadata/instance/..%5cidentity', invalid],
    ['/metadata/identity/oauth2/token%00', invalid],
    ['/metadata/identity/oauth2/token%zz', invalid],
    ['/metadata/instance/%c0%af', invalid],
    ['/metadata/identity/oauth2/token#x', invalid],
    ['/metadata/instance/..;/identity/oauth2/token', invalid],
    ['/metadata/instance/.../identity/oauth2/token', invalid],
    ['/metadata/instance/a;b=c', invalid],
    ['/metadata/instance?x=1#y', invalid],
    ['/metadata/instance?x=\r\nX: y', invalid],
    // Other paths that pods really call.
    ['/metadata/identity/getplatformmetadata?cred-api-version=2.0', notFound],
    ['/metadata/identity/info?api-version=2018-02-01', notFound],
    ['/latest/meta-data/', notFound],
    ['/latest/api/token', notFound],
    ['/computeMetadata/v1/', notFound],
    ['/', notFound],
    ['', notFound],
    ['*', notFound],
    ['/metadata', notFound],
    ['/metadata/', notFound],
    ['/host/token', { kind: 'host-token', query: '' }],
    ['/host/token/?resource=r', { kind: 'host-token', query: 'resource=r' }],
    ['/host/tokens', notFound],
    ['/other/identity/oauth2/token?x', notFound],
    ['/other/instance', notFound],
    ['http:///host/token?x?y', { kind: 'host-token', query: 'x?y' }],
    ['http://host', notFound],
    ['http://host?x', notFound],
    [
      '/metadata/instance/compute?api-version=2021-02-01',
      {
        kind: 'passthrough',
        area: 'instance',
        path: '/metadata/instance/compute',
        query: 'api-version=2021-02-01',
      },
    ],
    [
      '/Metadata/Instance/',
      { kind: 'passthrough', area: 'instance', path: '/metadata/instance/', query: '' },
    ],
    [
      '//metadata//versions',
      { kind: 'passthrough', area: 'versions', path: '/metadata/versions', query: '' },
    ],
    [
      '/metadata/ScheduledEvents?x',
      {
        kind: 'passthrough',
        area: 'scheduledevents',
        path: '/metadata/scheduledevents',
        query: 'x',
      },
    ],
  ];
  for (const [target, expected] of table) {
    it(`decides ${JSON.stringify(target)}`, () => {
      assert.deepEqual(parseRoute(target), expected);
    });
  }
});

/**
 * The same rules in a slow version, on the path as the WHATWG URL parser would send it, so that
 * encodings that some parser decodes are detected.
 */
function reference(target: string): Route {
  let rest = target;
  const absolute = /^https?:\/\/[^/?]*/i.exec(target);
  if (absolute !== null) {
    rest = target.slice(absolute[0].length);
    if (!rest.startsWith('/')) rest = `/${rest}`;
  }
  if (!rest.startsWith('/')) return notFound;
  const [rawPath = '', ...queries] = rest.split('?');
  const query = queries.join('?');
  if (/%(2f|5c|25)/i.test(rawPath)) return invalid;
  let path: string;
  try {
    path = decodeURIComponent(rawPath);
  } catch {
    return invalid;
  }
  if (/[^A-Za-z0-9\-._~!$&'()*+,;=:@/]/.test(path)) return invalid;
  const parts = path.split('/').filter(Boolean);
  if (parts.some((part) => part === '.' || part.startsWith('..'))) return invalid;
  const clean = `/${parts.join('/')}`;
  if (clean === '/host/token') return { kind: 'host-token', query };
  const match = /^\/metadata\/([^/]+)(.*)$/i.exec(clean);
  if (match === null) return notFound;
  const [, second = '', tail = ''] = match;
  if (second === 'identity') return tail === '/oauth2/token' ? token(query) : notFound;
  const area = passthroughAreas.find((known) => known === second.toLowerCase());
  if (area === undefined) return notFound;
  if (
    parts
      .slice(2)
      .join('')
      .replaceAll(/[A-Za-z0-9._~-]/g, '') !== ''
  )
    return invalid;
  if (query.replaceAll(/[!-~]/g, '') !== '' || query.includes('#')) return invalid;
  const slash = path.endsWith('/') ? '/' : '';
  return { kind: 'passthrough', area, path: `/metadata/${area}${tail}${slash}`, query };
}

const piece = fc.constantFrom(
  ...[
    '/',
    '//',
    '\\',
    '%5c',
    '%2f',
    '%2F',
    '%25',
    '%2e',
    '.',
    '..',
    '%',
    '%zz',
    '?',
    '#',
    '&',
    ' ',
  ],
  ...['metadata', 'Metadata', 'METADATA', 'identity', 'Identity', 'oauth2', 'token', 'instance'],
  ...[
    'versions',
    'attested',
    'host',
    'http://h',
    'https://h:1',
    '%74oken',
    'é',
    '%c3%a9',
    '\0',
    ';',
  ],
);
const target = fc.oneof(
  fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join('')),
  fc
    .array(piece, { maxLength: 4 })
    .map((pieces) => `/metadata/identity/oauth2/token${pieces.join('')}`),
  fc.string({ unit: 'binary' }),
);

describe('route parsing, for any text', () => {
  it('never throws and agrees with a slow reference', () => {
    fc.assert(
      fc.property(target, (text) => {
        assert.deepEqual(parseRoute(text), reference(text));
      }),
      { numRuns: 5_000 },
    );
  });

  it('forwards only canonical paths of the allow list, which no parser reads as a token path', () => {
    fc.assert(
      fc.property(target, (text) => {
        const route = parseRoute(text);
        if (route.kind !== 'passthrough') return;
        assert.ok(route.path.startsWith(`/metadata/${route.area}`));
        const again = new URL(route.path, 'http://imds');
        assert.equal(again.pathname, route.path);
        // Backslash as slash, and a second decoding, as lenient servers do.
        const lenient = decodeURIComponent(route.path).replaceAll('\\', '/').toLowerCase();
        assert.ok(lenient.startsWith(`/metadata/${route.area}`));
        assert.ok(!lenient.includes('..'));
        assert.ok(!/[\s\\%#?]/.test(route.path));
      }),
      { numRuns: 5_000 },
    );
  });
});
