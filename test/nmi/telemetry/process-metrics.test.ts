import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { exportProcess } from '../../../src/nmi/telemetry/process-metrics.ts';

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
    const fds = await valueOf('process_open_fds');
    assert.ok(fds > 2 && fds <= (await valueOf('process_max_fds')), `${fds}`);
    const endMs = performance.now() + 50;
    while (performance.now() < endMs);
    assert.ok((await valueOf('process_cpu_seconds_total')) > firstCpu);
  });
});
