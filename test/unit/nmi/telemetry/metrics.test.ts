import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Histogram, Registry } from 'prom-client';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import type { Clock } from '../../../../src/base/time/clock.ts';
import { refusals, refuse } from '../../../../src/nmi/base/answers.ts';
import type { SourceResult } from '../../../../src/nmi/sources/source.ts';
import { BoundHistogram } from '../../../../src/nmi/telemetry/bound-histogram.ts';
import { BoundedLabel, resourceLabel } from '../../../../src/nmi/telemetry/bounded-label.ts';
import { exportEventLoopDelay } from '../../../../src/nmi/telemetry/event-loop-delay.ts';
import { exportParts } from '../../../../src/nmi/telemetry/export-parts.ts';
import { createFetchReport } from '../../../../src/nmi/telemetry/fetch-report.ts';
import {
  type MetricRow,
  newMetrics,
  oldMetrics,
} from '../../../../src/nmi/telemetry/metric-table.ts';
import { createMetrics } from '../../../../src/nmi/telemetry/metrics.ts';
import { presetSeries } from '../../../../src/nmi/telemetry/preset-series.ts';
import { exportProcess } from '../../../../src/nmi/telemetry/process-metrics.ts';
import { createRequestCounts } from '../../../../src/nmi/telemetry/request-counts.ts';
import { createRequestMetrics } from '../../../../src/nmi/telemetry/request-metrics.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  createDecision,
  createHit,
  createRecord,
  createRefusal,
  hostTokenRoute,
  routeTo,
  tokenRoute,
} from '../../../support/request-records.ts';
import { longLived } from '../../../support/token-fixture.ts';

describe('the metrics', () => {
  it('count, set and observe by name and labels', async () => {
    const metrics = createMetrics();
    metrics.inc('nmi_connections_refused_total', { limit: 'total' });
    metrics.inc('nmi_connections_refused_total', { limit: 'total' }, 4);
    metrics.set('nmi_connections', 7);
    metrics.observe('nmi_upstream_duration_seconds', 0.015, { source: 'imds' });
    metrics.observer('nmi_upstream_duration_seconds', { source: 'imds' })(2);
    const page = await metrics.render();
    assert.match(page, /^nmi_connections_refused_total\{limit="total"\} 5$/m);
    assert.match(page, /^nmi_connections 7$/m);
    assert.match(page, /^nmi_upstream_duration_seconds_bucket\{.*le="0\.02".*\} 1$/m);
    assert.match(page, /^nmi_upstream_duration_seconds_count\{source="imds"\} 2$/m);
    assert.match(page, /^nmi_build_info\{version="0\.0\.0-source",commit="unknown"\} 1$/m);
  });

  it('accept totals that are counted elsewhere, and never decrease', async () => {
    const metrics = createMetrics();
    const totalOf = async (): Promise<string | undefined> =>
      /^nmi_watch_relists_total\{resource="pods"\} (\d+)$/m.exec(await metrics.render())?.[1];
    const labels = { resource: 'pods' };
    for (const [total, exported] of [
      [3, '3'],
      [5, '5'],
      [2, '5'],
      [4, '7'],
    ] as const) {
      metrics.export('nmi_watch_relists_total', total, labels);
      assert.equal(await totalOf(), exported);
    }
    metrics.export('nmi_watch_relists_total', 1, { resource: 'bindings' });
    assert.equal(await totalOf(), '7', 'of its own labels');
    metrics.export('nmi_connections', 3);
    metrics.export('nmi_connections', 2);
    assert.match(await metrics.render(), /^nmi_connections 2$/m);
  });

  it('leave out the names of the replaced system when they are disabled', async () => {
    const metrics = createMetrics({ oldNames: false });
    metrics.inc('aadpodidentity_imds_operations_errors_count', { operation_type: 'a' });
    metrics.observe('aadpodidentity_imds_operations_duration_seconds', 1, { operation_type: 'a' });
    assert.doesNotMatch(await metrics.render(), /aadpodidentity/);
    assert.match(await createMetrics().render(), /^# TYPE aadpodidentity_imds_operations_err/m);
  });

  it('refuse a name that is not in their table', () => {
    const metrics = createMetrics();
    assert.throws(() => metrics.export('nmi_unknown', 1), /has no gauge or counter nmi_unknown/);
    assert.throws(() => metrics.export('nmi_upstream_duration_seconds', 1), TypeError);
  });

  it('count in buckets whose bounds are above 0 and ascend, as Prometheus requires', () => {
    for (const [name, row] of Object.entries<MetricRow>({ ...oldMetrics, ...newMetrics })) {
      const { buckets = [] } = row;
      const ascending = [...new Set(buckets)].toSorted((a, b) => a - b);
      assert.deepEqual(buckets, ascending, name);
      assert.ok(
        buckets.every((bound) => bound > 0),
        name,
      );
    }
  });
});

function openRequests(byIdentity = false) {
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
    const { requests, series } = openRequests(true);
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
    const [parsed, fast] = [openRequests(true), openRequests(true)];
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
    const { requests, series } = openRequests();
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
    const { requests, series } = openRequests();
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
    const { requests, series } = openRequests();
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
    requests.render(createRecord({ route: hostTokenRoute }));
    assert.match(
      String(await series('aadpodidentity_nmi_operations_duration_seconds_count')),
      /operation_type="\/host\/token"/,
    );
  });
});

