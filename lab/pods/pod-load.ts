/**
 * A load from one pod: each worker sends its next request after an answer, and a pause if one is
 * given; the pod counts.
 */
import { findTokenIdentity } from '../fakes/token.ts';
import type {
  PodAnswer,
  PodLoad,
  PodLoadCount,
  PodLoadReport,
  PodRequest,
} from './pod-protocol.ts';
import { OwnTime } from './own-time.ts';

/** Pause after a refused connection, so that a closed port does not get 100,000 attempts. */
const failurePauseMs = 2;
/** Further latencies are counted but not stored. */
const maxSamples = 500_000;

let loadNumber = 0;

/** Ends `timeoutMs` after `durationMs` at the latest: it waits for requests in flight. */
export async function runLoad(
  load: PodLoad,
  request: (wanted: PodRequest) => Promise<PodAnswer>,
  closeConnection: (name: string) => void,
): Promise<PodLoadReport> {
  loadNumber += 1;
  const prefix = `load-${String(loadNumber)}`;
  const startMs = performance.now();
  const endMs = startMs + load.durationMs;
  using time = new OwnTime();
  const tally = createTally(time);
  let turn = 0;

  const work = async (worker: number): Promise<void> => {
    const connection = load.newConnectionPerRequest ? 'new' : `${prefix}-${String(worker)}`;
    while (performance.now() < endMs) {
      const at = turn % load.targets.length;
      turn += 1;
      const target = load.targets[at];
      if (target === undefined) return;
      const answer = await request({
        method: 'GET',
        target: target.target,
        headers: [
          ...target.headers,
          ...(load.stamp === undefined ? [] : [load.stamp, String(Date.now())]),
        ],
        connection,
        timeoutMs: load.timeoutMs,
        ...(load.host === undefined ? {} : { host: load.host }),
        ...(load.port === undefined ? {} : { port: load.port }),
      });
      tally.add(at, answer);
      const pauseMs = Math.max(load.pauseMs ?? 0, answer.outcome === 'failed' ? failurePauseMs : 0);
      if (pauseMs > 0) await pause(pauseMs);
    }
    if (!load.newConnectionPerRequest) closeConnection(connection);
  };

  await Promise.all(Array.from({ length: load.concurrency }, (_, worker) => work(worker)));
  return tally.report(startMs);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

interface Tally {
  add(target: number, answer: PodAnswer): void;
  report(startMs: number): PodLoadReport;
}

function createTally(time: OwnTime): Tally {
  const counts = new Map<string, { -readonly [K in keyof PodLoadCount]: PodLoadCount[K] }>();
  const latencies: number[] = [];
  let requests = 0;
  let successes = 0;
  let lastSuccessAtMs: number | undefined;
  let firstSuccessAtMs: number | undefined;
  let maxGapMs = 0;

  const addSuccess = (atMs: number): void => {
    successes += 1;
    firstSuccessAtMs ??= atMs;
    if (lastSuccessAtMs !== undefined) maxGapMs = Math.max(maxGapMs, atMs - lastSuccessAtMs);
    lastSuccessAtMs = atMs;
  };

  return {
    add: (target, answer) => {
      requests += 1;
      const answered = answer.outcome === 'answered';
      const outcome = answered ? String(answer.status) : answer.error;
      const identity = answered ? findTokenIdentity(answer.body) : undefined;
      const key = JSON.stringify([target, outcome, identity]);
      const row = counts.get(key) ?? {
        target,
        outcome,
        count: 0,
        ...(identity === undefined ? {} : { identity }),
      };
      row.count += 1;
      counts.set(key, row);
      if (answered && latencies.length < maxSamples) latencies.push(answer.durationMs);
      if (answered && answer.status === 200) addSuccess(time.nowMs());
    },
    report: (startMs) => {
      const endMs = time.nowMs();
      latencies.sort((a, b) => a - b);
      const edgeGapMs = Math.max(firstSuccessAtMs ?? endMs, endMs - (lastSuccessAtMs ?? 0));
      return {
        counts: [...counts.values()],
        requests,
        successes,
        latencyMs: {
          p50: percentile(latencies, 0.5),
          p90: percentile(latencies, 0.9),
          p99: percentile(latencies, 0.99),
          max: latencies.at(-1) ?? 0,
        },
        maxGapMs: Math.max(maxGapMs, edgeGapMs),
        elapsedMs: performance.now() - startMs,
      };
    },
  };
}

/** Nearest-rank method. */
function percentile(sorted: readonly number[], fraction: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * fraction) - 1)] ?? 0;
}
