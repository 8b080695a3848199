import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refuse } from '../../../src/nmi/base/answers.ts';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { createRequestMetrics } from '../../../src/nmi/telemetry/request-metrics.ts';
import { createPod } from '../../support/cache-objects.ts';
import {
  createDecision,
  createHit,
  createRecord,
  createRefusal,
  hostTokenRoute,
  routeTo,
  tokenRoute,
} from '../../support/request-records.ts';

function open(byIdentity = false) {
  const metrics = createMetrics();
  const requests = createRequestMetrics(metrics, byIdentity);
  /** The lines of a metric, and for a histogram only its counts. */
  const series = async (name: string) =>
    (await metrics.render())
      .split('\n')
      .filter((line) => line.startsWith(`${name}{`))
      .map((line) => line.slice(name.length));
  return { requests, series };
}

const shop = createPod({ namespace: 'shop' });

describe('the metrics of a token request', () => {
  it('are its count, its look-up and its durations', async () => {
    const { requests, series } = open(true);
    requests.render(createRecord({ durationMs: 3 }));
    assert.deepEqual(await series('nmi_requests_total'), ['{route="token",reason="ok"} 1']);
    assert.deepEqual(await series('nmi_token_requests_total'), [
      '{namespace="default",reason="ok"} 1',
    ]);
    assert.deepEqual(await series('nmi_identity_token_requests_total'), [
      '{namespace="default",identity="i",reason="ok"} 1',
    ]);
    assert.deepEqual(await series('nmi_token_cache_requests_total'), ['{outcome="miss"} 1']);
    assert.deepEqual(await series('nmi_request_duration_seconds_sum'), [
      '{route="token",cache="miss"} 0.003',
    ]);
    assert.deepEqual(await series('aadpodidentity_nmi_operations_duration_seconds_sum'), [
      '{namespace="default",operation_type="/metadata/identity/oauth2/token",' +
        'resource="https://vault.azure.net",status_code="200"} 0.003',
    ]);
  });

  it('are the same for a hit of the fast path, and grow by the hits since the last scrape', async () => {
    const [parsed, fast] = [open(true), open(true)];
    const record = createRecord({ decision: createDecision({ cache: 'hit' }), durationMs: 3 });
    const count = fast.requests.hitsLike(record);
    for (const [more, total] of [
      [3, 3],
      [0, 3],
      [1, 4],
    ] as const) {
      for (let hit = 0; hit < more; hit++) {
        parsed.requests.render(record);
        count(createHit(), 3);
      }
      for (const name of [
        'nmi_requests_total',
        'nmi_token_requests_total',
        'nmi_identity_token_requests_total',
        'nmi_token_cache_requests_total',
        'nmi_request_duration_seconds_count',
        'aadpodidentity_nmi_operations_duration_seconds_count',
      ]) {
        const found = await fast.series(name);
        assert.deepEqual(found, await parsed.series(name));
        assert.match(found[0] ?? '', new RegExp(` ${total}$`));
      }
    }
  });

  it('count callers that are no known pod, by the name that the replaced system had', async () => {
    const { requests, series } = open();
    const decision = createDecision({ grant: undefined, resource: '', cache: 'none' });
    const unknown = { decision, pod: undefined };
    for (const reason of ['pod_unknown', 'pod_ambiguous', 'agent_not_synced'] as const) {
      requests.render(createRefusal(refuse(reason, 'no'), unknown));
    }
    assert.deepEqual(await series('aadpodidentity_kubernetes_api_operations_errors_count'), [
      '{operation_type="get_pod_list"} 2',
    ]);
    assert.deepEqual(await series('nmi_token_cache_requests_total'), []);
    const [line = ''] = await series('aadpodidentity_nmi_operations_duration_seconds_count');
    assert.match(line, /^\{namespace="",.*,resource="",status_code="503"\} 3$/);
  });

  it('include those that are refused before a decision, each request once', async () => {
    const { requests, series } = open();
    const forwarded = refuse('forwarded', 'no');
    const before = { decision: undefined, pod: shop };
    requests.render(createRefusal(forwarded, { ...before, route: tokenRoute }));
    requests.render(
      createRefusal(forwarded, { ...before, route: { kind: 'refused', reason: 'not_found' } }),
    );
    requests.render(createRefusal(refuse('upstream_down', 'no')));
    assert.deepEqual(await series('nmi_token_requests_total'), [
      '{namespace="shop",reason="forwarded"} 1',
      '{namespace="default",reason="upstream_down"} 1',
    ]);
    assert.equal((await series('nmi_request_duration_seconds_count')).length, 1);
  });

  it('exclude other routes, and /host/token while it is off', async () => {
    const { requests, series } = open();
    const other = { decision: undefined, pod: undefined };
    const off = refuse('not_found', 'no');
    requests.render(createRefusal(off, { ...other, route: hostTokenRoute }));
    const blocked = refuse('metadata_blocked', 'no');
    requests.render(createRefusal(blocked, { ...other, route: routeTo('/metadata/instance') }));
    assert.deepEqual(await series('nmi_token_requests_total'), []);
    assert.deepEqual(await series('nmi_requests_total'), [
      '{route="host-token",reason="not_found"} 1',
      '{route="passthrough",reason="metadata_blocked"} 1',
    ]);
  });

  it('have the route and the path of /host/token', async () => {
    const { requests, series } = open();
    requests.render(createRecord({ route: hostTokenRoute }));
    assert.match(String(await series('nmi_request_duration_seconds_count')), /route="host-token"/);
    assert.match(
      String(await series('aadpodidentity_nmi_operations_duration_seconds_count')),
      /operation_type="\/host\/token"/,
    );
  });
});

describe('the counter of throttled requests', () => {
  it('is by limit and by the namespace of the pod, of 200 at most', async () => {
    const { requests, series } = open();
    requests.throttled(shop, 'tokens');
    requests.throttled(shop, 'connections');
    for (let count = 0; count < 300; count++) {
      requests.throttled(createPod({ namespace: `n${count}` }), 'tokens');
    }
    const found = new Set(await series('nmi_throttled_requests_total'));
    assert.ok(found.has('{namespace="shop",limit="tokens"} 1'));
    assert.ok(found.has('{namespace="shop",limit="connections"} 1'));
    assert.ok(found.has('{namespace="other",limit="tokens"} 101'));
  });
});