describe('the counter of throttled requests', () => {
  it('is by limit and by the namespace of the pod, of 200 at most', async () => {
    const { requests, series } = openRequests();
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

const counted = (namespace: string, name: string) => ({ namespace, name });

describe('the counts of token requests', () => {
  it('are bounded: those beyond the share of a namespace or of all are "other"', async () => {
    const metrics = createMetrics();
    const counts = createRequestCounts(metrics, true);
    const series = async (metric: string) =>
      (await metrics.render()).split('\n').filter((line) => line.startsWith(`${metric}{`));
    for (let index = 0; index < 300; index++) {
      counts.add({ namespace: 'hostile' }, counted('hostile', `i-${index}`), 'ok');
    }
    const ofHostile = await series('nmi_identity_token_requests_total');
    assert.equal(ofHostile.length, 51);
    assert.ok(
      ofHostile.includes(
        'nmi_identity_token_requests_total{namespace="hostile",identity="other",reason="ok"} 250',
      ),
    );
    counts.add({ namespace: 'other-team' }, counted('other-team', 'reader'), 'ok');
    const withOther = await series('nmi_identity_token_requests_total');
    assert.equal(withOther.length, 52, 'has its own share');
    for (let index = 0; index < 1_000; index++) {
      counts.add({ namespace: `ns-${index}` }, counted(`ns-${index}`, `i-${index % 60}`), 'ok');
    }
    for (let index = 0; index < 600; index++) {
      const namespace = `ns-${index % 100}`;
      counts.add({ namespace }, counted(namespace, `more-${index}`), 'ok');
    }
    assert.equal((await series('nmi_token_requests_total')).length, 201);
    // 500 of their own, and one "other" for each namespace at most.
    assert.ok((await series('nmi_identity_token_requests_total')).length <= 701);
  });
});

describe('the metrics of the process', () => {
  it('are those of every client library, read at each scrape', async () => {
    const metrics = createMetrics();
    exportProcess(metrics);
    const valueOf = async (name: string): Promise<number> =>
      Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await metrics.render())?.[1]);
    const firstCpu = await valueOf('process_cpu_seconds_total');
    assert.ok(firstCpu > 0 && firstCpu < 60, `${firstCpu} s`);
    const rss = await valueOf('process_resident_memory_bytes');
    assert.ok(rss > 20e6 && rss < 2e9, `${rss} bytes`);
    const startedAgoS = Date.now() / 1000 - (await valueOf('process_start_time_seconds'));
    assert.ok(startedAgoS > 0 && startedAgoS < 60, `${startedAgoS} s`);
    // Something else in this process may open or close one meanwhile.
    await eventually(async () => {
      const before = await valueOf('process_open_fds');
      const files = await Promise.all(Array.from({ length: 9 }, () => open('/dev/null')));
      const after = await valueOf('process_open_fds');
      await Promise.all(files.map((file) => file.close()));
      assert.equal(after - before, 9);
      assert.ok(before > 2 && after <= (await valueOf('process_max_fds')), `${after}`);
    });
    const endMs = performance.now() + 50;
    while (performance.now() < endMs);
    assert.ok((await valueOf('process_cpu_seconds_total')) > firstCpu);
  });
});

function openDelay() {
  const hand = new HandClock();
  const late = { ms: 0 };
  const slow: Clock = {
    wallMs: () => hand.wallMs(),
    monotonicMs: () => hand.monotonicMs(),
    schedule: (delayMs, work) => hand.schedule(delayMs + late.ms, work),
  };
  const metrics = createMetrics();
  const clock = exportEventLoopDelay(metrics, slow);
  const scrape = async (): Promise<readonly number[]> => {
    const page = await metrics.render();
    return ['p50', 'p99', 'max'].map((stat) => {
      const line = new RegExp(`^nmi_event_loop_delay_seconds\\{stat="${stat}"\\} (.*)$`, 'm');
      return Number(line.exec(page)?.[1]);
    });
  };
  return { hand, late, clock, scrape };
}

describe('the delay of the event loop', () => {
  it('is the lateness of timers since the last scrape', async () => {
    const { hand, late, clock, scrape } = openDelay();
    let runs = 0;
    for (let count = 0; count < 98; count++) clock.schedule(1_000, () => runs++);
    late.ms = 500;
    for (let count = 0; count < 2; count++) clock.schedule(1_000, () => runs++);
    hand.advance(1_499);
    assert.equal(runs, 98);
    hand.advance(1);
    assert.equal(runs, 100);
    const [p50 = NaN, p99 = NaN, max = NaN] = await scrape();
    assert.ok(p50 < 0.001, `${p50}`);
    assert.ok(Math.abs(p99 - 0.5) < 0.01, `${p99}`);
    assert.ok(Math.abs(max - 0.5) < 0.01, `${max}`);
    assert.deepEqual(await scrape(), [0, 0, 0], 'nothing was late since');
  });

  it('counts a timer that is early, or late beyond all measure, within its range', async () => {
    const { hand, late, clock, scrape } = openDelay();
    late.ms = -5;
    clock.schedule(10, () => undefined);
    hand.advance(10);
    assert.ok(Number((await scrape())[2]) < 0.001);
    late.ms = 100 * 3_600_000;
    clock.schedule(10, () => undefined);
    hand.advance(101 * 3_600_000);
    assert.ok(Math.abs(Number((await scrape())[2]) - 3_600) < 40);
  });
});

const shape = {
  name: 'nmi_test_seconds',
  help: 'A path\\with a break\nand "quotes".',
  labelNames: ['route', 'cache'],
  buckets: [0.001, 0.5, 1, 10],
};

const word = fc.constantFrom('token', 'a"b', 'c\\d', 'e\nf', '', 'ü');
const labels = fc.oneof(
  fc.record({ route: word, cache: word }),
  fc.record({ route: word }),
  fc.constant({}),
);
// At the bounds, near them, and beyond them.
const anyValue = fc.oneof(
  fc.constantFrom(0, 0.001, 0.5, 1, 10, 11),
  fc.double({ noNaN: true, min: 0, max: 20 }),
);

describe('a histogram', () => {
  it('is rendered as prom-client would render it, for any observations', async () => {
    const observations = fc.array(fc.record({ labels, value: anyValue }), { maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(observations, async (all) => {
        const registry = new Registry();
        const reference = new Histogram({ ...shape, registers: [registry] });
        const own = new BoundHistogram(shape);
        for (const { labels: of, value: seen } of all) {
          reference.observe(of, seen);
          own.bind(of)(seen);
        }
        assert.equal(`${own.render()}\n`, await registry.metrics());
      }),
    );
  });

  it('has a series once it is bound, and ignores values that are not numbers', () => {
    const own = new BoundHistogram(shape);
    const observe = own.bind({ route: 'token' });
    assert.match(own.render(), /^nmi_test_seconds_count\{route="token"\} 0$/m);
    observe(Number.NaN);
    observe(Infinity);
    assert.match(own.render(), /^nmi_test_seconds_count\{route="token"\} 0$/m);
    assert.match(own.render(), /^nmi_test_seconds_sum\{route="token"\} 0$/m);
    observe(-1);
    assert.match(own.render(), /^nmi_test_seconds_bucket\{le="0.001",route="token"\} 1$/m);
  });
});

describe('a label with values from outside', () => {
  it('keeps a number of first values, and has one word for all others', () => {
    const label = new BoundedLabel(2);
    assert.deepEqual(
      ['a', 'b', 'c', 'a', 'b'].map((value) => label.of(value)),
      ['a', 'b', 'other', 'a', 'b'],
    );
    const long = new BoundedLabel(2);
    const values = [256, 255].map((length) => long.of('x'.repeat(length)));
    assert.deepEqual(values, ['other', 'x'.repeat(255)]);
  });
});

describe('the label of a resource', () => {
  it('is one that SDKs request, with or without a trailing slash, or "other"', () => {
    assert.equal(resourceLabel('https://vault.azure.net'), 'https://vault.azure.net');
    assert.equal(resourceLabel('https://vault.azure.net/'), 'https://vault.azure.net');
    assert.equal(resourceLabel(''), '');
    for (const other of ['https://vault.azure.net//', 'https://x/https://vault.azure.net', 'x']) {
      assert.equal(resourceLabel(other), 'other');
    }
  });
});

describe('series that exist before the first event', () => {
  it('are zero, for every outcome in an alert, reason of a request and kind of credential', async () => {
    const metrics = createMetrics();
    presetSeries(metrics);
    const page = await metrics.render();
    const credentials = ['secret', 'certificate', 'federated_pod', 'federated_node'];
    for (const series of [
      'nmi_token_cache_requests_total{outcome="hit"}',
      'nmi_token_cache_requests_total{outcome="overloaded"}',
      'nmi_token_refreshes_total{outcome="failed"}',
      'nmi_upstream_requests_total{source="imds",outcome="upstream_down"}',
      'aadpodidentity_imds_operations_errors_count{operation_type="adal_token_msi"}',
      ...credentials.map((source) => `{source="${source}",outcome="credential_refused"}`),
    ]) {
      assert.ok(page.includes(`${series} 0\n`), series);
    }
    for (const reason of ['ok', ...Object.keys(refusals)]) {
      const series = `^nmi_requests_total\\{route="[a-z-]+",reason="${reason}"\\} 0$`;
      assert.match(page, new RegExp(series, 'm'));
    }
    assert.doesNotMatch(page, /source="imds",outcome="credential_refused"/);
  });
});

describe('the samples and conditions of the parts', () => {
  it('are read at every scrape, and disappear with those in which the parts no longer have them', async () => {
    const metrics = createMetrics();
    const state = { modes: ['ebpf', 'iptables'], value: 1, problem: '' };
    const samples = () =>
      state.modes.map((mode) => {
        return { metric: 'nmi_redirect_up' as const, labels: { mode }, value: state.value };
      });
    const part = {
      samples,
      get conditions() {
        return state.modes.map((name) => ({ name, problem: () => state.problem || undefined }));
      },
    };
    exportParts(metrics, [{}, part]);
    assert.match(await metrics.render(), /mode="iptables"\} 1[^]*condition="iptables"\} 1/);
    Object.assign(state, { modes: ['ebpf'], value: 2, problem: 'why' });
    const page = await metrics.render();
    assert.match(page, /mode="ebpf"\} 2[^]*condition="ebpf"\} 0/);
    assert.doesNotMatch(page, /iptables/);
  });
});

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

function openReport() {
  const lines: string[] = [];
  const clock = new HandClock();
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const metrics = createMetrics();
  const take = () => lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { clock, take, metrics, fetches: createFetchReport(metrics, log, clock) };
}

describe('the log of failed fetches', () => {
  it('has each of the first ones, and the number of the rest', () => {
    const { fetches, take, clock } = openReport();
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
    const { fetches, take } = openReport();
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
    const { fetches, take, metrics } = openReport();
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
