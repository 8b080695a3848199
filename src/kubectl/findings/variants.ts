/** What a pod would get by options of its agent that are not known. Pure. */
import type { Config } from '../../nmi/config/config.ts';
import type { PodExplanation } from '../../nmi/explain/explanation.ts';
import type { RawObject } from '../base/object.ts';
import { isChosenByNode, type PodRequest } from '../cluster/cluster-state.ts';
import type { AgentContexts } from './contexts.ts';
import { isWorkloadIdentity, type PodContext } from './pods.ts';
import type { Variant } from './verdict.ts';

export function variantsOf(
  pod: RawObject,
  explanation: PodExplanation,
  request: PodRequest,
  contexts: AgentContexts,
): readonly Variant[] {
  const context = contexts.of(pod);
  return unknownOptions(pod, explanation, context).flatMap(([option, change]) => {
    const { view } = contexts.variant(context, change);
    const other = view.explainPod(pod, request);
    return other === undefined ? [] : [{ option, explanation: other }];
  });
}

type Change = readonly [option: string, change: Partial<Config>];

/** Only those that can make a difference for this pod. */
function unknownOptions(
  pod: RawObject,
  { label, requests, pod: { hostNetwork } }: PodExplanation,
  { config, knowsOptions, snapshot }: PodContext,
): readonly Change[] {
  const outcome = requests.at(-1)?.outcome;
  const isByAge = outcome?.kind === 'granted' && outcome.by === 'default';
  const hasGrants = (snapshot.grants ?? []).length > 0;
  const isUnknown = !knowsOptions;
  const mayCount = isUnknown && label === undefined && isWorkloadIdentity(pod);
  const changes: readonly (readonly [matters: boolean, ...change: Change])[] = [
    [hostNetwork && isChosenByNode(config), '--redirect=iptables', { redirect: 'iptables' }],
    [isUnknown && isByAge, '--strict-identity', { strictIdentity: true }],
    [isUnknown && hasGrants, '--identity-owners=enforce', { identityOwners: 'enforce' }],
    [isUnknown && hostNetwork, '--host-network=refuse', { hostNetwork: 'refuse' }],
    [mayCount, '--workload-identity', { workloadIdentity: true }],
  ];
  return changes.flatMap(([matters, ...change]) => (matters ? [change] : []));
}
