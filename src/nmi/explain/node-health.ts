/** The state of redirect and watches in a readable form, determined on demand. */
import type { NodeHealth } from '../explain/explanation.ts';
import type { ClusterState } from '../state/cluster-state.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { watchProblems } from '../kube/watch/watch-report.ts';

export interface HealthSources {
  readonly nodeName: string;
  readonly kernel: Pick<Kernel, 'mode' | 'status' | 'problem'>;
  readonly clusterState: Pick<ClusterState, 'watches'>;
}

export function readHealth({ nodeName, kernel, clusterState }: HealthSources): NodeHealth {
  const { watches } = clusterState;
  const stats = watches.stats();
  const ages = Object.values(stats).map(({ lastContactAgeMs = Infinity }) => lastContactAgeMs);
  const silentForMs = Math.round(Math.max(...ages));
  return {
    name: nodeName,
    redirect: { mode: kernel.mode, detail: kernel.status().detail, problem: kernel.problem() },
    watches: {
      unsynced: watches.unsynced(),
      silentForMs: silentForMs === Infinity ? undefined : silentForMs,
      failing: watchProblems(stats),
    },
  };
}
