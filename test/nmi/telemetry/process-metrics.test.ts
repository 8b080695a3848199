import assert from 'node:assert/strict';
import { fstatSync, readdirSync } from 'node:fs';
import { describe, it } from 'node:test';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { exportProcess } from '../../../src/nmi/telemetry/process-metrics.ts';

/** Each number is tried: a list of the open ones contains the one that the listing itself opens. */
function countOpenFds(): number {
  const last = Math.max(...readdirSync('/proc/self/fd').map(Number));
  let count = 0;
  for (let fd = 0; fd <= last; fd++) {
    try {
      fstatSync(fd);
      count++;
    } catch {
      // It is not open.
    }
  }
  return count;
}

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
    const fds = await eventually(async () => {
      const scraped = valueOf('process_open_fds');
      const open = countOpenFds();
      assert.equal(await scraped, open);
      return open;
    });
    assert.ok(fds > 2 && fds <= (await valueOf('process_max_fds')), `${fds}`);
    const endMs = performance.now() + 50;
    while (performance.now() < endMs);
    assert.ok((await valueOf('process_cpu_seconds_total')) > firstCpu);
  });
});
