/**
 * The caller's pod, or why there is none. A request may wait for a pod that the watch has not
 * delivered yet; a state that no event can change is refused at once.
 */
import type { Pod } from '../../cache/index/objects.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import type { DescribedReason } from '../base/answers.ts';
import type { Caller, CallerConnection, IdentifiedBy } from './caller.ts';
import type { PodPlaces } from './place.ts';

type Unattested = Extract<Caller, { kind: 'unattested' }>;

/** The facts in the text of a refusal, for a caller that is no known pod. */
export type CallerFacts =
  | { readonly about: 'unattested'; readonly refusedBy?: 'shared-link' | 'option' }
  | { readonly about: 'outlived' | 'unknown-name' }
  | { readonly about: 'unavailable'; readonly why: string }
  | {
      readonly about: 'shared-address' | 'misplaced-address' | 'other-cgroup';
      readonly ip: string;
    }
  /** `why`: the problem of the watches, if any. */
  | { readonly about: 'agent-starting'; readonly why?: string }
  | {
      readonly about: 'stale' | 'unknown-address';
      readonly ip: string;
      readonly why?: string;
    };

export interface RefusedWith<F, P> {
  readonly kind: 'refused';
  readonly reason: DescribedReason;
  readonly facts: F;
  /** A watch event may change it, so the request waits for a moment. */
  readonly isPending: boolean;
  readonly pod: P;
}

export type RefusedCaller = RefusedWith<CallerFacts, undefined>;
export type Identified = { readonly kind: 'pod'; readonly pod: Pod } | RefusedCaller;

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
