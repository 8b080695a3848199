/** What a pod would get by options of its agent that are not known. Pure. */
import type { Config } from '../../nmi/config/config.ts';
import type { RawObject } from '../base/object.ts';
import { isChosenByNode, type PodRequest } from '../cluster/cluster-state.ts';
import type { AgentContexts } from './contexts.ts';
import type { PodContext } from './pods.ts';
import type { Variant } from './verdict.ts';

/** What makes no difference for this pod results in the same explanation. */
export function variantsOf(
  pod: RawObject,
  request: PodRequest,
  contexts: AgentContexts,
): readonly Variant[] {
  const context = contexts.of(pod);
  const isExcepted = context.view.explainPod(pod, request)?.exception !== undefined;
  return [...unknownOptions(context), ...unknownOwners(context, isExcepted)].flatMap(
    ([when, change]) => {
      const explanation = contexts.variant(context, change).explainPod(pod, request);
      return explanation === undefined ? [] : [{ when, explanation }];
    },
  );
}

type Change = readonly [when: string, change: Partial<Config>];

function unknownOptions({ config, knowsOptions }: PodContext): readonly Change[] {
  const changes: readonly (readonly [isUnknown: boolean, ...change: Change])[] = [
    [isChosenByNode(config), 'the agent has --redirect=iptables', { redirect: 'iptables' }],
    [!knowsOptions, 'the agent has --strict-identity', { strictIdentity: true }],
    [!knowsOptions, 'the agent has --host-network=refuse', { hostNetwork: 'refuse' }],
    [!knowsOptions, 'the agent has --workload-identity', { workloadIdentity: true }],
  ];
  return changes.flatMap(([isUnknown, ...change]) => (isUnknown ? [change] : []));
}

/** Of an identity, its status shows what grants that the user may not read decide. */
function unknownOwners(
  { config, knowsOptions, snapshot: { grants } }: PodContext,
  isExcepted: boolean,
): readonly Change[] {
  const mayEnforce = knowsOptions ? config.identityOwners === 'enforce' : true;
  const isKnown = grants !== undefined && (knowsOptions || (!isExcepted && grants.length === 0));
  if (!mayEnforce || isKnown || (grants === undefined && !isExcepted)) return [];
  const conditions = [
    ...(knowsOptions ? [] : ['the agent has --identity-owners=enforce']),
    ...(grants === undefined ? [lacksNode('its namespace')] : []),
  ];
  return [[conditions.join(' and '), { identityOwners: 'enforce' }]];
}

export function lacksNode(namespace: string): string {
  return `no AzureIdentityGrant gives ${namespace} the identities of the node`;
}
