/** What a load may have met, and what not. */
import assert from 'node:assert/strict';
import type { PodLoadReport } from './pod-protocol.ts';

/** What a caller meets where nobody listens, or where a listener goes away under it. */
export const absentAgent: readonly string[] = ['ECONNREFUSED', 'ECONNRESET'];

/** Work that goes on beside what a scenario does; if the scenario fails first, nobody awaits it. */
export function beside<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

export interface Verdict {
  readonly granted: number;
  readonly refused: number;
}

/**
 * Every token was of that identity and everything else is one of the outcomes allowed.
 * @param others statuses and error codes besides 200.
 * @throws AssertionError
 */
export function checkLoad(
  pod: string,
  reports: readonly PodLoadReport[],
  identity: string,
  others: readonly string[] = [],
): Verdict {
  let granted = 0;
  let refused = 0;
  for (const row of reports.flatMap(({ counts }) => counts)) {
    if (row.outcome === '200') {
      const whose = row.identity ?? 'nobody';
      assert.equal(whose, identity, `pod ${pod} got ${row.count} tokens of ${whose}`);
      granted += row.count;
      continue;
    }
    assert.equal(row.identity, undefined, `a token came with ${row.outcome}`);
    assert.ok(others.includes(row.outcome), `pod ${pod} met ${row.outcome} ${row.count} times`);
    refused += row.count;
  }
  return { granted, refused };
}

/** `1234 requests/s, p99 3.2 ms`. */
export function describePace(reports: readonly PodLoadReport[]): string {
  let perSec = 0;
  let p99Ms = 0;
  for (const report of reports) {
    perSec += report.requests / (report.elapsedMs / 1000);
    p99Ms = Math.max(p99Ms, report.latencyMs.p99);
  }
  return `${Math.round(perSec)} requests/s, p99 ${p99Ms.toFixed(1)} ms`;
}

/** The longest time without a success within any of them, in whole milliseconds. */
export function longestGapMs(reports: readonly PodLoadReport[]): number {
  return Math.round(Math.max(0, ...reports.map(({ maxGapMs }) => maxGapMs)));
}
