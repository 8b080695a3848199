/** A load that lasts until it is stopped, for steps whose duration depends on the machine. */
import type { LabPod } from './pod.ts';
import { beside } from './load-verdict.ts';
import type { PodLoad, PodLoadReport } from './pod-protocol.ts';

const pieceMs = 500;
/** At least two minutes. A failed scenario does not stop its load; the end of its pod does. */
const maxPieces = 240;

export interface SteadyLoad {
  /** @returns reports for intervals of 500ms or `durationMs`; the last one ends after this call. */
  stop(): Promise<readonly PodLoadReport[]>;
}

export function startSteadyLoad(pod: LabPod, load: Partial<PodLoad> = {}): SteadyLoad {
  const stopped = new AbortController();
  const piece = { durationMs: pieceMs, ...load };
  const run = async (): Promise<readonly PodLoadReport[]> => {
    const reports: PodLoadReport[] = [];
    while (!stopped.signal.aborted && reports.length < maxPieces) {
      reports.push(await pod.load(piece));
    }
    return reports;
  };
  const running = beside(run());
  return {
    stop: () => {
      stopped.abort();
      return running;
    },
  };
}
