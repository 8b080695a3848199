import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refuse } from '../../../../src/nmi/base/answers.ts';
import { AuditRecords } from '../../../../src/nmi/telemetry/audit/audit.ts';
import { ResourceUses } from '../../../../src/nmi/grants/resource-uses.ts';
import type { RequestRecord } from '../../../../src/nmi/server/request-record.ts';
import { createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  createDecision,
  createGrant,
  createHit,
  createRecord,
  createRefusal,
  hostTokenRoute,
  podIp,
} from '../../../support/request-records.ts';

function open() {
  const clock = new HandClock();
  const lines: string[] = [];
  const audit = new AuditRecords({
    clock,
    clusterState: {
      grants: { grantsOf: () => ({ kind: 'no-label' }) },
      owners: { deciding: () => undefined },
    },
    uses: new ResourceUses(clock),
    write: (line) => lines.push(line),
  });
  const take = (): readonly Record<string, unknown>[] =>
    lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { clock, audit, take };
}

describe('the audit', () => {
  it('has one record of a decided request, with all details of the decision', () => {
    const { audit, take, clock } = open();
    audit.render(createRecord());
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
  });

  it('reports that the client has disconnected', () => {
    const { audit, take } = open();
    audit.render(createRecord({ isGone: true }));
    assert.equal(take()[0]?.['clientGone'], true);
  });

  it('has the same record of a hit', () => {
    const { audit, take } = open();
    const decision = createDecision({ cache: 'hit', fetchId: 'fetch' });
    const record = createRecord({ decision });
    audit.render(record);
    audit.hitsLike(record)(createHit(), 5.0004);
    const [parsed, hit] = take();
    assert.deepEqual(hit, parsed);
    assert.equal(hit?.['fetchId'], 'fetch');
  });

  it('has records of requests without a decision, with the pod of the connection', () => {
    const { audit, take } = open();
    const path = '/metadata/attested/document';
    const route = { kind: 'passthrough', area: 'attested', path, query: '' } as const;
    const refused = { kind: 'refused', reason: 'path_invalid' } as const;
    const blocked = refuse('metadata_blocked', 'no');
    audit.render(createRefusal(blocked, { route, decision: undefined }));
    audit.render(createRecord({ route, decision: undefined }));
    audit.render(
      createRefusal(refuse('path_invalid', 'no'), { route: refused, decision: undefined }),
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
    const { audit, take } = open();
    const grant = createGrant({ pod: createPod({ name: 'other' }) });
    audit.render(createRecord({ route: hostTokenRoute, decision: createDecision({ grant }) }));
    const unnamed = { decision: undefined, pod: undefined, callerPod: undefined };
    const hostOnly = refuse('host_only', 'no');
    audit.render(createRefusal(hostOnly, { route: hostTokenRoute, ...unnamed }));
    assert.deepEqual(
      take().map(({ attestedBy, pod }) => [attestedBy, pod]),
      [
        ['host process', 'other'],
        ['host process', undefined],
      ],
    );
  });

  it('has 600 records of a kind and then their number once a minute, separately for each pod', () => {
    const { audit, take, clock } = open();
    const write = audit.hitsLike(createRecord({ decision: createDecision({ cache: 'hit' }) }));
    for (let count = 0; count < 10_000; count++) write(createHit(), 1);
    assert.equal(take().length, 600);
    const grant = createGrant({ pod: createPod({ name: 'other' }) });
    audit.render(createRecord({ decision: createDecision({ grant }) }));
    const nothing = { kind: 'refused', reason: 'not_found' } as const;
    audit.render(createRefusal(refuse('not_found', 'no'), { route: nothing, decision: undefined }));
    assert.equal(take().length, 2);
    clock.advance(60_000);
    const [{ msg, pod, identity, count, outcome } = {}, ...others] = take();
    assert.deepEqual(
      [msg, pod, identity, count, outcome],
      ['further token requests', 'p', 'default/i', 9_400, 'granted'],
    );
    assert.deepEqual(others, []);
  });

  it('has a record of the first token of each identity and resource, whatever came before', () => {
    const { audit, take, clock } = open();
    const ask = (resource: string, over: Partial<RequestRecord> = {}) =>
      audit.render(createRecord({ decision: createDecision({ resource }), ...over }));
    for (let count = 0; count < 620; count++) ask('https://vault.azure.net');
    assert.equal(take().length, 600);
    const grant = createGrant({ upstream: { kind: 'client_id', value: 'other' } });
    ask('https://storage.azure.com');
    audit.render(createRecord({ decision: createDecision({ grant }) }));
    for (const resource of ['https://storage.azure.com', 'HTTPS://Storage.azure.com/'])
      ask(resource);
    assert.deepEqual(
      take().map(({ msg, resource }) => [msg, resource]),
      [
        ['token request', 'https://storage.azure.com'],
        ['token request', 'https://vault.azure.net'],
      ],
    );
    const refused = refuse('upstream_refused', 'no');
    for (let count = 0; count < 700; count++) {
      audit.render(
        createRefusal(refused, { decision: createDecision({ resource: `api://${count}` }) }),
      );
    }
    assert.equal(take().length, 600, 'a refused resource is no use');
    clock.advance(60_000);
    const refusedResources = Array.from({ length: 16 }, (_, index) => `api://${600 + index}`);
    assert.deepEqual(
      take().map(({ msg, count, resources }) => [msg, count, resources]),
      [
        [
          'further token requests',
          22,
          ['https://vault.azure.net', 'https://storage.azure.com', 'HTTPS://Storage.azure.com/'],
        ],
        ['further token requests', 100, [...refusedResources, 'others']],
      ],
    );
  });

  it('has the first use on the fast path too, and within further kinds', () => {
    const { audit, take, clock } = open();
    for (let kind = 0; kind < 64; kind++) {
      const grant = createGrant({ identity: createIdentity({ name: `i-${kind}` }) });
      audit.render(createRecord({ decision: createDecision({ grant }) }));
    }
    const grant = createGrant({ identity: createIdentity({ name: 'last' }) });
    const decision = createDecision({ grant, cache: 'hit', resource: 'https://storage.azure.com' });
    const write = audit.hitsLike(createRecord({ decision }));
    take();
    for (let count = 0; count < 3; count++) write(createHit(), 1);
    assert.deepEqual(
      take().map(({ identity, resource }) => [identity, resource]),
      [['default/last', 'https://storage.azure.com']],
    );
    clock.advance(60_000);
    assert.deepEqual(
      take().map(({ msg, caller, resources }) => [msg, caller, resources]),
      [['further requests', 'pod uid-p', ['https://storage.azure.com']]],
    );
  });
});
