import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OwnTime } from '../../../../lab/pods/own-time.ts';
import { createLogger, type LogLevel } from '../../../../src/base/logger.ts';
import { refuse } from '../../../../src/nmi/base/answers.ts';
import type { Hit, RequestRecord } from '../../../../src/nmi/server/request-record.ts';
import type { Renderer } from '../../../../src/nmi/telemetry/renderer.ts';
import { RequestLog } from '../../../../src/nmi/telemetry/request-log.ts';
import { SeenClients } from '../../../../src/nmi/telemetry/seen-clients.ts';
import { Telemetry } from '../../../../src/nmi/telemetry/telemetry.ts';
import { nameClient } from '../../../../src/nmi/telemetry/user-agent.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  callerAt,
  createDecision,
  createGrant,
  createGrantedDecision,
  createHit,
  createRecord,
  createRefusal,
  hostTokenRoute,
  routeTo,
  tokenRoute,
} from '../../../support/request-records.ts';

function open() {
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const clock = new HandClock();
  const telemetry = new Telemetry({ log, clock, oldNames: true, byIdentity: false });
  const read = () => lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { read, clock, telemetry };
}

/** Remembers what it is called with. */
function createWitness() {
  const records: RequestRecord[] = [];
  const firsts: RequestRecord[] = [];
  const hits: { hit: Hit; durationMs: number }[] = [];
  const limits: string[] = [];
  const renderer: Renderer = {
    render: (record) => records.push(record),
    hitsLike: (first) => {
      firsts.push(first);
      return (hit, durationMs) => hits.push({ hit, durationMs });
    },
    throttled: (_pod, limit) => limits.push(limit),
  };
  return { renderer, records, firsts, hits, limits };
}

const answered = (): Promise<unknown> => new Promise(setImmediate);

describe('the record of a request', () => {
  it('is rendered by all others when one fails, and the error is logged with its stack', async () => {
    const { telemetry, read } = open();
    const { renderer, records, hits } = createWitness();
    const fail = (): never => {
      throw new RangeError('no such series');
    };
    telemetry.add({ render: fail, hitsLike: () => fail });
    telemetry.add(renderer);
    telemetry.onRequest(createRecord());
    telemetry.onHit(createHit());
    assert.equal(records.length, 0, 'the answer is sent first');
    await answered();
    assert.deepEqual([records.length, hits.length], [1, 1]);
    const errors = read().filter(({ level }) => level === 'error');
    assert.equal(errors.length, 2);
    for (const { err, msg } of errors) {
      assert.match(String(err), /^RangeError: no such series\n +at /);
      assert.equal(msg, 'failed to record request telemetry');
    }
  });
});

describe('a hit', () => {
  it('is rendered at once, and what its decision determines is rendered once', () => {
    const { telemetry, read, clock } = open();
    const { renderer, firsts, hits } = createWitness();
    telemetry.add(renderer);
    const decision = createGrantedDecision();
    clock.advance(7);
    for (let count = 0; count < 3; count++)
      telemetry.onHit(createHit({ decision, startedAtMs: 5 }));
    assert.deepEqual(
      hits.map(({ durationMs }) => durationMs),
      [2, 2, 2],
    );
    assert.equal(firsts.length, 1);
    assert.equal(firsts[0]?.pod, decision.grant.pod);
    assert.equal(read().length, 3);
    telemetry.onHit(createHit());
    assert.equal(firsts.length, 2, 'another decision');
  });

  it('names the address of its own connection, although connections of a pod share a decision', () => {
    const { telemetry, read } = open();
    const decision = createGrantedDecision();
    const ips = ['10.0.0.1', '10.0.0.2', '10.0.0.1'];
    for (const ip of ips) telemetry.onHit(createHit({ decision, caller: callerAt(ip) }));
    assert.deepEqual(
      read().map(({ podIp }) => podIp),
      ips,
    );
  });
});

