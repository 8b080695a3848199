/**
 * A snapshot as the agent's cluster state, by its own code: explanations match its answers. Pure.
 */
import { stringAt } from '../../base/json-value.ts';
import { systemClock } from '../../base/time/clock.ts';
import { GrantIndex } from '../../cache/index/grant-index.ts';
import { fullName, type ObjectName } from '../../cache/index/object-name.ts';
import type { ObjectRef, ObjectStore } from '../../cache/index/objects.ts';
import { OwnerIndex } from '../../cache/index/owner-index.ts';
import { PodIndex } from '../../cache/index/pod-index.ts';
import type { Config } from '../../nmi/config/config.ts';
import { tuning } from '../../nmi/config/tuning.ts';
import { explain } from '../../nmi/explain/explain.ts';
import type { PodExplanation } from '../../nmi/explain/explanation.ts';
import type { ExplainQuery } from '../../nmi/explain/question.ts';
import { authoritiesOf } from '../../nmi/grants/authorities.ts';
import type { GrantState } from '../../nmi/grants/decide-grant.ts';
import type { GrantPolicy } from '../../nmi/grants/choose-identity.ts';
import { IdentityOwners } from '../../nmi/grants/identity-owners.ts';
import { NearNames } from '../../nmi/grants/near-names.ts';
import { UpstreamResolver } from '../../nmi/grants/resolve-upstream.ts';
import { WorkloadIdentities } from '../../nmi/grants/workload-identities.ts';
import { annotationsOf, type ServiceAccounts } from '../../nmi/kube/accounts/service-accounts.ts';
import {
  parseBinding,
  parseException,
  parseIdentity,
  parseIdentityGrant,
  parsePod,
  type Parse,
} from '../../nmi/kube/watch/parse.ts';
import { nameOf, namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import type { Snapshot } from './snapshot.ts';

export interface Unusable {
  readonly kind: string;
  readonly object: RawObject;
  readonly title: string;
  readonly reason: string;
}

export interface ClusterView {
  readonly clusterState: GrantState;
  readonly unusable: readonly Unusable[];
  /** What the agent of the pod's node answers; undefined when the pod is not in the snapshot. */
  explainPod(pod: RawObject, request?: PodRequest): PodExplanation | undefined;
}

export type PodRequest = Omit<ExplainQuery, 'who'>;

export const anyRequest: PodRequest = { selector: { kind: 'none' }, resource: undefined };

export function createClusterState(
  snapshot: Snapshot,
  config: Config,
  nowWallMs: number,
): ClusterView {
  const unusable: Unusable[] = [];
  const pods = new PodIndex(systemClock);
  const grants = new GrantIndex(pods);
  const fill = <T extends ObjectRef>(
    kind: string,
    store: ObjectStore<T>,
    objects: readonly RawObject[],
    parse: Parse<T>,
  ): void => {
    const usable = objects.flatMap((object) => {
      const parsed = parse(object);
      if (parsed.ok) return [parsed.value];
      unusable.push({ kind, object, title: titleOf(object), reason: parsed.reason });
      return [];
    });
    store.replace(usable);
  };
  fill('AzureIdentity', grants.identities, snapshot.identities, parseIdentity);
  fill('AzureIdentityBinding', grants.bindings, snapshot.bindings, parseBinding);
  fill('AzurePodIdentityException', grants.exceptions, snapshot.exceptions, parseException);
  fill('Pod', pods, snapshot.pods, parsePod);
  const owners = new OwnerIndex();
  fill('AzureIdentityGrant', owners.grants, snapshot.grants ?? [], parseIdentityGrant);
  // Unreadable grants must not count as absent grants.
  const ownersMode = snapshot.grants === undefined ? 'off' : config.identityOwners;
  const clusterState: GrantState = {
    pods,
    grants,
    owners: new IdentityOwners(owners, ownersMode),
    upstreams: new UpstreamResolver(authoritiesOf(config)),
    workloadIdentities: config.workloadIdentity
      ? new WorkloadIdentities(accountsOf(snapshot.accounts), config.workloadIdentityTenant)
      : undefined,
    nearNames: new NearNames(grants),
    isSynced: () => true,
    trusts: () => true,
    rightsProblem: () => undefined,
  };
  const policy: GrantPolicy = {
    strict: config.strictIdentity,
    graceMs: tuning.bindingGraceMs,
    hostNetwork: config.hostNetwork,
  };
  return {
    clusterState,
    unusable,
    explainPod(pod, request = anyRequest) {
      const explanation = explain(
        { who: { kind: 'pod', namespace: namespaceOf(pod), name: nameOf(pod) }, ...request },
        {
          clusterState,
          policy,
          broker: undefined,
          health: () => ({
            name: stringAt(specOf(pod), 'nodeName'),
            // `auto` is eBPF on every node that meets the requirements of the installation.
            redirect: {
              mode: isChosenByNode(config) ? 'ebpf' : config.redirect,
              detail: '',
              problem: undefined,
            },
            watches: { unsynced: [], silentForMs: 0, failing: [] },
          }),
          whyUnavailable: () => undefined,
        },
        nowWallMs,
      );
      if (explanation.kind !== 'pod') return undefined;
      if (!isChosenByNode(config)) return explanation;
      const { redirect } = explanation.node;
      return {
        ...explanation,
        node: { ...explanation.node, redirect: { ...redirect, mode: 'unknown' } },
      };
    },
  };
}

export function isChosenByNode({ redirect }: Config): boolean {
  return redirect === 'auto' || redirect === 'pinned';
}

/** The agent's view of service accounts; one that is not in the snapshot counts as nonexistent. */
function accountsOf(accounts: readonly RawObject[]): ServiceAccounts {
  const known = new Map(accounts.map((account) => [titleOf(account), annotationsOf(account)]));
  const peek = (account: ObjectName) => known.get(fullName(account)) ?? 'missing';
  return {
    generation: 0,
    peek,
    peekFresh: (account) => ({ kind: 'known', account: peek(account) }),
    onChange: () => () => undefined,
  };
}
