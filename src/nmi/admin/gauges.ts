/** Gauges that describe a state are read from it at every scrape, not kept beside it. */
import type { Listener } from '../listener.ts';
import type { NodeKnowledge } from '../node-knowledge.ts';
import type { KernelCounts } from '../choose-redirect.ts';
import type { RedirectKeeper } from '../redirect-keeper.ts';
import { selfTestResults, type SelfTest } from '../self-test.ts';
import type { TokenBroker } from '../token-broker.ts';
import type { Metrics } from './metrics.ts';
import type { Condition } from './readiness.ts';

export interface Described {
  readonly knowledge: NodeKnowledge;
  readonly broker: TokenBroker;
  readonly listeners: readonly Listener[];
  readonly keeper: RedirectKeeper;
  readonly selfTest: Pick<SelfTest, 'result'>;
  readonly redirectMode: string;
  readonly kernelCounts: KernelCounts | undefined;
  readonly conditions: readonly Condition[];
}

type CountedElsewhere =
  | 'nmi_watch_relists_total'
  | 'nmi_watch_errors_total'
  | 'nmi_ebpf_connects_total'
  | 'nmi_redirect_caught_total';

export function describeAtScrape(metrics: Metrics, described: Described): void {
  const { knowledge, broker, listeners, keeper, selfTest, redirectMode, conditions } = described;
  const counted = new Map<string, number>();

  metrics.onScrape(() => {
    const connections = listeners.reduce((sum, listener) => sum + listener.connections, 0);
    metrics.set('nmi_connections', connections);
    metrics.set('nmi_token_cache_entries', broker.cachedTokens);
    metrics.set('nmi_held_requests', knowledge.holds.size);
    describeIndexes();
    describeWatches();
    describeKernel();
    const isUp = keeper.problem() === undefined;
    metrics.set('nmi_redirect_up', isUp ? 1 : 0, { mode: redirectMode });
    for (const result of selfTestResults) {
      metrics.set('nmi_redirect_self_test', result === selfTest.result ? 1 : 0, { result });
    }
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

  let caught = 0;

  function describeKernel(): void {
    const { kernelCounts } = described;
    if (kernelCounts === undefined) return;
    const counts = countsOf(kernelCounts);
    if (counts === undefined) return;
    for (const [outcome, total] of [
      ['redirected', counts.redirected],
      ['exempt', counts.exempt],
      ['limit', counts.refusedLimit],
      ['full', counts.refusedFull],
    ] as const) {
      countUp('nmi_ebpf_connects_total', { outcome }, Number(total));
    }
    countUp('nmi_redirect_caught_total', {}, caught);
    // It takes a tool of the node's: the next scrape has it.
    void kernelCounts.countCaught().then(
      (total) => (caught = total ?? caught),
      () => undefined,
    );
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

  /** A counter that is kept elsewhere. */
  function countUp(
    name: CountedElsewhere,
    labels: Readonly<Record<string, string>>,
    total: number,
  ): void {
    const key = [name, ...Object.values(labels)].join(' ');
    // What was made anew in the kernel begins at nought again.
    metrics.inc(name, labels, Math.max(0, total - (counted.get(key) ?? 0)));
    counted.set(key, total);
  }
}

/** Undefined where there is nothing, or nothing to be read: a scrape is worth more than a counter. */
function countsOf(kernel: KernelCounts): ReturnType<KernelCounts['counters']> {
  try {
    return kernel.counters();
  } catch {
    return undefined;
  }
}