describe('the client of a request', () => {
  const userAgent = 'azsdk-python-identity/1.13.0 Python/3.12';
  const names = ['azsdk-python-identity/1.13.0'];
  const grant = createGrant();
  const { uid } = grant.pod;

  it('is recorded at a hit', () => {
    const { telemetry } = open();
    const bytes = Buffer.from(`GET / HTTP/1.1\r\nUser-Agent: ${userAgent}\r\n\r\n`);
    const decision = createGrantedDecision(grant);
    telemetry.onHit(createHit({ decision, request: { bytes, ids: [] } }));
    assert.deepEqual(telemetry.clients.of(uid), names);
    assert.deepEqual(telemetry.clients.identifiedBy(uid), ['address']);
  });

  for (const [what, over, seen] of [
    ['is recorded at a miss', { route: tokenRoute }, names],
    ['is not recorded when a process requests for the pod', { route: hostTokenRoute }, []],
    [
      'is not recorded when the parameters are refused',
      { decision: createDecision({ grant: undefined }), pod: grant.pod },
      [],
    ],
  ] as const) {
    it(what, async () => {
      const { telemetry } = open();
      telemetry.onRequest(createRecord({ userAgent, ...over }));
      await answered();
      assert.deepEqual(telemetry.clients.of(uid), seen);
    });
  }
});

describe('other events', () => {
  it('are counted', async () => {
    const { telemetry } = open();
    const { renderer, limits } = createWitness();
    telemetry.add(renderer);
    telemetry.onRefusal('request_malformed');
    telemetry.onRefresh('failed');
    telemetry.onThrottled(createPod({ namespace: 'shop' }), 'tokens');
    const page = await telemetry.metrics.render();
    for (const line of [
      'nmi_requests_total{route="refused",reason="request_malformed"} 1',
      'nmi_token_refreshes_total{outcome="failed"} 1',
      'nmi_throttled_requests_total{namespace="shop",limit="tokens"} 1',
    ]) {
      assert.ok(page.split('\n').includes(line), line);
    }
    assert.deepEqual(limits, ['tokens']);
  });

  it('are logged when a source throws', () => {
    const { telemetry, read } = open();
    telemetry.onSourceBug(new RangeError('broken'));
    const [{ msg, err } = {}] = read();
    assert.equal(msg, 'token source failed');
    assert.match(String(err), /RangeError: broken/);
  });
});

const clientId = '0a1b2c3d-0000-4000-8000-000000000001';
const secret = 'eyJhbGciOiJub25lIn0.a-token-of-the-pod.';

function openLog(level: LogLevel = 'info') {
  const lines: string[] = [];
  const clock = new HandClock();
  const log = createLogger({ format: 'json', level, write: (line) => lines.push(line) });
  const take = () => lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { clock, take, requests: new RequestLog(log, clock) };
}

function refusalOf(uid: string, reason: 'upstream_down' | 'upstream_throttled'): RequestRecord {
  const pod = createPod({ uid, name: uid });
  const decision = createDecision({ grant: createGrant({ pod }), cache: 'none' });
  return createRefusal(refuse(reason, 'no'), { decision, pod });
}

