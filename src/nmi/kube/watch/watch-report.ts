/**
 * Describes failures of the watches as text: on `/readyz`, in `nmi explain`, in a 503. A failure
 * is described by its code, the reason from the API server or the network, and its duration.
 */
import type { FailureStats, ReflectorStats } from './reflector.ts';
import type { WatchedResource, WatchGroup } from './watches.ts';

/** Longest received text that is shown. */
const maxMessage = 200;

type WatchStats = Readonly<Record<string, Pick<ReflectorStats, 'failure'>>>;

export interface WatchProblem {
  readonly resource: string;
  /** E.g. `FORBIDDEN: pods is forbidden`, one line. */
  readonly reason: string;
  /** Milliseconds since the first failure of this row. */
  readonly forMs: number;
}

/** The watches that fail now, except for kinds that the cluster does not have. */
export function watchProblems(stats: WatchStats): readonly WatchProblem[] {
  return Object.entries(stats).flatMap(([resource, { failure }]): readonly WatchProblem[] =>
    failure === undefined || failure.isAbsence
      ? []
      : [{ resource, reason: reasonOf(failure), forMs: failure.forMs }],
  );
}

/** Resources without a first list, each with its failure, if any. No times. */
export function describeUnsynced(
  watches: Pick<WatchGroup, 'stats' | 'unsynced'>,
): string | undefined {
  const unsynced = watches.unsynced();
  if (unsynced.length === 0) return undefined;
  const stats = watches.stats();
  const waits = unsynced.map((name) => {
    const failure = stats[name]?.failure;
    return failure === undefined ? name : `${name} (${reasonOf(failure)})`;
  });
  return `waiting for ${waits.join(', ')}`;
}

/** The current failure in a few words: of the named watch, else of the first that fails. */
export function whyBehind(stats: WatchStats, resource?: WatchedResource): string | undefined {
  const problem = watchProblems(stats).find(
    (each) => resource === undefined || each.resource === resource,
  );
  if (problem === undefined) return undefined;
  const { reason, forMs } = problem;
  return `the watch of ${problem.resource} has failed for ${seconds(forMs)} (${reason})`;
}

function reasonOf({ code, message }: FailureStats): string {
  const line = message.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, maxMessage);
  return line === '' ? code : `${code}: ${line}`;
}

function seconds(ms: number): string {
  return `${Math.floor(ms / 1000)} s`;
}
