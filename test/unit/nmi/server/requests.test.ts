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
import { writeRawAnswer } from '../../../../src/nmi/server/answer-writer.ts';
import { CallerLimits } from '../../../../src/nmi/server/caller-limits.ts';
import type { HostTokenEndpoint } from '../../../../src/nmi/server/host-token.ts';
import {
  recordOf,
  recordOfHit,
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
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  createDecision,
  createExchange,
  createGrant,
  createGrantedDecision,
  createHit,
  podIp,
  hostTokenRoute,
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
  const path = 'metadata/identity/oauth2/token';
  const rows: readonly (readonly [Route, string])[] = [
    [token(), `/${path} /${path}/ /Metadata/identity/oauth2/token http://H:80/${path}`],
    [token('resource=x&a=/b?c'), `/${path}?resource=x&a=/b?c //${path}/?resource=x&a=/b?c`],
    [token('q=%2f'), `/metadata//identity/oauth2///%74oken?q=%2f HTTP://h/${path}?q=%2f`],
    // Targets that only look like the token path must not be served, nor relayed.
    [notFound, `/metadata/Identity/oauth2/token /metadata/identity/OAuth2/token /${path}XYZ`],
    [notFound, `/${path}/extra \\metadata\\identity\\oauth2\\token /other/identity/oauth2/token`],
    [invalid, String.raw`/metadata/identity\oauth2\token /metadata\identity/oauth2/token`],
    [invalid, '/metadata/identity%5coauth2%2Ftoken /metadata/identity/%6fauth2%252ftoken'],
    [invalid, '/metadata/identity/./oauth2/token /metadata/instance/../identity/oauth2/token'],
    [invalid, '/metadata/instance/%2e%2e/identity /metadata/instance/..%2fidentity'],
    [invalid, '/metadata/instance/..%5cidentity /metadata/instance/..;/identity'],
    [invalid, '/metadata/instance/.../identity /metadata/instance/a;b=c /metadata/instance?x=1#y'],
    [invalid, `/${path}%00 /${path}%zz /${path}#x /metadata/instance/%c0%af`],
    // Other paths that pods really call.
    [
      notFound,
      '/metadata/identity/getplatformmetadata?x /metadata/identity/info /latest/api/token',
    ],
    [notFound, '/computeMetadata/v1/ / * /metadata /metadata/ /host/tokens /other/instance'],
    [notFound, 'http://host http://host?x'],
    [hostToken('x?y'), '/host/token?x?y /host/token/?x?y http:///host/token?x?y'],
    [relay('instance', 'instance/compute', 'x=2'), '/metadata/instance/compute?x=2'],
    [relay('instance', 'instance/'), '/Metadata/Instance/'],
    [relay('versions', 'versions'), '//metadata//versions'],
  ];
  for (const [expected, targets] of rows) {
    it(`is for ${targets}: ${JSON.stringify(expected)}`, () => {
      for (const target of targets.split(' ')) assert.deepEqual(parseRoute(target), expected);
    });
  }

  it('is none for no target, and for a break of lines in a query', () => {
    assert.deepEqual(parseRoute(''), notFound);
    assert.deepEqual(parseRoute('/metadata/instance?x=\r\nX: y'), invalid);
  });
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
      assert.equal(await ask(target, { headers: [] }), 'metadata_header_missing');
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
    assert.equal(await ask('/metadata/scheduledevents', { method: 'POST' }), 'relayed');
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
});

