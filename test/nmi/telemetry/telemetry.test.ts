import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import type { TokenDecision } from '../../../src/nmi/server/observer.ts';
import { relayed, type Exchange } from '../../../src/nmi/server/request.ts';
import type { GrantedDecision } from '../../../src/nmi/server/decision-cache.ts';
import { createLogger } from '../../../src/base/logger.ts';
import { createObserver } from '../../../src/nmi/telemetry/telemetry.ts';
import { SeenClients } from '../../../src/nmi/telemetry/seen-clients.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const identity = { kind: 'client_id', value: '0a1b2c3d-0000-4000-8000-000000000001' } as const;
const failure = {
  ok: false,
  failure: { reason: 'upstream_down', description: 'no answer', cooldownMs: 0 },
} as const;

function rightOf(): GrantedDecision {
  return {
    target: '/',
    generation: 1,
    madeAtMs: 0,
    query: {
      resource: 'r',
      selector: { kind: 'none' },
      bypassCache: false,
      badTokenSha256: undefined,
    },
    cacheKey: 'k',
    authorization: {
      kind: 'authorized',
      pod: createPod({}),
      identity: undefined,
      by: 'binding',
      upstream: identity,
      auxiliary: [],
    },
  };
}

function open() {
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const metrics = createMetrics();
  return { lines, metrics, log, clock: new HandClock() };
}

const caller = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
const request = { bytes: Buffer.alloc(0), ids: [] };
const exchange: Exchange = {
  caller,
  method: 'GET',
  startedAtMs: 0,
  requestId: 'id',
  isGone: false,
  headerValues: () => [],
};

function refusalOf(uid: string, reason: 'upstream_down' | 'upstream_throttled'): TokenDecision {
  return {
    route: 'token',
    answer: { reason, status: 503, body: '' },
    authorization: { ...rightOf().authorization, pod: createPod({ uid, name: uid }) },
    resource: 'https://vault.azure.net',
    source: '',
    cache: 'none',
  };
}

