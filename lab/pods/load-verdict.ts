/** The allowed outcomes of a load. */
import assert from 'node:assert/strict';
import type { PodLoadReport } from './pod-protocol.ts';

/** Errors of a client when nothing listens, or when the listener closes during a request. */
export const absentAgent: readonly string[] = ['ECONNREFUSED', 'ECONNRESET'];

/** Work in parallel to a scenario's steps; if the scenario fails first, nothing awaits it. */
export function beside<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

export interface Verdict {
  readonly granted: number;
  readonly refused: number;
}

/**
 * Checks that every token has this identity and that every other outcome is an allowed one.
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

/** The longest time without a success in any report, in whole milliseconds. */
export function longestGapMs(reports: readonly PodLoadReport[]): number {
  return Math.round(Math.max(0, ...reports.map(({ maxGapMs }) => maxGapMs)));
}