describe('the log line of a token request', () => {
  it('has pod, identity, resource, source, cache and ids', () => {
    const { requests, take } = openLog();
    const correlation = { clientRequestId: clientId, traceId: 't' };
    const decision = createDecision({ fetchId: 'fetch' });
    requests.render(createRecord({ decision, correlation, isGone: true }));
    const [{ time: _time, ...line } = {}] = take();
    assert.deepEqual(line, {
      level: 'info',
      status: 200,
      reason: 'ok',
      method: 'GET',
      path: '/metadata/identity/oauth2/token',
      podIp: '10.0.0.1',
      pod: 'p',
      namespace: 'default',
      uid: 'uid-p',
      identity: 'default/i',
      identityType: 0,
      clientId: 'clie##### REDACTED #####of-i',
      by: 'only',
      resource: 'https://vault.azure.net',
      source: 'imds',
      cache: 'miss',
      durationMs: 5,
      requestId: 'id',
      clientRequestId: clientId,
      traceId: 't',
      fetchId: 'fetch',
      clientGone: true,
      msg: 'token request',
    });
  });

  it('contains no full client id, and no text that is not a resource', () => {
    const { requests, take } = openLog();
    const upstream = { kind: 'client_id', value: clientId } as const;
    const grant = createGrant({ identity: undefined, upstream });
    const record = createRecord({ decision: createDecision({ grant, resource: secret }) });
    requests.render(record);
    requests.hitsLike(record)(createHit({ decision: createGrantedDecision(grant) }), 1);
    requests.render(createRecord({ ...record, route: hostTokenRoute }));
    const lines = take();
    const paths = ['/metadata/identity/oauth2/token', '/metadata/identity/oauth2/token'];
    assert.deepEqual(
      lines.map((line) => line['path']),
      [...paths, '/host/token'],
    );
    for (const line of lines) {
      assert.equal(line['identity'], 'node');
      assert.equal(line['clientId'], '0a1b##### REDACTED #####0001');
      assert.equal(line['resource'], '[unusual]');
      assert.ok(!JSON.stringify(line).includes(clientId));
      assert.ok(!JSON.stringify(line).includes('eyJ'));
    }
  });
});

describe('the log of refusals', () => {
  it('has a warning of the first of each pod and reason, and their number in a minute', () => {
    const { requests, take, clock } = openLog();
    for (let count = 0; count < 5_000; count++) requests.render(refusalOf('one', 'upstream_down'));
    requests.render(refusalOf('one', 'upstream_throttled'));
    requests.render(refusalOf('two', 'upstream_down'));
    const read = () =>
      take().map(({ level, pod, reason, count, msg }) =>
        [level, pod, reason, count, msg].join(' '),
      );
    assert.deepEqual(read(), [
      'warn one upstream_down  token request',
      'warn one upstream_throttled  token request',
      'warn two upstream_down  token request',
    ]);
    clock.advance(60_000);
    assert.deepEqual(read(), ['warn one upstream_down 4999 further token requests']);
    const nobody = {
      decision: createDecision({ grant: undefined, cache: 'none' }),
      pod: undefined,
    };
    for (const ip of ['10.0.0.8', '10.0.0.9'])
      requests.render(createRefusal(refuse('pod_unknown', 'no'), { ...nobody, podIp: ip }));
    const [{ podIp, source } = {}, ...others] = take();
    assert.deepEqual([podIp, source, others], ['10.0.0.8', undefined, []], 'one for all unknown');
  });
});

describe('the log of hits', () => {
  it('has a hundred lines, and the number of the rest', () => {
    const { requests, take, clock } = openLog();
    const log = requests.hitsLike(createRecord());
    for (let count = 0; count < 1_000; count++) log(createHit(), 1);
    assert.equal(take().length, 100);
    requests.render(refusalOf('p', 'upstream_down'));
    assert.equal(take().length, 1, 'a refusal still has a line');
    clock.advance(60_000);
    assert.deepEqual(
      take().map(({ level, count, msg }) => [level, count, msg]),
      [['info', 900, 'further token requests']],
    );
  });

  it('of a pod with many identities is limited, and has the first line of each', () => {
    const { requests, take, clock } = openLog();
    const render = (uid: string, name: string, count: number) => {
      const pod = createPod({ uid });
      const named = { ...createGrant().identity, name };
      const grant = createGrant({ pod, identity: named as never });
      const record = createRecord({ pod, decision: createDecision({ grant }) });
      for (let line = 0; line < count; line++) requests.render(record);
    };
    for (let minute = 0; minute < 3; minute++) {
      for (let at = 0; at < 200; at++) render('one', `identity ${at}`, 100);
      assert.ok(take().length <= 200 + 64);
      clock.advance(60_000);
      assert.ok(take().length <= 64 + 1);
    }
    for (let pod = 0; pod < 100; pod++) {
      for (let at = 0; at < 200; at++) render(`hostile ${pod}`, `identity ${at}`, 1);
    }
    take();
    render('victim', 'one', 1);
    assert.equal(take().length, 1);
  });
});

