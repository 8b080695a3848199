import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import type { Observer } from '../../../../src/nmi/server/observer.ts';
import { relayed, type Exchange } from '../../../../src/nmi/server/request.ts';
import type { Route } from '../../../../src/nmi/server/route.ts';
import type { GrantedDecision } from '../../../../src/nmi/server/decision-cache.ts';
import { withAudit } from '../../../../src/nmi/telemetry/audit/audit.ts';
import { createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const podIp = '10.0.0.1';
const ok = { status: 200, reason: 'ok', body: 'a token' } as const;
const token: Route = { kind: 'token', query: '' };
const request = { bytes: Buffer.alloc(0), ids: [] };

function rightOf(name = 'p'): GrantedDecision {
  return {
    target: '/',
    generation: 1,
    madeAtMs: 0,
    query: {
      resource: 'https://vault.azure.net',
      selector: { kind: 'none' },
      bypassCache: false,
      badTokenSha256: undefined,
    },
    cacheKey: 'k',
    authorization: {
      kind: 'authorized',
      pod: createPod({ name, ips: [podIp] }),
      identity: createIdentity({ name: 'i' }),
      by: 'only',
      upstream: { kind: 'client_id', value: 'c' },
      auxiliary: [],
    },
  };
}

function open() {
  const clock = new HandClock();
  const seen: string[] = [];
  const bugs: unknown[] = [];
  const inner = Object.fromEntries(
    ['onHit', 'onDecision', 'onHandled', 'onFetch', 'onRefresh', 'onSourceBug', 'onRefusal'].map(
      (name) => [name, () => seen.push(name)],
    ),
  ) as unknown as Observer;
  const lines: string[] = [];
  const faults = { write: false };
  const observer = withAudit(inner, {
    clock,
    clusterState: {
      grants: { grantsOf: () => ({ kind: 'no-label' }) },
      owners: { deciding: () => undefined, decidingForException: () => undefined },
    },
    write: (line) => {
      if (faults.write) throw new RangeError('no');
      lines.push(line);
    },
    onBug: (error) => bugs.push(error),
  });
  const pods = new PodIndex(clock);
  pods.upsert(createPod({ name: 'p', ips: [podIp] }));
  const caller = new CallerConnection({ remoteIp: podIp }, { kind: 'by-address' });
  caller.resolve(pods);
  const exchange: Exchange = {
    caller,
    method: 'GET',
    startedAtMs: 0,
    requestId: 'id',
    isGone: false,
    headerValues: () => [],
  };
  const take = (): readonly Record<string, unknown>[] =>
    lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { clock, seen, bugs, faults, observer, caller, exchange, take };
}

describe('the audit', () => {
  it('has one record of a decided request, with all details of the decision', () => {
    const { observer, exchange, take, clock, seen } = open();
    const { authorization } = rightOf();
    clock.advance(5);
    observer.onDecision(exchange, {
      route: 'token',
      answer: ok,
      authorization,
      resource: 'https://vault.azure.net',
      source: 'imds',
      cache: 'miss',
    });
    assert.deepEqual(take(), []);
    observer.onHandled(exchange, token, ok);
    const [record = {}, ...others] = take();
    assert.deepEqual(others, []);
    const { time, ...rest } = record;
    assert.equal(time, new Date(clock.wallMs()).toISOString());
    assert.deepEqual(rest, {
      level: 'info',
      component: 'audit',
      outcome: 'granted',
      status: 200,
      reason: 'ok',
      attestedBy: 'address',
      namespace: 'default',
      pod: 'p',
      uid: 'uid-p',
      serviceAccount: 'default',
      identity: 'default/i',
      identityType: 0,
      clientId: 'client-of-i',
      by: 'only',
      source: 'imds',
      versions: { 'Pod/p': '1', 'AzureIdentity/i': '1' },
      podIp,
      method: 'GET',
      resource: 'https://vault.azure.net',
      cache: 'miss',
      durationMs: 5,
      requestId: 'id',
      msg: 'token request',
    });
    assert.deepEqual(seen, ['onDecision', 'onHandled']);
  });

  it('has a record of a hit, with the same fields', () => {
    const { observer, caller, take } = open();
    observer.onHit(
      { caller, startedAtMs: 0, requestId: 'id', request, fetchId: 'fetch' },
      rightOf(),
    );
    const [{ outcome, pod, identity, resource, cache, requestId, versions, msg } = {}] = take();
    assert.deepEqual(
      [outcome, pod, identity, resource, cache, requestId, msg],
      ['granted', 'p', 'default/i', 'https://vault.azure.net', 'hit', 'id', 'token request'],
    );
    assert.deepEqual(versions, { 'Pod/p': '1', 'AzureIdentity/i': '1' });
  });

  it('has records of requests without a decision, with the pod of the connection', () => {
    const { observer, exchange, take } = open();
    const refused = { status: 403, reason: 'metadata_blocked', body: '' } as const;
    const path = '/metadata/attested/document';
    const passthrough: Route = { kind: 'passthrough', area: 'attested', path, query: '' };
    observer.onHandled(exchange, passthrough, refused);
    observer.onHandled(exchange, passthrough, relayed);
    observer.onHandled(
      exchange,
      { kind: 'refused', reason: 'path_invalid' },
      {
        status: 400,
        reason: 'path_invalid',
        body: '',
      },
    );
    assert.deepEqual(
      take().map(({ msg, outcome, reason, pod, path: of }) => [msg, outcome, reason, pod, of]),
      [
        ['metadata request', 'denied', 'metadata_blocked', 'p', path],
        ['metadata request', 'granted', 'ok', 'p', path],
        ['request refused', 'denied', 'path_invalid', 'p', undefined],
      ],
    );
  });

  it('reports that only the host process named the pod', () => {
    const { observer, exchange, take } = open();
    const route: Route = { kind: 'host-token', query: '' };
    const { authorization } = rightOf('other');
    const decision = { route: 'host-token', answer: ok, authorization, resource: '' } as const;
    observer.onDecision(exchange, { ...decision, source: '', cache: 'hit' });
    observer.onHandled(exchange, route, ok);
    observer.onHandled(exchange, route, { status: 403, reason: 'host_only', body: '' });
    assert.deepEqual(
      take().map(({ attestedBy, pod }) => [attestedBy, pod]),
      [
        ['host process', 'other'],
        ['host process', undefined],
      ],
    );
  });

  it('has 600 records of a kind and then their number once a minute, separately for each pod', () => {
    const { observer, caller, exchange, take, clock } = open();
    const [right, other] = [rightOf(), rightOf('other')];
    const hit = { caller, startedAtMs: 0, requestId: 'id', request, fetchId: 'fetch' };
    for (let count = 0; count < 10_000; count++) observer.onHit(hit, right);
    assert.equal(take().length, 600);
    observer.onHit(hit, other);
    observer.onHandled(
      exchange,
      { kind: 'refused', reason: 'not_found' },
      {
        status: 404,
        reason: 'not_found',
        body: '',
      },
    );
    assert.equal(take().length, 2);
    clock.advance(60_000);
    const [{ msg, pod, identity, count, outcome } = {}, ...others] = take();
    assert.deepEqual(
      [msg, pod, identity, count, outcome],
      ['further token requests', 'p', 'default/i', 9_400, 'granted'],
    );
    assert.deepEqual(others, []);
  });

  it('changes no answer when a record fails', () => {
    const { observer, caller, exchange, bugs, faults } = open();
    faults.write = true;
    observer.onHit(
      { caller, startedAtMs: 0, requestId: 'id', request, fetchId: 'fetch' },
      rightOf(),
    );
    observer.onHandled(exchange, token, ok);
    assert.equal(bugs.length, 2);
  });

  it('contains no text of the answer', () => {
    const { observer, exchange, take } = open();
    observer.onHandled(exchange, token, { ...ok, body: 'eyJhbGciOiJub25lIn0.e30.' });
    assert.ok(!JSON.stringify(take()).includes('eyJ'));
  });
});
