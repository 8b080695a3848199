import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger } from '../../../src/base/logger.ts';
import type { SourceResult } from '../../../src/nmi/sources/source.ts';
import { createFetchReport } from '../../../src/nmi/telemetry/fetch-report.ts';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { longLived } from '../../support/token-fixture.ts';

const identity = { kind: 'client_id', value: '0a1b2c3d-0000-4000-8000-000000000001' } as const;
const failure: SourceResult = {
  ok: false,
  failure: {
    reason: 'upstream_down',
    description: 'x'.repeat(600),
    cooldownMs: 0,
    fetchId: 'fetch',
  },
};

function open() {
  const lines: string[] = [];
  const clock = new HandClock();
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const metrics = createMetrics();
  const take = () => lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { clock, take, metrics, fetches: createFetchReport(metrics, log, clock) };
}

describe('the log of failed fetches', () => {
  it('has each of the first ones, and the number of the rest', () => {
    const { fetches, take, clock } = open();
    for (let count = 0; count < 100; count++) fetches(identity, failure, 20, []);
    const [{ time: _time, ...line } = {}, ...others] = take();
    assert.equal(others.length, 19);
    assert.deepEqual(line, {
      level: 'warn',
      identity: 'node',
      source: 'imds',
      reason: 'upstream_down',
      durationMs: 20,
      detail: 'x'.repeat(500),
      fetchId: 'fetch',
      msg: 'token fetch failed',
    });
    clock.advance(60_000);
    const [{ count, msg } = {}] = take();
    assert.deepEqual([count, msg], [80, 'further token fetches failed']);
  });

  it('names the identity, and those of one namespace leave room to others', () => {
    const { fetches, take } = open();
    const ownerOf = (name: string, namespace = 'shop') =>
      ({ kind: 'AzureIdentity', namespace, name, uid: name }) as const;
    for (let count = 0; count < 500; count++) {
      fetches(identity, failure, 20, [ownerOf(`h${count}`, 'hostile')]);
    }
    assert.ok(take().length <= 64);
    fetches(identity, failure, 20, [ownerOf('a'), ownerOf('b')]);
    fetches(identity, failure, 20, [ownerOf('c')]);
    assert.deepEqual(
      take().map((line) => [line['identity'], line['namespace'], line['sharedBy']]),
      [
        ['shop/a', 'shop', 2],
        ['shop/c', 'shop', undefined],
      ],
    );
  });
});

describe('the metrics of a fetch', () => {
  it('are its outcome and duration, and those of the replaced system', async () => {
    const { fetches, take, metrics } = open();
    fetches(identity, failure, 2_000, []);
    take();
    fetches(identity, { ok: true, token: longLived.token }, 3_000, []);
    fetches({ kind: 'unnamed' }, failure, 4_000, []);
    fetches({ kind: 'entra', credential: { kind: 'secret' } } as never, failure, 5_000, []);
    assert.equal(take().length, 2);
    const page = await metrics.render();
    for (const line of [
      'nmi_upstream_requests_total{source="imds",outcome="upstream_down"} 2',
      'nmi_upstream_requests_total{source="imds",outcome="ok"} 1',
      'nmi_upstream_duration_seconds_sum{source="imds"} 9',
      'aadpodidentity_imds_operations_duration_seconds_sum{operation_type="adal_token_msi_userassignedid"} 3',
      'aadpodidentity_imds_operations_errors_count{operation_type="adal_token_msi_userassignedid"} 1',
      'aadpodidentity_imds_operations_errors_count{operation_type="adal_token_msi"} 1',
      'aadpodidentity_imds_operations_errors_count{operation_type="adal_token"} 1',
    ]) {
      assert.ok(page.split('\n').includes(line), line);
    }
  });
});
