/**
 * The agent's view of the cluster: pods of the node, identities, bindings and exceptions, updated
 * by the watches, and the requests that wait for an object.
 */
import { fullName } from '../../cache/index/object-name.ts';
import { bugReporter } from '../../base/lines/bug-reporter.ts';
import type { Clock } from '../../base/time/clock.ts';
import { GrantIndex } from '../../cache/index/grant-index.ts';
import { OwnerIndex } from '../../cache/index/owner-index.ts';
import { PodIndex } from '../../cache/index/pod-index.ts';
import { GrowingPause } from '../../base/time/growing-pause.ts';
import { authoritiesOf } from '../grants/authorities.ts';
import { IdentityOwners } from '../grants/identity-owners.ts';
import { PodPlaces, type PodPlacesOptions } from '../callers/place.ts';
import { generationOf, type GrantState } from '../grants/decide-grant.ts';
import { countUnowned } from '../grants/unowned.ts';
import type { Condition } from '../base/readiness.ts';
import type { Config } from '../config/config.ts';
import type { Tuning } from '../config/tuning.ts';
import { StalenessLimit } from './staleness-limit.ts';
import { Waiters } from './waiters.ts';
import { watchConditions, whyBehind } from '../kube/watch/watch-report.ts';
import type { KubeClient } from '../kube/api/client.ts';
import { NodeImpersonation, type AskedAs } from '../kube/api/node-impersonation.ts';
import { createServiceAccounts } from '../kube/accounts/service-accounts.ts';
import { readPod } from '../kube/watch/read-pod.ts';
import { openWatches, type Watches } from '../kube/watch/watches.ts';
import { samplesBy, type Part, type Sample } from '../base/part.ts';
import type { Logger } from '../../base/logger.ts';
import { NearNames } from '../grants/near-names.ts';
import { UpstreamResolver } from '../grants/resolve-upstream.ts';
import { WorkloadIdentities } from '../grants/workload-identities.ts';

export interface ClusterState extends GrantState, Required<Part>, AsyncDisposable {
  readonly waiters: Waiters;
  readonly watches: Watches;
  /** In whose name the API server is asked for pods; undefined before its first answer. */
  readonly podsAskedAs: () => AskedAs | undefined;
}

/** Most requests that wait at the same time for an object. */
const maxHeldRequests = 2_000;

/** A check costs the API server a list and a watch per resource, and any pod can cause one. */
const checkPausesMs = [5_000, 60_000] as const;

export interface ClusterStateOptions {
  readonly config: Config;
  readonly tuning: Tuning;
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether the kernel records callers. */
  readonly attests: boolean;
  /** The kernel's view of pod addresses; undefined if no caller is identified by its address. */
  readonly network: Pick<PodPlacesOptions, 'placeOf' | 'hasLink'> | undefined;
}

/** Starts the watches. The indexes are filled by the first list. */
export function openClusterState(options: ClusterStateOptions): ClusterState {
  const { config, tuning, client, clock, log, network } = options;
  const { node } = config;
  const onObserverError = bugReporter(log, clock, 'index listener failed');
  const pods = new PodIndex(clock, onObserverError);
  const grants = new GrantIndex(pods, onObserverError);
  const ownerIndex = new OwnerIndex(onObserverError);
  const owners = new IdentityOwners(ownerIndex, config.identityOwners);
  const checkPause = new GrowingPause(clock, ...checkPausesMs);
  const waiters = new Waiters({
    clock,
    maxWaiters: maxHeldRequests,
    // The missing object may be one that a silently broken watch did not deliver.
    onWait: () => {
      watches.hurry();
      if (checkPause.take()) watches.checkNow();
    },
  });
  grants.onChange(() => waiters.wake());
  owners.onChange(() => waiters.wake());
  const workloadIdentities = config.workloadIdentity ? watchAccounts(options) : undefined;
  workloadIdentities?.onChange(() => waiters.wake());
  const kubeLog = log.child({ component: 'kube' });
  const names = new NodeImpersonation({ node, purpose: 'pods', log: kubeLog });
  const podClient = client.as(names);
  const watches = openWatches({
    client,
    podClient,
    node,
    stores: {
      pods,
      identities: grants.identities,
      bindings: grants.bindings,
      exceptions: grants.exceptions,
      grants: ownerIndex.grants,
    },
    log: kubeLog,
    clock,
    enforcesOwners: owners.mode === 'enforce',
    isAwaited: () => waiters.size > 0,
  });
  void watches.whenSynced().then(
    () => {
      waiters.wake();
      const { boundPods } = grants.stats;
      log.info({ pods: pods.stats.pods, boundPods }, 'all watches synced');
    },
    // Disposed before the first sync: there are no waiters left.
    () => undefined,
  );
  const places =
    network &&
    new PodPlaces({ ...network, pods, clock, readPod: (pod) => readPod(podClient, node, pod) });
  const staleness = limitStaleness(options, watches);
  const clusterState: GrantState = {
    pods,
    grants,
    owners,
    workloadIdentities,
    nearNames: new NearNames(grants),
    upstreams: new UpstreamResolver(authoritiesOf(config), clock),
    isSynced: () => watches.synced,
    trusts: staleness.trusts,
    rightsProblem: staleness.rightsProblem,
    whyBehind: (resource) => whyBehind(watches.stats(), resource),
    places,
  };
  const unowned = owners.mode === 'off' ? undefined : unownedCounter(clusterState);
  return {
    ...clusterState,
    waiters,
    watches,
    podsAskedAs: () => names.name,
    conditions: [
      ...watchConditions(watches, tuning.watchStalenessLimitMs),
      ...staleness.conditions,
    ],
    samples: () => [
      { metric: 'nmi_waiting_requests', value: waiters.size },
      ...indexSamples(pods, grants, ownerIndex),
      ...watchSamples(watches),
      ...names.samples(),
      ...(unowned === undefined
        ? []
        : samplesBy('nmi_identities_not_owned', 'mode', { [owners.mode]: unowned() })),
    ],
    [Symbol.asyncDispose]: () => {
      staleness[Symbol.dispose]();
      places?.[Symbol.dispose]();
      return watches[Symbol.asyncDispose]();
    },
  };
}

