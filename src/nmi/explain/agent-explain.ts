/** `nmi explain` of a running agent: a socket that returns the agent's current state. */
import type { Clock } from '../../base/time/clock.ts';
import { buildInfo } from '../base/build-info.ts';
import type { Logger } from '../../base/logger.ts';
import type { Part } from '../base/part.ts';
import { readiness } from '../base/readiness.ts';
import type { Config } from '../config/config.ts';
import { shownFlags } from '../config/shown-flags.ts';
import type { IdentifiedBy } from '../callers/caller.ts';
import type { GrantPolicy } from '../grants/choose-identity.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { Throttling } from '../callers/throttled-pods.ts';
import type { ClusterState } from '../state/cluster-state.ts';
import type { TokenBroker } from '../tokens/broker.ts';
import { explain } from './explain.ts';
import type { AgentFacts } from './explanation.ts';
import { readHealth } from './node-health.ts';
import { openExplainServer } from './socket.ts';

export interface ExplainOptions {
  readonly config: Config;
  readonly kernel: Kernel;
  readonly state: ClusterState;
  readonly policy: GrantPolicy;
  /** Whether the node's own pods reach the metadata service itself. */
  readonly letsNodePodsThrough: boolean;
  readonly broker: TokenBroker;
  /** By pod UID. */
  readonly clientsOf: (podUid: string) => readonly string[];
  readonly identifiedByOf: (podUid: string) => readonly IdentifiedBy[];
  readonly throttledOf: (podUid: string) => readonly Throttling[];
  /** For `nmi ready`. */
  readonly parts: readonly Part[];
  readonly clock: Clock;
  readonly log: Logger;
}

/** Never rejects. */
export function openExplain(options: ExplainOptions): Promise<AsyncDisposable> {
  const { config, kernel, state: clusterState, parts, clock, log } = options;
  const health = () => readHealth({ nodeName: config.node, kernel, clusterState });
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