describe('a request of the agent itself that returns to it', () => {
  it('is refused, and ends its connection', async () => {
    const { handle, ask, loopDetection } = openRouter();
    const own = ['Metadata', 'true', 'x-ms-client-request-id', loopDetection.next()];
    const answer = (await handle(tokenTarget, { headers: own, ip: '10.224.0.4' })) as Answer;
    assert.deepEqual([answer.reason, answer.close], ['loop_detected', true]);
    assert.equal(await ask(instance, { headers: own }), 'loop_detected', 'as a pod, relayed');
    const others = ['Metadata', 'true', 'x-ms-client-request-id', new LoopDetection().next()];
    assert.equal(await ask(tokenTarget, { headers: others, ip: '10.224.0.4' }), 'ok');
    assert.equal(await ask(tokenTarget, { ip: '10.224.0.4' }), 'ok');
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
});

const base = 'api-version=2018-02-01';
const of = (resource: string, parameter = 'foo'): string =>
  `${base}&resource=${resource}&${parameter}=a`;

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

  it('contains whether a new token is requested, or another than the one with this SHA-256', () => {
    const hash = 'cc0af97287543b65da2c7e1476426021826cab166f1e063ed012b855ff819656';
    for (const [text, bypassCache, badTokenSha256] of [
      ['bypass_cache=True', true, undefined],
      ['bypass_cache=1', false, undefined],
      ['bypass_cache=', false, undefined],
      [`token_sha256_to_refresh=${hash.toUpperCase()}`, false, hash],
      [`token_sha256_to_refresh=${hash.slice(1)}`, false, undefined],
      [`token_sha256_to_refresh=${hash}0`, false, undefined],
      [`token_sha256_to_refresh=g${hash.slice(1)}`, false, undefined],
      ['token_sha256_to_refresh=', false, undefined],
    ] as const) {
      const query = queryOf(text);
      assert.deepEqual([query.bypassCache, query.badTokenSha256], [bypassCache, badTokenSha256]);
      assert.equal(wantsOtherToken(query), bypassCache || badTokenSha256 !== undefined, text);
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

  for (const [text, kind, value] of [
    ['client_id=A', 'client_id', 'A'],
    ['object_id=B', 'object_id', 'B'],
    ['msi_res_id=/subscriptions/s', 'resource_id', '/subscriptions/s'],
    ['mi_res_id=%2Fsubscriptions%2Fs', 'resource_id', '/subscriptions/s'],
    ['client_id=&msi_res_id=/s', 'resource_id', '/s'],
    ['client_id=', 'none', undefined],
    ['&&xms_cc=CP1&foo=1&bypass_cache=false&&', 'none', undefined],
  ] as const) {
    it(`takes ${text}`, () => {
      const selector = value === undefined ? { kind } : { kind, value };
      const query = { resource: 'r', selector, bypassCache: false, badTokenSha256: undefined };
      assert.deepEqual(queryOf(text), query);
      const isRepeated = kind === 'object_id' || kind === 'resource_id';
      assert.deepEqual(askedIdOf(queryOf(text)), isRepeated ? selector : undefined);
    });
  }

  for (const [reason, ...queries] of [
    ['parameter_missing', '', 'resource=r', base, `${base}&resource=`, 'api-version=&resource=r'],
    ['parameter_invalid', 'api-version=latest&resource=r', `${base}&resource=r&=%zz`],
    ['parameter_invalid', ...'%00 %01 %C2%9b %1f %7f %zz'.split(' ').map((odd) => of(`a${odd}b`))],
    ['parameter_invalid', ...'clientid Client_Id msi-res-id'.split(' ').map((n) => of('r', n))],
    ['parameter_duplicate', of('r', 'resource'), of('r', 'foo=1&foo'), of('r', 'resourc%65')],
    ['parameter_duplicate', `${base}&resource=r&=1&=2`],
    ['selector_conflict', of('r', 'client_id=a&msi_res_id'), of('r', 'msi_res_id=a&mi_res_id')],
  ] as const) {
    it(`refuses ${queries.join(' ')} as ${reason}`, () => {
      for (const query of queries) assert.equal(reasonOf(query), reason, query);
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

  it('needs no api-version on the host route, and names the parameter that was meant', () => {
    assert.equal(parseTokenQuery('resource=r', false).kind, 'ok');
    const misspelled = parseTokenQuery(of('r', 'clientid'));
    assert.ok(misspelled.kind === 'refused' && misspelled.detail.includes("'client_id'"));
  });

  it('never throws and contains nothing unprintable, for any text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (query) => {
        const result = parseTokenQuery(query);
        if (result.kind === 'refused') assert.match(result.detail, /^[\x20-\x7e]*$/);
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
    const host = recordOf(exchange, hostTokenRoute, answer, connectionPod, 0);
    assert.deepEqual([host.pod, host.callerPod], [undefined, undefined], 'not of the process');
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

describe('an answer to an invalid request', () => {
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
