/**
 * The node's own pods: those on the host network for which nothing names an identity (cloud-node-manager, CSI
 * drivers, monitoring). They get the node's identity in any case, so the programs let them reach the metadata
 * service itself, and they do not depend on the agent. What it has let through stays so while it is away; a
 * pod that starts meanwhile waits for it.
 */
import { hasEnded, type Pod } from '../../cache/index/objects.ts';
import type { Clock } from '../../base/time/clock.ts';
import { debounce } from '../../base/time/debounce.ts';
import { decideGrant, isOfNode, type GrantQuery, type GrantState } from '../grants/decide-grant.ts';
import type { GrantPolicy } from '../grants/choose-identity.ts';
import type { Config } from '../config/config.ts';
import type { NodeRedirect } from '../kernel/node-redirect.ts';
import type { ClusterState } from './cluster-state.ts';

export interface NodePodsOptions {
  readonly config: Config;
  readonly state: GrantState & Pick<ClusterState, 'watches'>;
  readonly kernel: Pick<NodeRedirect, 'podCgroup' | 'letThrough'>;
  readonly policy: GrantPolicy;
  readonly clock: Clock;
}

/** A burst of events is one change. */
const delayMs = 50;
/** The kubelet creates a cgroup within seconds after the pod is known. */
const shortestRetryMs = 500;
const longestRetryMs = 30_000;
/** As many as the map of the programs has. */
const maxPods = 1_024;
const anyToken: GrantQuery = { selector: { kind: 'none' }, resource: undefined };

/** Both options close what such pods would reach. */
export function letsNodePodsThrough({ hostNetwork, blockInstanceMetadata }: Config): boolean {
  return hostNetwork === 'serve' && !blockInstanceMetadata;
}

export function openNodePods(options: NodePodsOptions): Disposable {
  const { config, state, kernel, clock } = options;
  const ended = new DisposableStack();
  if (!letsNodePodsThrough(config)) {
    void kernel.letThrough([]);
    return ended;
  }
  let retryMs = shortestRetryMs;
  let disarm: (() => void) | undefined;
  const update = (): void => {
    if (!state.isSynced()) return;
    disarm?.();
    const ids = nodePods(options).map(({ cgroupUid }) => kernel.podCgroup(cgroupUid));
    void kernel.letThrough(ids.filter((id) => id !== undefined).slice(0, maxPods));
    disarm = ids.includes(undefined) ? clock.schedule(retryMs, update) : undefined;
    retryMs = Math.min(longestRetryMs, 2 * retryMs);
  };
  const debounced = debounce(clock, delayMs, () => {
    retryMs = shortestRetryMs;
    update();
  });
  const onChange = (): void => debounced.trigger();
  ended.use(debounced);
  ended.defer(() => disarm?.());
  ended.defer(state.grants.onChange(onChange));
  const unsubscribe = state.workloadIdentities?.onChange(onChange);
  if (unsubscribe !== undefined) ended.defer(unsubscribe);
  void state.watches.whenSynced().then(onChange, () => undefined);
  return ended;
}

/** A static pod chooses the name of its cgroup itself: another pod that has this name keeps its own way. */
function nodePods({ state, policy, clock }: NodePodsOptions): readonly Pod[] {
  const isOwn = (pod: Pod): boolean =>
    pod.hostNetwork && isOfNode(decideGrant(pod, anyToken, state, policy, clock.wallMs()));
  const pods = [...state.pods.all()].filter((pod) => !hasEnded(pod));
  const { own = [], others = [] } = Object.groupBy(pods, (pod) => (isOwn(pod) ? 'own' : 'others'));
  const taken = new Set(others.flatMap(({ uid, cgroupUid }) => [uid, cgroupUid]));
  return own.filter(({ cgroupUid }) => !taken.has(cgroupUid));
}
