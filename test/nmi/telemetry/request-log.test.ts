import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger, type LogLevel } from '../../../src/base/logger.ts';
import { refuse } from '../../../src/nmi/base/answers.ts';
import type { RequestRecord } from '../../../src/nmi/server/request-record.ts';
import { RequestLog } from '../../../src/nmi/telemetry/request-log.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import {
  createDecision,
  createGrant,
  createGrantedDecision,
  createHit,
  createRecord,
  createRefusal,
  hostTokenRoute,
  routeTo,
} from '../../support/request-records.ts';

const clientId = '0a1b2c3d-0000-4000-8000-000000000001';
const secret = 'eyJhbGciOiJub25lIn0.a-token-of-the-pod.';

function open(level: LogLevel = 'info') {
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
    const { requests, take } = open();
    const correlation = { clientRequestId: clientId, traceId: 't' };
    const decision = createDecision({ fetchId: 'fetch' });
    requests.render(createRecord({ decision, correlation }));
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
      msg: 'token request',
    });
  });

  it('is the same for a hit of the fast path', () => {
    const { requests, take } = open();
    const record = createRecord({ decision: createDecision({ cache: 'hit', fetchId: 'fetch' }) });
    requests.render(record);
    requests.hitsLike(record)(createHit(), 5.0004);
    const [{ time: _one, ...line } = {}, { time: _other, ...hit } = {}] = take();
    assert.deepEqual(hit, line);
  });

  it('has the path of the endpoint', () => {
    const { requests, take } = open();
    requests.render(createRecord({ route: hostTokenRoute }));
    assert.equal(take()[0]?.['path'], '/host/token');
  });

  it('names the node, or the service account, for a pod without an AzureIdentity', () => {
    const { requests, take } = open();
    const upstreams = [
      { kind: 'unnamed' },
      { kind: 'client_id', value: clientId },
      { kind: 'entra', clientId, credential: { kind: 'secret' } },
    ] as const;
    for (const upstream of upstreams) {
      const grant = createGrant({ identity: undefined, upstream: upstream as never });
      requests.render(createRecord({ decision: createDecision({ grant }) }));
    }
    assert.deepEqual(
      take().map((line) => [line['identity'], line['clientId']]),
      [
        ['node', undefined],
        ['node', '0a1b##### REDACTED #####0001'],
        ['default/default', '0a1b##### REDACTED #####0001'],
      ],
    );
  });

  it('contains no full client id, and no text that is not a resource', () => {
    const { requests, take } = open();
    const upstream = { kind: 'client_id', value: clientId } as const;
    const grant = createGrant({ identity: undefined, upstream });
    const record = createRecord({ decision: createDecision({ grant, resource: secret }) });
    requests.render(record);
    requests.hitsLike(record)(createHit({ decision: createGrantedDecision(grant) }), 1);
    const lines = take();
    assert.equal(lines.length, 2);
    for (const line of lines) {
      assert.equal(line['clientId'], '0a1b##### REDACTED #####0001');
      assert.equal(line['resource'], '[unusual]');
      assert.ok(!JSON.stringify(line).includes(clientId));
      assert.ok(!JSON.stringify(line).includes('eyJ'));
    }
  });

  it('has a mark if the client had disconnected', () => {
    const { requests, take } = open();
    requests.render({ ...refusalOf('one', 'upstream_down'), isGone: true });
    requests.render(refusalOf('two', 'upstream_down'));
    assert.deepEqual(
      take().map(({ clientGone }) => clientGone),
      [true, undefined],
    );
  });
});

describe('the log of refusals', () => {
  it('has a warning of the first of each pod and reason, and their number in a minute', () => {
    const { requests, take, clock } = open();
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
  });

  it('has one line for all callers that are no known pod', () => {
    const { requests, take } = open();
    for (const podIp of ['10.0.0.8', '10.0.0.9']) {
      const decision = createDecision({ grant: undefined, resource: '', cache: 'none' });
      const refusal = refuse('pod_unknown', 'no');
      requests.render(createRefusal(refusal, { decision, pod: undefined, podIp }));
    }
    const [line = {}, ...others] = take();
    assert.deepEqual(others, []);
    assert.deepEqual([line['podIp'], line['cache'], 'source' in line], ['10.0.0.8', 'none', false]);
  });
});

describe('the log of hits', () => {
  it('has a hundred lines, and the number of the rest', () => {
    const { requests, take, clock } = open();
    const log = requests.hitsLike(createRecord());
    for (let count = 0; count < 1_000; count++) log(createHit(), 1);
    assert.equal(take().length, 100);
    clock.advance(60_000);
    assert.deepEqual(
      take().map(({ level, count, msg }) => [level, count, msg]),
      [['info', 900, 'further token requests']],
    );
  });

  it('is separate for each identity of a pod', () => {
    const { requests, take } = open();
    const named = (name: string) =>
      createRecord({
        decision: createDecision({
          grant: createGrant({ identity: { ...createGrant().identity, name } as never }),
        }),
      });
    for (const name of ['one', 'two']) {
      for (let count = 0; count < 200; count++) requests.render(named(name));
    }
    assert.equal(take().length, 200);
  });

  it('of a pod with many identities is limited, and has the first line of each', () => {
    const { requests, take, clock } = open();
    const render = (uid: string, name: string, count: number) => {
      const pod = createPod({ uid });
      const identity = { ...createGrant().identity, name };
      const grant = createGrant({ pod, identity: identity as never });
      const record = createRecord({
        pod,
        decision: createDecision({ grant }),
      });
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

  it('has a line of a refusal after any number of hits', () => {
    const { requests, take } = open();
    for (let count = 0; count < 1_000; count++) requests.render(createRecord());
    take();
    const decision = createDecision({ cache: 'none' });
    requests.render(createRefusal(refuse('upstream_down', 'no'), { decision }));
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
    const { requests, take, clock } = open();
    requests.render(blocked('/metadata/instance/compute'));
    requests.render(blocked(`/metadata/instance/${'x'.repeat(41)}`));
    requests.render(createRecord({ route: routeTo('/metadata/instance'), decision: undefined }));
    const [line = {}, ...others] = take();
    assert.deepEqual(others, []);
    const { level, pod, namespace, path, durationMs, requestId, reason, msg } = line;
    assert.deepEqual(
      [level, pod, namespace, path, durationMs, requestId, reason, msg],
      [
        'warn',
        'p',
        'default',
        '/metadata/instance/compute',
        5,
        'id',
        'metadata_blocked',
        'metadata request',
      ],
    );
    clock.advance(60_000);
    const [{ pod: of, count, msg: further, ...rest } = {}] = take();
    assert.deepEqual([of, count, further], ['p', 1, 'further metadata requests']);
    assert.ok(!('path' in rest));
  });

  it('contains no path that may include a token', () => {
    const { requests, take } = open();
    requests.render(blocked(`/metadata/instance/${'e'.repeat(41)}`));
    assert.equal(take()[0]?.['path'], '[unusual]');
  });
});

describe('at level debug, the log', () => {
  it('has a line of every request but refused metadata, which has a warning', () => {
    const { requests, take } = open('debug');
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
