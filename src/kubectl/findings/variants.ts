/** What a pod would get by options of its agent that are not known. Pure. */
import type { Config } from '../../nmi/config/config.ts';
import type { RawObject } from '../base/object.ts';
import { isChosenByNode, type PodRequest } from '../cluster/cluster-state.ts';
import type { AgentContexts } from './contexts.ts';
import type { PodContext } from './pods.ts';
import type { Variant } from './verdict.ts';

/** Options that make no difference for this pod result in the same explanation. */
export function variantsOf(
  pod: RawObject,
  request: PodRequest,
  contexts: AgentContexts,
): readonly Variant[] {
  const context = contexts.of(pod);
  return unknownOptions(context).flatMap(([option, change]) => {
    const explanation = contexts.variant(context, change).explainPod(pod, request);
    return explanation === undefined ? [] : [{ option, explanation }];
  });
}

type Change = readonly [option: string, change: Partial<Config>];

function unknownOptions({ config, knowsOptions, snapshot }: PodContext): readonly Change[] {
  const hasGrants = (snapshot.grants ?? []).length > 0;
  const changes: readonly (readonly [isUnknown: boolean, ...change: Change])[] = [
    [isChosenByNode(config), '--redirect=iptables', { redirect: 'iptables' }],
    [!knowsOptions, '--strict-identity', { strictIdentity: true }],
    // Without any grant, the agents surely do not enforce them.
    [!knowsOptions && hasGrants, '--identity-owners=enforce', { identityOwners: 'enforce' }],
    [!knowsOptions, '--host-network=refuse', { hostNetwork: 'refuse' }],
    [!knowsOptions, '--workload-identity', { workloadIdentity: true }],
  ];
  return changes.flatMap(([isUnknown, ...change]) => (isUnknown ? [change] : []));
}
