/** How redirect and watches are, in a form for people, read when asked. */
import type { NodeHealth } from '../explain/explanation.ts';
import type { NodeKnowledge } from '../state/cluster-state.ts';
import type { RedirectKeeper } from '../kernel/reconciler.ts';

export interface HealthSources {
  readonly nodeName: string;
  readonly redirectMode: string;
  readonly keeper: RedirectKeeper;
  readonly knowledge: Pick<NodeKnowledge, 'watches'>;
}

export function readHealth({
  nodeName,
  redirectMode,
  keeper,
  knowledge,
}: HealthSources): NodeHealth {
  const { watches } = knowledge;
  const ages = Object.values(watches.stats()).map(({ lastContactAgeMs }) => lastContactAgeMs);
  return {
    name: nodeName,
    redirect: { mode: redirectMode, detail: keeper.status.detail, problem: keeper.problem() },
    watches: { unsynced: watches.unsynced(), silentForMs: Math.round(Math.max(...ages)) },
  };
}
