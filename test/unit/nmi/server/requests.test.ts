/** Requests: their routes, their queries, the order of checks, and what is recorded and answered. */
import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough } from 'node:stream';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { answerToken, refuse, type Answer } from '../../../../src/nmi/base/answers.ts';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import type { PodPlaces } from '../../../../src/nmi/callers/place.ts';
import type { Grant } from '../../../../src/nmi/grants/grant.ts';
import {
  serverHeader,
  writeAnswer,
  writeRawAnswer,
} from '../../../../src/nmi/server/answer-writer.ts';
import { CallerLimits } from '../../../../src/nmi/server/caller-limits.ts';
import type { HostTokenEndpoint } from '../../../../src/nmi/server/host-token.ts';
import {
  identityOf,
  recordOf,
  recordOfHit,
  roundedMs,
  type RequestRecord,
} from '../../../../src/nmi/server/request-record.ts';
import { HttpExchange, relayed, type Handled } from '../../../../src/nmi/server/request.ts';
import {
  parseRoute,
  passthroughAreas,
  type PassthroughArea,
  type Route,
} from '../../../../src/nmi/server/route.ts';
import { createRouter, type RouterOptions } from '../../../../src/nmi/server/router.ts';
import type { TokenEndpoint } from '../../../../src/nmi/server/token-endpoint.ts';
import {
  askedIdOf,
  parseTokenQuery,
  wantsOtherToken,
} from '../../../../src/nmi/server/token-query.ts';
import { LoopDetection } from '../../../../src/nmi/sources/imds/loop-detection.ts';
import { Waiters } from '../../../../src/nmi/state/waiters.ts';
import { createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  createDecision,
  createExchange,
  createGrant,
  createGrantedDecision,
  createHit,
  hostTokenRoute,
  podIp,
  routeTo,
  tokenRoute,
} from '../../../support/request-records.ts';

const token = (query = ''): Route => ({ kind: 'token', query });
const invalid: Route = { kind: 'refused', reason: 'path_invalid' };
const notFound: Route = { kind: 'refused', reason: 'not_found' };
const hostToken = (query = ''): Route => ({ kind: 'host-token', query });
const relay = (area: PassthroughArea, path: string, query = ''): Route => ({
  kind: 'passthrough',
  area,
  path: `/metadata/${path}`,
  query,
});

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
    ['/host/token', hostToken()],
    ['/host/token/?resource=r', hostToken('resource=r')],
    ['/host/tokens', notFound],
    ['/other/identity/oauth2/token?x', notFound],
    ['/other/instance', notFound],
    ['http:///host/token?x?y', hostToken('x?y')],
    ['http://host', notFound],
    ['http://host?x', notFound],
    ['/metadata/instance/compute?x=2021', relay('instance', 'instance/compute', 'x=2021')],
    ['/Metadata/Instance/', relay('instance', 'instance/')],
    ['//metadata//versions', relay('versions', 'versions')],
    ['/metadata/ScheduledEvents?x', relay('scheduledevents', 'scheduledevents', 'x')],
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
  const below = parts.slice(2).join('');
  if (below.replaceAll(/[A-Za-z0-9._~-]/g, '') !== '') return invalid;
  if (query.replaceAll(/[!-~]/g, '') !== '' || query.includes('#')) return invalid;
  const slash = path.endsWith('/') ? '/' : '';
  return { kind: 'passthrough', area, path: `/metadata/${area}${tail}${slash}`, query };
}

const piece = fc.constantFrom(
  ...String.raw`/ // \ %5c %2f %2F %25 %2e . .. % %zz ? # & ; é %c3%a9 %74oken`.split(' '),
  ...'metadata Metadata METADATA identity Identity oauth2 token instance versions'.split(' '),
  ...[' ', '\0', 'attested', 'host', 'http://h', 'https://h:1'],
);
const anyTarget = fc.oneof(
  fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join('')),
  fc
    .array(piece, { maxLength: 4 })
    .map((pieces) => `/metadata/identity/oauth2/token${pieces.join('')}`),
  fc.string({ unit: 'binary' }),
);

