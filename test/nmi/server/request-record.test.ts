import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { answerToken, refuse } from '../../../src/nmi/base/answers.ts';
import type { Grant } from '../../../src/nmi/grants/grant.ts';
import { relayed } from '../../../src/nmi/server/request.ts';
import {
  identityOf,
  recordOf,
  recordOfHit,
  roundedMs,
} from '../../../src/nmi/server/request-record.ts';
import { createIdentity, createPod } from '../../support/cache-objects.ts';
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
} from '../../support/request-records.ts';

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
    const token = createDecision({ grant, cache: 'hit', fetchId: 'fetch' });
    const answer = { ...answerToken('a token'), decision: token };
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