interface Staleness extends Pick<GrantState, 'trusts' | 'rightsProblem'>, Disposable {
  readonly conditions: readonly Condition[];
}

function limitStaleness(
  { config, clock, attests, network }: ClusterStateOptions,
  watches: Watches,
): Staleness {
  const ofAddresses = new StalenessLimit({
    clock,
    limitMs: network === undefined ? 0 : config.addressStalenessLimitMs,
    watches,
    resource: 'pods',
  });
  const ofRights = new StalenessLimit({ clock, limitMs: config.rightsStalenessLimitMs, watches });
  return {
    trusts: (by) =>
      by === 'cgroup' || (attests && by === 'address') || ofAddresses.problem() === undefined,
    rightsProblem: () => ofRights.problem(),
    conditions: [
      {
        name: 'pod_ips_current',
        // With attestation, few pods are known by address.
        problem: () =>
          attests ? undefined : ofAddresses.problem('pods are known by address only, and '),
      },
      {
        name: 'rights_current',
        problem: () => ofRights.problem('no pod gets a token: rights are '),
      },
    ],
    [Symbol.dispose]: () => {
      ofAddresses[Symbol.dispose]();
      ofRights[Symbol.dispose]();
    },
  };
}

/** Computed again only after a change: namespace users decide how many objects there are. */
function unownedCounter(clusterState: GrantState): () => number {
  let [generation, count] = [-1, 0];
  return () => {
    // Before the first lists are complete, the grants may be missing.
    if (!clusterState.isSynced() || generation === generationOf(clusterState)) return count;
    generation = generationOf(clusterState);
    count = countUnowned(clusterState);
    return count;
  };
}

function indexSamples(pods: PodIndex, grants: GrantIndex, owners: OwnerIndex): readonly Sample[] {
  const { pods: all, hostNetwork, ambiguousIps } = pods.stats;
  const { boundPods, identities, bindings, exceptions } = grants.stats;
  return [
    ...samplesBy('nmi_index_pods', 'kind', { all, host_network: hostNetwork, bound: boundPods }),
    { metric: 'nmi_index_ambiguous_ips', value: ambiguousIps },
    ...samplesBy('nmi_index_objects', 'kind', {
      identities,
      bindings,
      exceptions,
      grants: owners.grants.size,
    }),
  ];
}

function watchSamples(watches: Watches): readonly Sample[] {
  return Object.entries(watches.stats()).flatMap(([resource, watch]): readonly Sample[] => {
    const labels = { resource };
    const { lastContactAgeMs = NaN, failure } = watch;
    const values = [
      ['nmi_watch_synced', watch.syncedOnce ? 1 : 0],
      // Absent before the first event.
      ['nmi_watch_last_event_seconds', lastContactAgeMs / 1000],
      ['nmi_watch_failing_seconds', failure?.isAbsence === false ? failure.forMs / 1000 : 0],
      ['nmi_watch_staleness_seconds', watch.stalenessMs / 1000],
      ['nmi_watch_relists_total', watch.relists],
      ['nmi_watch_objects_skipped_total', watch.rejected],
      ['nmi_watch_objects_bytes', watch.bytes],
    ] as const;
    return [
      ...values
        .filter(([, value]) => !Number.isNaN(value))
        .map(([metric, value]) => ({ metric, labels, value })),
      ...samplesBy('nmi_watch_errors_total', 'kind', watch.errorsByKind, labels),
    ];
  });
}

function watchAccounts(options: ClusterStateOptions): WorkloadIdentities {
  const { config, tuning, client, clock, log } = options;
  const accounts = createServiceAccounts({
    client,
    clock,
    staleLimitMs: tuning.watchStalenessLimitMs,
    onUnreadable: (account, failure) => {
      log.warn({ serviceAccount: fullName(account), ...failure }, 'failed to read service account');
    },
  });
  return new WorkloadIdentities(accounts, config.workloadIdentityTenant);
}
