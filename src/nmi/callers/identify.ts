/**
 * The caller's pod, or why there is none. A request may wait for a pod that the watch has not
 * delivered yet; a state that no event can change is refused at once.
 */
import type { PodIndex } from '../../cache/index/pod-index.ts';
import type { CallerFacts, Identified, RefusedCaller } from './identified.ts';
import type { Caller, CallerConnection, IdentifiedBy } from './caller.ts';
import type { PodPlaces } from './place.ts';

type Unattested = Extract<Caller, { kind: 'unattested' }>;

/** What the watches have delivered. */
export interface CallerState {
  readonly pods: PodIndex;
  /** All watches have listed at least once. */
  isSynced(): boolean;
  /** It is recent enough for a caller that was identified like this. */
  trusts(by: IdentifiedBy): boolean;
  /** The current problem of any watch, or of the pod watch, in a few words. */
  whyBehind?(resource?: 'pods'): string | undefined;
  /** Places of pods that are identified by address; absent if no pod is. */
  readonly places?: PodPlaces | undefined;
}

export function identify(connection: CallerConnection, clusterState: CallerState): Identified {
  const { ip } = connection;
  const caller = connection.resolve(clusterState.pods, clusterState.places);
  switch (caller.kind) {
    case 'unattested':
      return refusedUnattested(caller);
    case 'unavailable':
      return refused('agent_not_synced', { about: 'unavailable', why: caller.why }, false);
    case 'outlived':
      return refused('connection_outlived_pod', { about: 'outlived' }, false);
    case 'misplaced':
      return refused('pod_unknown', { about: 'misplaced-address', ip }, true);
    case 'pod': {
      if (!clusterState.isSynced()) break;
      const by = connection.identifiedBy ?? 'address';
      if (!clusterState.trusts(by)) {
        return refused('agent_not_synced', { about: 'stale', ip, ...whyOf(clusterState) }, true);
      }
      return { kind: 'pod', pod: caller.pod };
    }
    case 'ambiguous':
      return refused('pod_ambiguous', { about: 'shared-address', ip }, true);
    case 'other-cgroup':
      if (!clusterState.isSynced()) break;
      return refused('pod_unknown', { about: 'other-cgroup', ip }, true);
    case 'unknown':
      break;
  }
  return clusterState.isSynced()
    ? refused('pod_unknown', { about: 'unknown-address', ip, ...whyOf(clusterState, 'pods') }, true)
    : refused('agent_not_synced', { about: 'agent-starting', ...whyOf(clusterState) }, true);
}

/** The look-up for this connection is not repeated; the next connection is looked up anew. */
function refusedUnattested({ retryWhy, refusedBy }: Unattested): RefusedCaller {
  if (retryWhy !== undefined) {
    return refused('agent_not_synced', { about: 'unavailable', why: retryWhy }, false);
  }
  const facts = { about: 'unattested', ...(refusedBy === undefined ? {} : { refusedBy }) } as const;
  return refused('caller_unattested', facts, false);
}

function whyOf(clusterState: CallerState, resource?: 'pods'): { readonly why?: string } {
  const why = clusterState.whyBehind?.(resource);
  return why === undefined ? {} : { why };
}

function refused(
  reason: RefusedCaller['reason'],
  facts: CallerFacts,
  isPending: boolean,
): RefusedCaller {
  return { kind: 'refused', reason, facts, isPending, pod: undefined };
}