describe('the log of metadata requests', () => {
  const blocked = (path: string) =>
    createRefusal(refuse('metadata_blocked', 'no'), {
      route: routeTo(path),
      decision: undefined,
    });

  it('has a warning of the first refusal with pod, path and request id, and their number', () => {
    const { requests, take, clock } = openLog();
    requests.render(blocked('/metadata/instance/compute'));
    requests.render(blocked(`/metadata/instance/${'x'.repeat(41)}`));
    requests.render(createRecord({ route: routeTo('/metadata/instance'), decision: undefined }));
    const [line = {}, ...others] = take();
    assert.deepEqual(others, []);
    const { level, pod, path, durationMs, requestId, reason, msg } = line;
    const expected = ['warn', 'p', '/metadata/instance/compute', 5, 'id', 'metadata_blocked'];
    assert.deepEqual([level, pod, path, durationMs, requestId, reason], expected);
    assert.equal(msg, 'metadata request');
    clock.advance(60_000);
    const [{ pod: of, count, msg: further, ...rest } = {}] = take();
    assert.deepEqual([of, count, further], ['p', 1, 'further metadata requests']);
    assert.ok(!('path' in rest));
    const other = openLog();
    other.requests.render(blocked(`/metadata/instance/${'e'.repeat(41)}`));
    assert.equal(other.take()[0]?.['path'], '[unusual]', 'it may include a token');
  });
});

describe('at level debug, the log', () => {
  it('has a line of every request but refused metadata, which has a warning', () => {
    const { requests, take } = openLog('debug');
    const probe = { route: { kind: 'refused', reason: 'not_found' }, decision: undefined } as const;
    requests.render(createRefusal(refuse('not_found', 'no'), probe));
    requests.render(createRecord());
    requests.hitsLike(createRecord())(createHit(), 1);
    const refused = { route: routeTo('/metadata/instance'), decision: undefined };
    requests.render(createRefusal(refuse('metadata_blocked', 'no'), refused));
    assert.deepEqual(
      take().map(({ level, msg, route, reason }) => [level, msg, route, reason].join(' ')),
      [
        'debug request handled refused not_found',
        'debug request handled token ok',
        'info token request  ok',
        'info token request  ok',
        'debug request handled token ok',
        'warn metadata request  metadata_blocked',
      ],
    );
  });
});

describe('the name of a client', () => {
  it('is the family and version of an Azure SDK, in the format of each', () => {
    const names: readonly (readonly [userAgent: string, name: string])[] = [
      ['azsdk-python-identity/1.25.0 Python/3.12.3 (Linux-6.8)', 'azsdk-python-identity/1.25.0'],
      ['azsdk-go-azidentity/v1.2.0 (go1.19.3; linux)', 'azsdk-go-azidentity/1.2.0'],
      ['azsdk-net-Identity/1.11.0-alpha.20240307.1 (.NET 8)', 'azsdk-net-identity/1.11.0'],
      ['azsdk-net-Core/1.60.0 (.NET 10)', 'azsdk-net-core/1.60.0'],
      ['azsdk-java-azure-identity/1.9.0 (17; Linux)', 'azsdk-java-azure-identity/1.9.0'],
      ['azsdk-js-identity/4.2.1 core-rest-pipeline/1.16 Node/20', 'azsdk-js-identity/4.2.1'],
      ['azsdk-cpp-identity/1.11.0 (Linux)', 'azsdk-cpp-identity/1.11.0'],
      ['my-app azsdk-python-identity/1.13.0b2 Python/3.8', 'azsdk-python-identity/1.13.0'],
    ];
    for (const [userAgent, name] of names) assert.equal(nameClient(userAgent), name);
  });

  it('is empty for any text that a pod could choose freely', () => {
    for (const userAgent of [
      '',
      'curl/8.5.0',
      'python-requests/2.31',
      'azsdk-python-identity',
      'azsdk-python-identity/secret',
      'azsdk-python-identity/1234567890',
      'azsdk-python-storage-blob/12.1.0',
      'xazsdk-python-identity/1.13.0',
      `${'x'.repeat(300)} azsdk-python-identity/1.13.0`,
    ]) {
      assert.equal(nameClient(userAgent), 'other', userAgent);
    }
    assert.equal(nameClient('azsdk-js-identity/4.2.1.secret'), 'azsdk-js-identity/4.2.1');
  });

  it('is found in time that does not grow with the length of the header', () => {
    const hostile = 'azsdk-python-identity/1.'.repeat(100_000);
    using time = new OwnTime();
    for (let count = 0; count < 1_000; count++) nameClient(hostile);
    assert.ok(time.nowMs() < 500, `${time.nowMs()} ms`);
  });
});

