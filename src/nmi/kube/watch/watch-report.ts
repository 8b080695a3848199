/**
 * Describes failures of the watches as text: on `/readyz`, in `nmi explain`, in a 503. A failure
 * is described by its code, the reason from the API server or the network, and its duration.
 */
import { durationText } from '../../../base/time/duration.ts';
import type { Condition } from '../../base/readiness.ts';
import type { FailureStats, ReflectorStats } from './reflector.ts';
import type { WatchAge, WatchedResource, WatchGroup } from './watches.ts';

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

/**
 * Readiness conditions of the watches.
 * @param stalenessLimitMs longest time without proof that a watch is current. Beyond it the stored
 *   objects are still used, but new pods are probably missing.
 */
export function watchConditions(
  watches: Pick<WatchGroup, 'unsynced' | 'ages' | 'stats'>,
  stalenessLimitMs: number,
): readonly Condition[] {
  return [
    { name: 'watches', problem: () => describeUnsynced(watches) },
    {
      name: 'watches_current',
      problem: () => {
        const stale = olderThan(stalenessLimitMs, watches.ages());
        return stale.length === 0 ? undefined : `not proven current: ${describeAges(stale)}`;
      },
    },
  ];
}

export function olderThan<A extends WatchAge<string>>(
  limitMs: number,
  ages: readonly A[],
): readonly A[] {
  return ages.filter(({ stalenessMs }) => stalenessMs > limitMs);
}

/** E.g. `pods for 1 d 2 h, bindings for 1 d 2 h`. */
export function describeAges(ages: readonly WatchAge<string>[]): string {
  return ages
    .map(({ resource, stalenessMs }) => `${resource} for ${durationText(stalenessMs)}`)
    .join(', ');
}

/** Resources without a first list, each with its failure, if any. No times. */
function describeUnsynced(watches: Pick<WatchGroup, 'stats' | 'unsynced'>): string | undefined {
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
  return `the watch of ${problem.resource} has failed for ${durationText(forMs)} (${reason})`;
}

function reasonOf({ code, message }: FailureStats): string {
  const line = message.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, maxMessage);
  return line === '' ? code : `${code}: ${line}`;
}
