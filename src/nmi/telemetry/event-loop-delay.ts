/**
 * Lateness of the timers that are armed anyway: Node's monitor wakes an idle process 100 times/s.
 */
import { createHistogram } from 'node:perf_hooks';
import type { Clock } from '../../base/time/clock.ts';
import type { Metrics } from './metrics.ts';

/** Microseconds. Two digits keep the histogram small; its default takes 0.5 MB. */
const range = { lowest: 1, highest: 3_600_000_000, figures: 2 } as const;

/** @returns a clock that works like the given one, with timers that are measured. */
export function exportEventLoopDelay(metrics: Metrics, clock: Clock): Clock {
  const lateness = createHistogram(range);
  metrics.onScrape(() => {
    const stats = { p50: lateness.percentile(50), p99: lateness.percentile(99), max: lateness.max };
    for (const [stat, microseconds] of Object.entries(stats)) {
      metrics.set('nmi_event_loop_delay_seconds', microseconds / 1e6, { stat });
    }
    lateness.reset();
  });
  return {
    wallMs: () => clock.wallMs(),
    monotonicMs: () => clock.monotonicMs(),
    schedule: (delayMs, work) => {
      const dueMs = clock.monotonicMs() + Math.max(0, delayMs);
      return clock.schedule(delayMs, () => {
        const microseconds = Math.round((clock.monotonicMs() - dueMs) * 1000);
        lateness.record(Math.min(range.highest, Math.max(range.lowest, microseconds)));
        work();
      });
    },
  };
}
