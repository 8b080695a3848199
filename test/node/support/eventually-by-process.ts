import { eventually } from '../../../lab/test-bed/eventually.ts';

/** A start of kubectl takes 0.1 s of processor time, and a node is waited for most of a minute. */
const pauseMs = 500;

/** As `eventually`, for a check that starts a process each time. */
export function eventuallyByProcess<T>(check: () => Promise<T>, maxMs: number): Promise<T> {
  return eventually(check, maxMs, pauseMs);
}