describe('route parsing, for any text', () => {
  it('never throws and agrees with a slow reference', () => {
    fc.assert(
      fc.property(anyTarget, (text) => {
        assert.deepEqual(parseRoute(text), reference(text));
      }),
      { numRuns: 5_000 },
    );
  });

  it('forwards only canonical paths of the allow list, which no parser reads as a token path', () => {
    fc.assert(
      fc.property(anyTarget, (text) => {
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

const tokenTarget = '/metadata/identity/oauth2/token?resource=r';
const instance = '/metadata/instance';

interface Ask {
  readonly method?: string;
  readonly headers?: readonly string[];
  readonly ip?: string;
  readonly isGone?: boolean;
  readonly caller?: CallerConnection;
}

function openRouter(over: Partial<RouterOptions> = {}, places?: PodPlaces) {
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  pods.upsert(createPod({ ips: [podIp] }));
  const clusterState = { pods, places, isSynced: () => true, trusts: () => true };
  const calls: string[] = [];
  const records: RequestRecord[] = [];
  const bugs: unknown[] = [];
  const loopDetection = new LoopDetection();
  const waiters = new Waiters({ clock, maxWaiters: 10 });
  const route = createRouter({
    metadataHeaderRequired: true,
    tokens: {
      handle: () => {
        calls.push('token');
        return answerToken('{}');
      },
    } as unknown as TokenEndpoint,
    hostTokens: {
      handle: (_exchange: unknown, query: string) => {
        calls.push(`host token ${query}`);
        return answerToken('{}');
      },
    } as unknown as HostTokenEndpoint,
    passthrough: {
      refusal: ({ area }) =>
        area === 'attested' ? refuse('metadata_blocked', 'closed') : undefined,
      relay: (_exchange, { path }) => {
        calls.push(`relay ${path}`);
        return Promise.resolve(relayed);
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    clusterState,
    objectWait: {
      clock,
      waiters,
      limits: new CallerLimits({ fetches: 1, waiting: 1, pendingObjects: 10 }),
      maxWaitMs: 1_000,
    },
    loopDetection,
    clock,
    observer: { onRequest: (record) => records.push(record) },
    onBug: (error) => bugs.push(error),
    ...over,
  });
  function handle(target: string, options: Ask = {}): Handled | Promise<Handled> {
    const { method = 'GET', headers = ['Metadata', 'true'], isGone = false } = options;
    const byAddress = { kind: 'by-address' } as const;
    const { caller = new CallerConnection({ remoteIp: options.ip ?? podIp }, byAddress) } = options;
    const exchange = new HttpExchange(
      { method, url: target, rawHeaders: [...headers] } as unknown as IncomingMessage,
      { destroyed: isGone, closed: false } as ServerResponse,
      caller,
      clock.monotonicMs(),
      'id',
    );
    return route(exchange);
  }
  /** The reason of the answer, or that it was relayed. */
  async function ask(target: string, options: Ask = {}): Promise<string> {
    const handled = await handle(target, options);
    return handled === relayed ? 'relayed' : handled.reason;
  }
  return { clock, waiters, pods, calls, records, bugs, loopDetection, handle, ask };
}

describe('the checks of every request', () => {
  it('run in the order of the real service: path, method, forwarding, header, policy', async () => {
    const { ask, calls } = openRouter();
    const post: Ask = { method: 'POST', headers: ['X-Forwarded-For', '1.2.3.4'] };
    assert.equal(await ask('/metadata/../x', post), 'path_invalid');
    assert.equal(await ask('/nothing', post), 'not_found');
    for (const target of [tokenTarget, instance, '/metadata/attested']) {
      assert.equal(await ask(target, post), 'method_not_allowed');
      assert.equal(await ask(target, { headers: ['x-forwarded-for', ''] }), 'forwarded');
      for (const headers of [
        [],
        ['Metadata', 'True'],
        ['Metadata', 'false'],
        ['Metadata', 'true', 'Metadata', 'true'],
      ]) {
        assert.equal(await ask(target, { headers }), 'metadata_header_missing');
      }
    }
    assert.equal(await ask('/metadata/attested'), 'metadata_blocked');
    assert.deepEqual(calls, []);
  });

  it('require no header when that is off, and none for /host/token', async () => {
    const { ask, calls } = openRouter({ metadataHeaderRequired: false });
    assert.equal(await ask(tokenTarget, { headers: [] }), 'ok');
    const strict = openRouter();
    assert.equal(await strict.ask('/host/token?resource=r', { headers: [] }), 'ok');
    assert.equal(await strict.ask('/host/token', { method: 'POST' }), 'method_not_allowed');
    assert.deepEqual([...calls, ...strict.calls], ['token', 'host token resource=r']);
  });

  it('list the allowed methods, with POST for scheduled events', async () => {
    const { handle, ask } = openRouter();
    const answer = (await handle(tokenTarget, { method: 'PUT' })) as Answer;
    assert.equal(answer.allow, 'GET');
    const events = '/metadata/scheduledevents';
    assert.equal(await ask(events, { method: 'POST' }), 'relayed');
    const other = (await handle(events, { method: 'PUT' })) as Answer;
    assert.equal(other.allow, 'GET, POST');
  });
});

describe('the routes', () => {
  it('lead to the named endpoint, and are recorded', async () => {
    const { ask, calls, records } = openRouter();
    assert.equal(await ask(tokenTarget), 'ok');
    assert.equal(await ask(instance), 'relayed');
    assert.equal(await ask('/host/token?resource=r'), 'ok');
    assert.equal(await ask('/nothing'), 'not_found');
    assert.deepEqual(calls, ['token', 'relay /metadata/instance', 'host token resource=r']);
    assert.deepEqual(
      records.map((record) => [record.route.kind, record.reason, record.pod?.name].join(' ')),
      ['token ok pod', 'passthrough ok pod', 'host-token ok ', 'refused not_found pod'],
    );
  });

  it('are recorded with the pod of the link, which is identified for later requests, too', async () => {
    const places = { isAlone: () => true, isOf: () => true } as unknown as PodPlaces;
    const { pods, ask, records } = openRouter({}, places);
    const attestation = { kind: 'by-link', place: { link: 7 } } as const;
    const caller = new CallerConnection({ remoteIp: '10.0.0.9' }, attestation);
    caller.resolve(pods, places);
    pods.upsert(createPod({ name: 'late', ips: ['10.0.0.9'] }));
    assert.equal(await ask('/metadata/attested', { caller }), 'metadata_blocked');
    assert.equal(records[0]?.pod?.name, 'late');
    assert.equal(await ask(instance, { caller }), 'relayed');
  });

  it('have no /host/token when it is off', async () => {
    const { handle } = openRouter({ hostTokens: undefined });
    const answer = (await handle('/host/token')) as Answer;
    assert.equal(answer.reason, 'not_found');
    assert.match(answer.body, /--enable-host-token turns it on/);
  });
});

describe('a request of the agent itself that returns to it', () => {
  it('is refused, and ends its connection', async () => {
    const { handle, ask, loopDetection } = openRouter();
    const own = ['Metadata', 'true', 'x-ms-client-request-id', loopDetection.next()];
    const answer = (await handle(tokenTarget, { headers: own, ip: '10.224.0.4' })) as Answer;
    assert.deepEqual([answer.reason, answer.close], ['loop_detected', true]);
    const others = ['Metadata', 'true', 'x-ms-client-request-id', new LoopDetection().next()];
    assert.equal(await ask(tokenTarget, { headers: others, ip: '10.224.0.4' }), 'ok');
    assert.equal(await ask(tokenTarget, { ip: '10.224.0.4' }), 'ok');
  });

  it('is refused even if the agent is a pod with an identity, and for relayed paths', async () => {
    const { ask, loopDetection } = openRouter();
    const own = ['Metadata', 'true', 'x-ms-client-request-id', loopDetection.next()];
    for (const target of [tokenTarget, instance]) {
      assert.equal(await ask(target, { headers: own }), 'loop_detected');
    }
  });
});

describe('a relayed request', () => {
  it('is only for known pods, and waits for the pod', async () => {
    const { clock, waiters, pods, handle, calls } = openRouter();
    const unknown = handle(instance, { ip: '10.0.0.9' });
    await nextTurn();
    assert.equal(waiters.size, 1);
    clock.advance(1_000);
    assert.equal(((await unknown) as Answer).reason, 'pod_unknown');
    const late = handle(instance, { ip: '10.0.0.9' });
    await nextTurn();
    pods.upsert(createPod({ name: 'late', ips: ['10.0.0.9'] }));
    waiters.wake();
    assert.equal(await late, relayed);
    assert.deepEqual(calls, ['relay /metadata/instance']);
  });

  it('is not sent when the client has disconnected', async () => {
    const { ask, calls } = openRouter();
    assert.equal(await ask(instance, { isGone: true }), 'relayed');
    assert.deepEqual(calls, []);
  });
});

describe('a bug', () => {
  it('gets a separate reason, and is reported, at once or later', async () => {
    const bug = new RangeError('bug');
    const broken = (handle: () => unknown) =>
      openRouter({ tokens: { handle } as unknown as TokenEndpoint });
    const now = broken(() => {
      throw bug;
    });
    const later = broken(() => Promise.reject(bug));
    for (const { ask, bugs, records } of [now, later]) {
      assert.equal(await ask(tokenTarget), 'internal_error');
      assert.deepEqual(bugs, [bug]);
      assert.deepEqual(
        records.map(({ reason }) => reason),
        ['internal_error'],
      );
    }
  });

  it('in the observer is reported like any other', async () => {
    let calls = 0;
    const { handle, bugs } = openRouter({
      observer: {
        onRequest: () => {
          if (++calls === 1) throw new RangeError('observer');
        },
      },
    });
    assert.equal(((await handle('/nothing')) as Answer).reason, 'internal_error');
    assert.match(String(bugs[0]), /observer/);
  });
});

const base = 'api-version=2018-02-01';

function reasonOf(query: string): string {
  const result = parseTokenQuery(query);
  return result.kind === 'ok' ? 'ok' : result.reason;
}

describe('the query of a token request', () => {
  const queryOf = (text: string) => {
    const result = parseTokenQuery(`${text}&resource=r&${base}`);
    assert.ok(result.kind === 'ok', text);
    return result.query;
  };

  it('contains whether a new token is requested', () => {
    for (const [text, wanted] of [
      ['bypass_cache=true', true],
      ['bypass_cache=True', true],
      ['bypass_cache=1', false],
      ['bypass_cache=', false],
    ] as const) {
      assert.equal(queryOf(text).bypassCache, wanted, text);
    }
  });

  it('contains the SHA-256 in hex of the token to replace, and ignores an invalid one', () => {
    const hash = 'cc0af97287543b65da2c7e1476426021826cab166f1e063ed012b855ff819656';
    for (const [text, wanted] of [
      [hash, hash],
      [hash.toUpperCase(), hash],
      [hash.slice(1), undefined],
      [`${hash}0`, undefined],
      [`g${hash.slice(1)}`, undefined],
      ['', undefined],
    ] as const) {
      const query = queryOf(`token_sha256_to_refresh=${text}`);
      assert.equal(query.badTokenSha256, wanted, text);
      assert.equal(wantsOtherToken(query), wanted !== undefined, text);
    }
  });

  it('keeps the resource byte for byte, raw or encoded', () => {
    for (const [resource, ...spelt] of [
      ['https://vault.azure.net', 'https://vault.azure.net'],
      ['https://management.azure.com/'],
      ['https://x//.default'],
      ['api://ABC-def/?q=1&r=2'],
      ['00000003-0000-0000-c000-000000000000'],
      ['a b', 'a+b', 'a b'],
    ] as const) {
      for (const text of [encodeURIComponent(resource), ...spelt]) {
        const selector = { kind: 'none' };
        assert.deepEqual(parseTokenQuery(`resource=${text}&${base}`), {
          kind: 'ok',
          query: { resource, selector, bypassCache: false, badTokenSha256: undefined },
        });
      }
    }
  });

  const selectors = [
    ['client_id=A', { kind: 'client_id', value: 'A' }],
    ['object_id=B', { kind: 'object_id', value: 'B' }],
    ['msi_res_id=/subscriptions/s', { kind: 'resource_id', value: '/subscriptions/s' }],
    ['mi_res_id=%2Fsubscriptions%2Fs', { kind: 'resource_id', value: '/subscriptions/s' }],
    ['client_id=&msi_res_id=/s', { kind: 'resource_id', value: '/s' }],
    ['client_id=', { kind: 'none' }],
    ['xms_cc=CP1&foo=1&bypass_cache=false', { kind: 'none' }],
  ] as const;
  for (const [text, selector] of selectors) {
    it(`takes ${text}`, () => {
      const query = { resource: 'r', selector, bypassCache: false, badTokenSha256: undefined };
      assert.deepEqual(queryOf(text), query);
      const { kind } = selector;
      const isRepeated = kind === 'object_id' || kind === 'resource_id';
      assert.deepEqual(askedIdOf(queryOf(text)), isRepeated ? selector : undefined);
    });
  }

  const refused = [
    ['', 'parameter_missing'],
    ['resource=r', 'parameter_missing'],
    [base, 'parameter_missing'],
    [`${base}&resource=`, 'parameter_missing'],
    ['api-version=&resource=r', 'parameter_missing'],
    ['api-version=latest&resource=r', 'parameter_invalid'],
    [`${base}&resource=a%00b`, 'parameter_invalid'],
    [`${base}&resource=%01a`, 'parameter_invalid'],
    [`${base}&resource=a%C2%9b`, 'parameter_invalid'],
    [`${base}&resource=a%1fb`, 'parameter_invalid'],
    [`${base}&resource=a%7fb`, 'parameter_invalid'],
    [`${base}&resource=a%zz`, 'parameter_invalid'],
    [`${base}&resource=r&=%zz`, 'parameter_invalid'],
    [`${base}&resource=r&resource=r`, 'parameter_duplicate'],
    [`${base}&resource=r&foo=1&foo=2`, 'parameter_duplicate'],
    [`${base}&resource=r&resourc%65=s`, 'parameter_duplicate'],
    [`${base}&resource=r&=1&=2`, 'parameter_duplicate'],
    [`${base}&resource=r&client_id=a&msi_res_id=b`, 'selector_conflict'],
    [`${base}&resource=r&msi_res_id=a&mi_res_id=b`, 'selector_conflict'],
    [`${base}&resource=r&clientid=a`, 'parameter_invalid'],
    [`${base}&resource=r&Client_Id=a`, 'parameter_invalid'],
    [`${base}&resource=r&msi-res-id=a`, 'parameter_invalid'],
  ] as const;
  for (const [query, reason] of refused) {
    it(`refuses ${JSON.stringify(query.slice(0, 70))} as ${reason}`, () => {
      assert.equal(reasonOf(query), reason);
    });
  }

  it('has a resource of up to 2,048 characters, and a selector of up to 1,024', () => {
    const selected = `${base}&resource=r&client_id=`;
    for (const [query, reason] of [
      [`${base}&resource=${'x'.repeat(2_048)}`, 'ok'],
      [`${base}&resource=${'x'.repeat(2_049)}`, 'parameter_invalid'],
      [`${selected}${'x'.repeat(1_024)}`, 'ok'],
      [`${selected}${'x'.repeat(1_025)}`, 'parameter_invalid'],
      [`${selected}a%01`, 'parameter_invalid'],
    ] as const) {
      assert.equal(reasonOf(query), reason);
    }
  });

  it('has the intended name for a misspelled selector', () => {
    const result = parseTokenQuery(`${base}&resource=r&clientid=a`);
    assert.ok(result.kind === 'refused' && result.detail.includes("'client_id'"));
  });

  it('ignores empty parts, and needs no api-version on the host route', () => {
    for (const query of [`&&${base}&&resource=r&&`, `&${base}&resource=r`]) {
      assert.equal(reasonOf(query), 'ok', query);
    }
    assert.equal(parseTokenQuery('resource=r', false).kind, 'ok');
  });

  it('never throws and contains nothing unprintable, for any text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (query) => {
        const result = parseTokenQuery(query);
        if (result.kind === 'refused') assert.match(result.detail, /^[\x20-\x7e]*$/);
      }),
    );
  });

  it('does not depend on the order of parameters', () => {
    const parts = ['resource=r', base, 'client_id=c', 'foo=1'];
    fc.assert(
      fc.property(fc.shuffledSubarray(parts, { minLength: parts.length }), (shuffled) => {
        assert.deepEqual(parseTokenQuery(shuffled.join('&')), parseTokenQuery(parts.join('&')));
      }),
    );
  });
});

function openExchange(request: Partial<IncomingMessage>, response: Partial<ServerResponse> = {}) {
  const caller = new CallerConnection({ remoteIp: '127.0.0.1' }, { kind: 'by-address' });
  return new HttpExchange(request as IncomingMessage, response as ServerResponse, caller, 7, 'id');
}

describe('a request', () => {
  it('has every value of a header in order, regardless of case', () => {
    const rawHeaders = 'Metadata true X y METADATA false Metadatb no metadat no odd'.split(' ');
    const exchange = openExchange({ rawHeaders });
    for (const [name, values] of [
      ['metadata', ['true', 'false']],
      ['x', ['y']],
      ['odd', []],
      ['none', []],
    ] as const) {
      assert.deepEqual(exchange.headerValues(name), values);
    }
  });

  it('has method and target unchanged, or empty', () => {
    const exchange = openExchange({ method: 'GET', url: '/a?b' });
    assert.deepEqual([exchange.method, exchange.target], ['GET', '/a?b']);
    assert.deepEqual([openExchange({}).method, openExchange({}).target], ['', '']);
  });

  it('ends with its response, finished or aborted', () => {
    assert.ok(!openExchange({}, { destroyed: false, closed: false }).isGone);
    assert.ok(openExchange({}, { destroyed: true, closed: false }).isGone);
    assert.ok(openExchange({}, { destroyed: false, closed: true }).isGone);
  });
});

const clientRequestId = '0a1b2c3d-0000-4000-8000-000000000001';
const connectionPod = createPod({ name: 'opener', uid: 'opener' });
const exchange = createExchange({
  headerValues: (name) =>
    ({ 'user-agent': ['a/1', 'b/2'], 'x-ms-client-request-id': [clientRequestId] })[name] ?? [],
});

describe('the record of a request', () => {
  it('has the answer without its token, the decision and the time', () => {
    const decision = createDecision();
    const answer = { ...answerToken('a token'), decision };
    const record = recordOf(exchange, tokenRoute, answer, connectionPod, 1.23456);
    assert.deepEqual(record, {
      route: tokenRoute,
      method: 'GET',
      status: 200,
      reason: 'ok',
      refusal: '',
      podIp,
      limitKey: 'pod uid-p',
      identifiedBy: 'address',
      pod: decision.grant?.pod,
      callerPod: connectionPod,
      decision,
      userAgent: 'a/1',
      durationMs: 1.235,
      requestId: 'id',
      correlation: { clientRequestId, traceId: undefined },
      isGone: false,
    });
  });

  it('has the text of a refusal, and whether its client had disconnected', () => {
    const answer = refuse('metadata_blocked', 'no');
    const gone = createExchange({ isGone: true });
    const record = recordOf(gone, routeTo('/metadata/instance'), answer, connectionPod, 0);
    assert.deepEqual(
      [record.status, record.reason, record.refusal, record.isGone, record.decision],
      [403, 'metadata_blocked', answer.body, true, undefined],
    );
  });

  it('of a relayed answer is that of a success', () => {
    const { status, reason, refusal } = recordOf(
      exchange,
      routeTo('/metadata/instance'),
      relayed,
      connectionPod,
      0,
    );
    assert.deepEqual([status, reason, refusal], [200, 'ok', '']);
  });

  it('names the pod of the grant, or that of the connection as long as there is no grant', () => {
    const refused: Grant = {
      kind: 'refused',
      reason: 'agent_not_synced',
      facts: { about: 'stale', ip: podIp },
      isPending: true,
      pod: undefined,
    };
    const answer = refuse('agent_not_synced', 'no');
    const podsOf = (grant: Grant | undefined) => {
      const handled = { ...answer, decision: createDecision({ grant }) };
      const { pod, callerPod, limitKey } = recordOf(
        exchange,
        tokenRoute,
        handled,
        connectionPod,
        0,
      );
      return [pod?.name, callerPod?.name, limitKey];
    };
    assert.deepEqual(podsOf(createGrant()), ['p', 'opener', 'pod uid-p']);
    assert.deepEqual(podsOf(undefined), ['opener', 'opener', 'pod opener']);
    assert.deepEqual(podsOf(refused), [undefined, 'opener', podIp]);
  });

  it('of /host/token never names the pod of the calling process', () => {
    const answer = refuse('host_only', 'no');
    const { pod, callerPod } = recordOf(exchange, hostTokenRoute, answer, connectionPod, 0);
    assert.deepEqual([pod, callerPod], [undefined, undefined]);
  });
});

describe('the record of a hit', () => {
  it('is like that of the same request through node:http', () => {
    const head = (line: string) => {
      const bytes = Buffer.from(`GET /?user-agent:x HTTP/1.1\r\n${line}\r\n\r\n`);
      const from = bytes.indexOf(clientRequestId);
      const ids = [{ name: 'x-ms-client-request-id', from, to: from + clientRequestId.length }];
      return { bytes, ids: from < 0 ? [] : ids };
    };
    const request = head(`x-ms-client-request-id:${clientRequestId}\r\nUser-Agent: a/1`);
    const decision = createGrantedDecision();
    const { grant } = decision;
    const found = createDecision({ grant, cache: 'hit', fetchId: 'fetch' });
    const answer = { ...answerToken('a token'), decision: found };
    const parsed = recordOf(exchange, tokenRoute, answer, grant.pod, 0.5);
    assert.deepEqual(recordOfHit(createHit({ decision, request }), 0.5), parsed);
    const clientOf = (line: string) => recordOfHit(createHit({ request: head(line) }), 0).userAgent;
    assert.equal(clientOf('Metadata: true\r\nuser-agent:a b/1'), 'a b/1');
    assert.equal(clientOf('Metadata: true'), '');
  });
});

describe('the identity of a grant', () => {
  it('is the granted one, or the one that is the cause of the refusal', () => {
    const identity = createIdentity({ name: 'i' });
    const refusedFor = (facts: object): Grant =>
      ({ kind: 'refused', reason: 'r', facts, isPending: false, pod: connectionPod }) as never;
    assert.equal(identityOf(createGrant({ identity })), identity);
    assert.equal(identityOf(refusedFor({ about: 'unusable', identity })), identity);
    assert.equal(identityOf(refusedFor({ about: 'pod-gone' })), undefined);
    assert.equal(
      identityOf({ kind: 'by-object-id', pod: connectionPod, candidates: [], objectId: 'o' }),
      undefined,
    );
    assert.equal(identityOf(undefined), undefined);
  });
});

describe('a reported duration', () => {
  it('has three decimals', () => {
    assert.deepEqual([roundedMs(0.12345), roundedMs(7)], [0.123, 7]);
  });
});

const common = (length: number) => [
  ...['Content-Type', 'application/json; charset=utf-8', 'Content-Length', String(length)],
  ...['Server', serverHeader, 'x-ms-request-id', 'id'],
];

describe('an answer to a request', () => {
  function write(...args: readonly [answer: Parameters<typeof writeAnswer>[1], isLast?: boolean]) {
    const written: unknown[] = [];
    const response = {
      writeHead: (status: number, headers: readonly string[]) => written.push(status, headers),
      end: (body: string) => written.push(body),
    } as unknown as ServerResponse;
    writeAnswer(response, args[0], 'id', args[1] ?? false);
    return written;
  }

  it('has its length in bytes, and the headers for its reason', () => {
    const answer = refuse('not_found', 'né');
    assert.deepEqual(write(answer), [404, common(Buffer.byteLength(answer.body)), answer.body]);
    const waiting = refuse('upstream_throttled', 'x');
    assert.deepEqual(write(waiting)[1], [...common(waiting.body.length), 'Retry-After', '5']);
    const method = refuse('method_not_allowed', 'x', { allow: 'GET' });
    assert.deepEqual(write(method)[1], [...common(method.body.length), 'Allow', 'GET']);
  });

  it('ends its connection when it is the last one, or requires that itself', () => {
    const answer = refuse('not_found', 'x');
    const ended = [...common(answer.body.length), 'Connection', 'close'];
    assert.deepEqual(write(answer, true)[1], ended);
    assert.deepEqual(write(refuse('not_found', 'x', { close: true }))[1], ended);
    assert.ok(serverHeader.startsWith('IMDS/'));
  });
});

describe('an answer to an invalid request', () => {
  it('is written as bytes and ends the connection', () => {
    const socket = new PassThrough();
    const clock = new HandClock(Date.UTC(2026, 0, 1));
    const answer = refuse('request_timeout', 'late');
    writeRawAnswer(socket, answer, 'id', clock);
    const text = String(socket.read());
    const lines = [
      'HTTP/1.1 408 Request Timeout',
      'Content-Type: application/json; charset=utf-8',
      `Content-Length: ${answer.body.length}`,
      `Server: ${serverHeader}`,
      'x-ms-request-id: id',
      'Connection: close',
      'Date: Thu, 01 Jan 2026 00:00:00 GMT',
    ];
    assert.equal(text, `${lines.join('\r\n')}\r\n\r\n${answer.body}`);
    assert.ok(socket.writableEnded);
  });

  it('drops a peer that does not read for a second, and leaves no timer for one that does', () => {
    const clock = new HandClock();
    const stuck = new PassThrough();
    writeRawAnswer(stuck, refuse('not_found', 'x'), 'id', clock);
    clock.advance(999);
    assert.ok(!stuck.destroyed);
    clock.advance(1);
    assert.ok(stuck.destroyed);
    const gone = new PassThrough();
    writeRawAnswer(gone, refuse('not_found', 'x'), 'id', clock);
    gone.emit('close');
    assert.deepEqual(clock.armed, []);
  });
});
