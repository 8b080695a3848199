import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { createRequestCounts } from '../../../src/nmi/telemetry/request-counts.ts';

function open(byIdentity: boolean) {
  const metrics = createMetrics();
  const counts = createRequestCounts(metrics, byIdentity);
  const series = async (metric: string) =>
    (await metrics.render()).split('\n').filter((line) => line.startsWith(`${metric}{`));
  return { counts, series };
}

const identity = (namespace: string, name: string) => ({ namespace, name });

describe('the counts of token requests', () => {
  it('are by namespace and reason, including hits', async () => {
    const { counts, series } = open(false);
    const hits = counts.ofHits({ namespace: 'team-a' }, identity('team-a', 'reader'));
    assert.equal(
      counts.ofHits({ namespace: 'team-a' }, identity('team-a', 'writer')),
      hits,
      'one for all',
    );
    hits.hits += 3;
    counts.add({ namespace: 'team-a' }, undefined, 'ok');
    counts.add({ namespace: 'team-a' }, undefined, 'binding_missing');
    counts.add(undefined, undefined, 'pod_unknown');
    const expected = [
      'nmi_token_requests_total{namespace="team-a",reason="ok"} 4',
      'nmi_token_requests_total{namespace="team-a",reason="binding_missing"} 1',
      'nmi_token_requests_total{namespace="-",reason="pod_unknown"} 1',
    ];
    for (const _scrape of ['first', 'second']) {
      const found = await series('nmi_token_requests_total');
      assert.deepEqual(found.toSorted(), expected.toSorted());
    }
    assert.deepEqual(await series('nmi_identity_token_requests_total'), []);
  });

  it('are also by AzureIdentity, when enabled', async () => {
    const { counts, series } = open(true);
    counts.ofHits({ namespace: 'a' }, identity('a', 'reader')).hits += 2;
    counts.ofHits({ namespace: 'a' }, undefined).hits += 5;
    counts.add({ namespace: 'a' }, identity('a', 'reader'), 'upstream_down');
    assert.deepEqual(await series('nmi_identity_token_requests_total'), [
      'nmi_identity_token_requests_total{namespace="a",identity="reader",reason="upstream_down"} 1',
      'nmi_identity_token_requests_total{namespace="a",identity="reader",reason="ok"} 2',
    ]);
    assert.ok(
      (await series('nmi_token_requests_total')).includes(
        'nmi_token_requests_total{namespace="a",reason="ok"} 7',
      ),
    );
  });

  it('are bounded: those beyond the share of a namespace or of all are "other"', async () => {
    const { counts, series } = open(true);
    for (let index = 0; index < 300; index++) {
      counts.add({ namespace: 'hostile' }, identity('hostile', `i-${index}`), 'ok');
    }
    const ofHostile = await series('nmi_identity_token_requests_total');
    assert.equal(ofHostile.length, 51);
    assert.ok(
      ofHostile.includes(
        'nmi_identity_token_requests_total{namespace="hostile",identity="other",reason="ok"} 250',
      ),
    );
    counts.add({ namespace: 'other-team' }, identity('other-team', 'reader'), 'ok');
    assert.equal(
      (await series('nmi_identity_token_requests_total')).length,
      52,
      'has its own share',
    );
    for (let index = 0; index < 1_000; index++) {
      counts.add({ namespace: `ns-${index}` }, identity(`ns-${index}`, `i-${index % 60}`), 'ok');
    }
    for (let index = 0; index < 600; index++) {
      const namespace = `ns-${index % 100}`;
      counts.add({ namespace }, identity(namespace, `more-${index}`), 'ok');
    }
    assert.equal((await series('nmi_token_requests_total')).length, 201);
    // 500 of their own, and one "other" for each namespace at most.
    assert.ok((await series('nmi_identity_token_requests_total')).length <= 701);
  });
});
