/** `nmi explain` of a running agent: a socket that returns the agent's current state. */
import type { Clock } from '../../base/time/clock.ts';
import { buildInfo } from '../base/build-info.ts';
import type { Logger } from '../../base/logger.ts';
import type { Part } from '../base/part.ts';
import { readiness } from '../base/readiness.ts';
import type { Config } from '../config/config.ts';
import { shownFlags } from '../config/shown-flags.ts';
import type { Tuning } from '../config/tuning.ts';
import type { NodeRedirect } from '../kernel/node-redirect.ts';
import type { ClusterState } from '../state/cluster-state.ts';
import { olderThan, watchProblems } from '../kube/watch/watch-report.ts';
import type { Watches } from '../kube/watch/watches.ts';
import { explain, type ExplainContext } from './explain.ts';
import type { AgentFacts, NodeHealth } from './explanation.ts';
import { openExplainServer } from './socket.ts';

export interface ExplainOptions extends Omit<
  ExplainContext,
  'clusterState' | 'health' | 'agent' | 'whyUnavailable'
> {
  readonly config: Config;
  readonly tuning: Tuning;
  readonly kernel: NodeRedirect;
  readonly state: ClusterState;
  /** For `nmi ready`. */
  readonly parts: readonly Part[];
  readonly clock: Clock;
  readonly log: Logger;
}

export function openExplain(options: ExplainOptions): Promise<AsyncDisposable> {
  const { config, tuning, kernel, state: clusterState, parts, clock, log } = options;
  const health = () => readHealth(config.node, kernel, clusterState, tuning);
  const startedAt = new Date(clock.wallMs()).toISOString();
  const flags = Object.fromEntries(shownFlags(config));
  const agent = (): AgentFacts => ({
    version: buildInfo.version,
    commit: buildInfo.commit,
    nodeVersion: process.version,
    startedAt,
    unmetConditions: Object.keys(readiness(parts).missing),
    flags,
  });
  const whyUnavailable = () => kernel.whyUnavailable();
  const context = { ...options, clusterState, health, agent, whyUnavailable };
  return openExplainServer({
    path: config.explainSocket,
    explain: (query) => explain(query, context, clock.wallMs()),
    ready: () => readiness(parts),
    log: log.child({ component: 'explain' }),
  });
}

interface StateFacts extends Pick<ClusterState, 'podsAskedAs'> {
  readonly watches: Pick<Watches, 'unsynced' | 'ages' | 'stats'>;
}

export function readHealth(
  name: string,
  kernel: Pick<NodeRedirect, 'mode' | 'status' | 'problem'>,
  { watches, podsAskedAs }: StateFacts,
  { watchStalenessLimitMs }: Pick<Tuning, 'watchStalenessLimitMs'>,
): NodeHealth {
  const stats = watches.stats();
  const ages = Object.values(stats).map(({ lastContactAgeMs = Infinity }) => lastContactAgeMs);
  const silentForMs = Math.round(Math.max(...ages));
  return {
    name,
    redirect: { mode: kernel.mode, detail: kernel.status().detail, problem: kernel.problem() },
    watches: {
      unsynced: watches.unsynced(),
      silentForMs: silentForMs === Infinity ? undefined : silentForMs,
      failing: watchProblems(stats),
      podsAskedAs: podsAskedAs(),
      stale: olderThan(watchStalenessLimitMs, watches.ages()),
    },
  };
}
