import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger } from '../../../src/base/logger.ts';
import type { Hit, RequestRecord } from '../../../src/nmi/server/request-record.ts';
import type { Renderer } from '../../../src/nmi/telemetry/renderer.ts';
import { Telemetry } from '../../../src/nmi/telemetry/telemetry.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import {
  callerAt,
  createDecision,
  createGrant,
  createGrantedDecision,
  createHit,
  createRecord,
  hostTokenRoute,
  tokenRoute,
} from '../../support/request-records.ts';

const identity = { kind: 'client_id', value: '0a1b2c3d-0000-4000-8000-000000000001' } as const;
const failure = {
  ok: false,
  failure: { reason: 'upstream_down', description: 'no answer', cooldownMs: 0 },
} as const;

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
  it('is counted, logged and rendered otherwise at the end of the turn, after the answer', async () => {
    const { telemetry, read } = open();
    const { renderer, records } = createWitness();
    telemetry.add(renderer);
    const record = createRecord();
    telemetry.onRequest(record);
    assert.deepEqual([read(), records], [[], []]);
    await answered();
    assert.deepEqual(
      read().map(({ msg }) => msg),
      ['token request'],
    );
    assert.deepEqual(records, [record]);
    assert.match(
      await telemetry.metrics.render(),
      /^nmi_requests_total\{route="token",reason="ok"\} 1$/m,
    );
  });

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

describe('the telemetry of a fetch', () => {
  it('is recorded at the end of the turn, so that the answer is sent first', async () => {
    const { telemetry, read } = open();
    telemetry.onFetch(identity, failure, 20, []);
    assert.deepEqual(read(), []);
    await answered();
    const [{ reason, durationMs, msg } = {}] = read();
    assert.deepEqual([reason, durationMs, msg], ['upstream_down', 20, 'token fetch failed']);
  });
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