const python = (minor: number) => `azsdk-python-identity/1.${minor}.0 Python/3.12`;

describe('the clients that were seen', () => {
  it('are those of a pod, each once, and of no other pod', () => {
    const clients = new SeenClients(new HandClock());
    for (const each of [python(13), 'curl/8', python(13), 'wget/1']) {
      clients.see('a', each, 'cgroup');
    }
    assert.deepEqual(clients.of('a'), ['azsdk-python-identity/1.13.0', 'other']);
    assert.deepEqual(clients.of('b'), []);
    assert.deepEqual([clients.identifiedBy('a'), clients.identifiedBy('b')], [['cgroup'], []]);
    clients.see('a', 'curl/8', 'link');
    clients.see('a', 'curl/8', undefined);
    assert.deepEqual(clients.identifiedBy('a'), ['cgroup', 'link']);
  });

  it('are four of a pod, the latest ones', () => {
    const clients = new SeenClients(new HandClock());
    clients.see('quiet', python(1), 'cgroup');
    for (let minor = 0; minor < 1_000; minor++) clients.see('noisy', python(minor), 'cgroup');
    assert.deepEqual(
      clients.of('noisy'),
      [996, 997, 998, 999].map((minor) => `azsdk-python-identity/1.${minor}.0`),
    );
    assert.deepEqual(clients.of('quiet'), ['azsdk-python-identity/1.1.0']);
  });

  it('are of a thousand pods, the latest ones', () => {
    const clients = new SeenClients(new HandClock());
    for (let pod = 0; pod < 1_001; pod++) clients.see(`uid-${pod}`, python(1), 'cgroup');
    assert.deepEqual(clients.of('uid-0'), []);
    assert.equal(clients.of('uid-1').length, 1);
    assert.equal(clients.of('uid-1000').length, 1);
  });
  it('have their last five kinds of answers, the latest first, until the pod is deleted', () => {
    const clock = new HandClock();
    const clients = new SeenClients(clock);
    const ask = (name: string, resource: string) => {
      const pod = createPod({ uid: name });
      const decision = createDecision({ resource, grant: createGrant({ pod }) });
      clients.render(createRecord({ pod, decision }));
    };
    ask('quiet', 'https://vault.azure.net');
    for (let count = 0; count < 1_000; count++) ask('noisy', `https://r${count}`);
    clock.advance(3_000);
    ask('noisy', 'https://r997');
    ask('noisy', 'eyJ0.not-a-resource');
    const seen = clients.decisions('noisy').map(({ resource, agoMs }) => [resource, agoMs]);
    assert.deepEqual(seen, [
      ['[unusual]', 0],
      ['https://r997', 0],
      ...[999, 998, 996].map((count) => [`https://r${count}`, 3_000]),
    ]);
    assert.deepEqual(clients.decisions('quiet'), [
      {
        agoMs: 3_000,
        status: 200,
        reason: 'ok',
        identity: 'default/i',
        resource: 'https://vault.azure.net',
        cache: 'miss',
      },
    ]);
    clients.forget(['quiet']);
    assert.deepEqual([clients.decisions('quiet'), clients.of('quiet')], [[], []]);
    assert.equal(clients.decisions('noisy').length, 5);
  });
});
