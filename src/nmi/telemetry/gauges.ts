/** Gauges that describe a state are read from it at every scrape, not kept beside it. */
import type { Listener } from '../server/listener.ts';
import type { NodeKnowledge } from '../state/cluster-state.ts';
import type { RedirectKeeper } from '../kernel/reconciler.ts';
import type { TokenBroker } from '../tokens/broker.ts';
import { createCountUp } from './count-up.ts';
import type { Metrics } from './metrics.ts';
import type { Condition } from '../base/readiness.ts';

export interface Described {
  readonly knowledge: NodeKnowledge;
  readonly broker: TokenBroker;
  readonly listeners: readonly Listener[];
  readonly keeper: RedirectKeeper;
  readonly redirectMode: string;
  readonly conditions: readonly Condition[];
}

export function describeAtScrape(metrics: Metrics, described: Described): void {
  const { knowledge, broker, listeners, keeper, redirectMode, conditions } = described;
  const countUp = createCountUp(metrics);

  metrics.onScrape(() => {
    const connections = listeners.reduce((sum, listener) => sum + listener.connections, 0);
    metrics.set('nmi_connections', connections);
    metrics.set('nmi_token_cache_entries', broker.cachedTokens);
    metrics.set('nmi_held_requests', knowledge.holds.size);
    describeIndexes();
    describeWatches();
    const isUp = keeper.problem() === undefined;
    metrics.set('nmi_redirect_up', isUp ? 1 : 0, { mode: redirectMode });
    for (const { name, problem } of conditions) {
      metrics.set('nmi_ready', problem() === undefined ? 1 : 0, { condition: name });
    }
  });

  function describeIndexes(): void {
    const pods = knowledge.pods.stats;
    const grants = knowledge.grants.stats;
    metrics.set('nmi_index_pods', pods.pods, { kind: 'all' });
    metrics.set('nmi_index_pods', pods.hostNetwork, { kind: 'host_network' });
    metrics.set('nmi_index_pods', grants.boundPods, { kind: 'bound' });
    metrics.set('nmi_index_ambiguous_ips', pods.ambiguousIps);
    metrics.set('nmi_index_objects', grants.identities, { kind: 'identities' });
    metrics.set('nmi_index_objects', grants.bindings, { kind: 'bindings' });
    metrics.set('nmi_index_objects', grants.exceptions, { kind: 'exceptions' });
  }

  function describeWatches(): void {
    for (const [resource, watch] of Object.entries(knowledge.watches.stats())) {
      metrics.set('nmi_watch_synced', watch.syncedOnce ? 1 : 0, { resource });
      metrics.set('nmi_watch_age_seconds', watch.lastContactAgeMs / 1000, { resource });
      metrics.set('nmi_watch_staleness_seconds', watch.stalenessMs / 1000, { resource });
      countUp('nmi_watch_relists_total', { resource }, watch.relists);
      for (const [kind, errors] of Object.entries(watch.errorsByKind)) {
        countUp('nmi_watch_errors_total', { resource, kind }, errors);
      }
    }
  }
}