describe('the log of refusals', () => {
  it('has a warning of the first of each pod and reason, and their number in a minute', async () => {
    const { lines, metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    for (let count = 0; count < 5_000; count++) {
      observer.onDecision(exchange, refusalOf('one', 'upstream_down'));
    }
    observer.onDecision(exchange, refusalOf('one', 'upstream_throttled'));
    observer.onDecision(exchange, refusalOf('two', 'upstream_down'));
    await new Promise(setImmediate);
    const read = () =>
      lines.splice(0).map((line) => {
        const { level, pod, reason, count, msg } = JSON.parse(line) as Record<string, unknown>;
        return [level, pod, reason, count, msg].join(' ');
      });
    assert.deepEqual(read(), [
      'warn one upstream_down  token request',
      'warn one upstream_throttled  token request',
      'warn two upstream_down  token request',
    ]);
    clock.advance(60_000);
    assert.deepEqual(read(), ['warn one upstream_down 4999 further token requests']);
  });
});

describe('the log of a client that has gone', () => {
  it('has a mark in the line of its request, and in no other', async () => {
    const { lines, metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    const gone = { ...exchange, requestId: 'gone', isGone: true };
    observer.onDecision(gone, refusalOf('one', 'upstream_down'));
    observer.onDecision(exchange, refusalOf('two', 'upstream_down'));
    await new Promise(setImmediate);
    assert.deepEqual(
      lines.map((line) => {
        const { requestId, clientGone } = JSON.parse(line) as Record<string, unknown>;
        return [requestId, clientGone];
      }),
      [
        ['gone', true],
        ['id', undefined],
      ],
    );
  });
});

describe('the count of token requests by namespace', () => {
  it('includes those that are refused before a decision, each request once', async () => {
    const { metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    const pods = new PodIndex(clock);
    pods.upsert(createPod({ namespace: 'shop', name: 'p', ips: ['10.0.0.1'] }));
    const known = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
    known.resolve(pods);
    const token = { kind: 'token', query: '' } as const;
    const forwarded = { reason: 'forwarded', status: 400, body: '' } as const;
    observer.onHandled({ ...exchange, caller: known }, token, forwarded);
    observer.onHandled(
      { ...exchange, caller: known },
      { kind: 'refused', reason: 'not_found' },
      forwarded,
    );
    const decision = refusalOf('one', 'upstream_down');
    observer.onDecision(exchange, decision);
    observer.onHandled(exchange, token, decision.answer);
    await new Promise(setImmediate);
    const page = await metrics.render();
    assert.deepEqual(
      page.split('\n').filter((line) => line.startsWith('nmi_token_requests_total{')),
      [
        'nmi_token_requests_total{namespace="shop",reason="forwarded"} 1',
        'nmi_token_requests_total{namespace="default",reason="upstream_down"} 1',
      ],
    );
  });
});

describe('the log of metadata requests', () => {
  const refused = { reason: 'metadata_blocked', status: 403, body: '' } as const;
  const routeTo = (path: string) =>
    ({ kind: 'passthrough', area: 'instance', path, query: '' }) as const;

  it('has a warning of the first refusal with pod, path and request id, and their number', () => {
    const { lines, metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    const pods = new PodIndex(clock);
    pods.upsert(createPod({ name: 'p', ips: ['10.0.0.1'] }));
    const known = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
    known.resolve(pods);
    const of = { ...exchange, caller: known };
    clock.advance(12);
    observer.onHandled(of, routeTo('/metadata/instance/compute'), refused);
    observer.onHandled(of, routeTo(`/metadata/instance/${'x'.repeat(41)}`), refused);
    observer.onHandled(of, routeTo('/metadata/instance'), relayed);
    assert.equal(lines.length, 1);
    const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
    const { level, pod, namespace, path, durationMs, requestId, reason, msg } = line;
    assert.deepEqual(
      [level, pod, namespace, path, durationMs, requestId, reason, msg],
      [
        'warn',
        'p',
        'default',
        '/metadata/instance/compute',
        12,
        'id',
        'metadata_blocked',
        'metadata request',
      ],
    );
    clock.advance(60_000);
    assert.match(lines[1] ?? '', /"pod":"p".*"count":1,"msg":"further metadata requests"/);
  });

  it('contains no path that may include a token', () => {
    const { lines, metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    observer.onHandled(exchange, routeTo(`/metadata/instance/${'e'.repeat(41)}`), refused);
    assert.match(lines[0] ?? '', /"path":"\[unusual\]"/);
  });
});

describe('the log of failed fetches', () => {
  it('has each of the first ones, and the number of the rest', async () => {
    const { lines, metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    for (let count = 0; count < 100; count++) observer.onFetch(identity, failure, 20);
    await new Promise(setImmediate);
    assert.equal(lines.splice(0).length, 20);
    clock.advance(60_000);
    assert.match(lines.join(''), /"count":80,"msg":"further token fetches failed"/);
  });
});

describe('the log of hits', () => {
  it('has a hundred lines, and the number of the rest', () => {
    const { lines, metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    for (let count = 0; count < 1_000; count++) {
      observer.onHit(
        { caller, startedAtMs: 0, requestId: 'id', request, fetchId: 'fetch' },
        rightOf(),
      );
    }
    assert.equal(lines.splice(0).length, 100);
    clock.advance(60_000);
    assert.match(lines.join(''), /"level":"info".*"count":900,"msg":"further token requests"/);
  });

  it('names the address of its own connection, although connections of a pod share a decision', () => {
    const { lines, metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    const right = rightOf();
    for (const ip of ['10.0.0.1', '10.0.0.2', '10.0.0.1']) {
      const from = new CallerConnection({ remoteIp: ip }, { kind: 'by-address' });
      observer.onHit(
        { caller: from, startedAtMs: 0, requestId: 'id', request, fetchId: 'fetch' },
        right,
      );
    }
    const told = lines.join('').matchAll(/"podIp":"([^"]+)"/g);
    assert.deepEqual(
      [...told].map(([, ip]) => ip),
      ['10.0.0.1', '10.0.0.2', '10.0.0.1'],
    );
  });
});

describe('the client of a request', () => {
  const userAgent = 'azsdk-python-identity/1.13.0 Python/3.12';

  it('is recorded at a hit and at a miss, and not when a process requests for the pod', async () => {
    const { metrics, log, clock } = open();
    const right = rightOf();
    const { authorization } = right;
    const { uid } = authorization.pod;
    const names = ['azsdk-python-identity/1.13.0'];

    const atHit = new SeenClients();
    const bytes = Buffer.from(`GET / HTTP/1.1\r\nUser-Agent: ${userAgent}\r\n\r\n`);
    createObserver(metrics, log, clock, atHit).onHit(
      { caller, startedAtMs: 0, requestId: 'id', fetchId: 'fetch', request: { bytes, ids: [] } },
      right,
    );
    assert.deepEqual(atHit.of(uid), names);

    const answer = { reason: 'ok', status: 200, body: '' } as const;
    for (const [route, seen] of [
      ['token', names],
      ['host-token', []],
    ] as const) {
      const atMiss = new SeenClients();
      createObserver(metrics, log, clock, atMiss).onDecision(
        { ...exchange, headerValues: (name) => (name === 'user-agent' ? [userAgent] : []) },
        { route, answer, authorization, resource: 'r', source: 'imds', cache: 'miss' },
      );
      await new Promise(setImmediate);
      assert.deepEqual(atMiss.of(uid), seen, route);
    }
  });
});

describe('the counter of throttled requests', () => {
  it('is by limit and by the namespace of the pod, of 200 at most', async () => {
    const { metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    observer.onThrottled(createPod({ namespace: 'shop' }), 'tokens');
    observer.onThrottled(createPod({ namespace: 'shop' }), 'connections');
    for (let count = 0; count < 300; count++) {
      observer.onThrottled(createPod({ namespace: `n${count}` }), 'tokens');
    }
    const page = await metrics.render();
    assert.match(page, /^nmi_throttled_requests_total\{namespace="shop",limit="tokens"\} 1$/m);
    assert.match(page, /^nmi_throttled_requests_total\{namespace="shop",limit="connections"\} 1$/m);
    assert.match(page, /^nmi_throttled_requests_total\{namespace="other",limit="tokens"\} 101$/m);
  });
});

describe('the counters of hits', () => {
  const counters = [
    /^nmi_requests_total\{route="token",reason="ok"\} (\d+)$/m,
    /^nmi_token_cache_requests_total\{outcome="hit"\} (\d+)$/m,
  ];

  it('increase by the growth since the last scrape', async () => {
    const { metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    const scrape = async () => {
      const page = await metrics.render();
      return counters.map((counter) => counter.exec(page)?.[1]);
    };
    for (let count = 0; count < 3; count++) {
      observer.onHit(
        { caller, startedAtMs: 0, requestId: 'id', request, fetchId: 'fetch' },
        rightOf(),
      );
    }
    assert.deepEqual(await scrape(), ['3', '3']);
    assert.deepEqual(await scrape(), ['3', '3'], 'no growth in between');
    observer.onHit(
      { caller, startedAtMs: 0, requestId: 'id', request, fetchId: 'fetch' },
      rightOf(),
    );
    assert.deepEqual(await scrape(), ['4', '4']);
  });
});

describe('a line of the log', () => {
  const token = 'eyJhbGciOiJub25lIn0.a-token-of-the-pod.';

  for (const [way, cache] of [
    ['a hit', 'hit'],
    ['a miss', 'miss'],
  ] as const) {
    it(`of ${way} contains no full client id, and no text that is not a resource`, async () => {
      const { lines, metrics, log, clock } = open();
      const observer = createObserver(metrics, log, clock);
      const right = rightOf();
      const { authorization } = right;
      if (cache === 'hit') {
        const query = { ...right.query, resource: token };
        observer.onHit(
          { caller, startedAtMs: 0, requestId: 'id', request, fetchId: 'fetch' },
          { ...right, query },
        );
      } else {
        const answer = { reason: 'ok', status: 200, body: '' } as const;
        const asked = { resource: token, source: 'imds', cache } as const;
        observer.onDecision(exchange, { route: 'token', answer, authorization, ...asked });
        await new Promise(setImmediate);
      }
      const [line = ''] = lines;
      const { clientId, resource } = JSON.parse(line) as Record<string, unknown>;
      assert.equal(clientId, '0a1b##### REDACTED #####0001');
      assert.equal(resource, '[unusual]');
      assert.ok(!line.includes(identity.value));
      assert.ok(!line.includes('eyJ'));
    });
  }
});

describe('the telemetry of a fetch', () => {
  it('is recorded at the end of the turn, so that the answer is sent first', async () => {
    const { lines, metrics, log, clock } = open();
    createObserver(metrics, log, clock).onFetch(identity, failure, 20);
    assert.deepEqual(lines, []);
    await new Promise(setImmediate);
    assert.match(lines.join(''), /"reason":"upstream_down","durationMs":20,.*"token fetch failed"/);
  });

  it('stops nothing when it fails', async () => {
    const { lines, metrics, log, clock } = open();
    const broken = {
      ...metrics,
      inc: () => {
        throw new RangeError('no such series');
      },
    };
    createObserver(broken, log, clock).onFetch(identity, failure, 20);
    await new Promise(setImmediate);
    assert.match(
      lines.join(''),
      /RangeError: no such series.*"failed to record request telemetry"/,
    );
  });
});
