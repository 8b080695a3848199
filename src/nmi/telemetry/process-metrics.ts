/** The process metrics of every Prometheus client library, under the names that dashboards use. */
import { readdirSync, readFileSync } from 'node:fs';
import type { Metrics } from './metrics.ts';

/** Filled at every scrape; a number that cannot be read is left out. */
export function exportProcess(metrics: Metrics): void {
  const startedAtS = Date.now() / 1000 - process.uptime();
  const maxFds = unlessFailing(readMaxFds);
  metrics.onScrape(() => {
    const { user, system } = process.cpuUsage();
    metrics.export('process_cpu_seconds_total', (user + system) / 1e6);
    metrics.set('process_resident_memory_bytes', process.memoryUsage.rss());
    metrics.set('process_start_time_seconds', startedAtS);
    // Reading the directory opens one more.
    const fds = unlessFailing(() => readdirSync('/proc/self/fd').length - 1);
    if (fds !== undefined) metrics.set('process_open_fds', fds);
    if (maxFds !== undefined) metrics.set('process_max_fds', maxFds);
  });
}

function readMaxFds(): number | undefined {
  const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return limit === undefined ? undefined : Number(limit);
}

function unlessFailing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
