/** Which rights the agent needs, for its watches and for the identities of the cluster. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { createFinding, type Finding } from '../../nmi/diagnosis/finding.ts';
import { kindsOfType } from '../../nmi/sources/entra/credentials/kinds.ts';
import { namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import { isOfNode } from '../azure/federation.ts';
import type { AgentView } from '../cluster/agents.ts';
import { identityGrants, identityResources } from '../cluster/resources.ts';
import type { Right } from '../cluster/rights.ts';

/** In all namespaces. */
export function rightsOfAgent({ config }: AgentView): readonly Right[] {
  const reads = ['pods', ...Object.values(identityResources), identityGrants].flatMap((resource) =>
    ['list', 'watch'].map((verb) => ({ verb, resource, mayBeAsNode: resource === 'pods' })),
  );
  const { events = false, startupTaint = '', workloadIdentity = false } = config ?? {};
  return [
    ...reads,
    ...(events ? [{ verb: 'create', resource: 'events.events.k8s.io' }] : []),
    ...(startupTaint === '' ? [] : taintRights),
    ...(workloadIdentity ? accountRights : []),
  ];
}

/** A node may read itself, and not change its taints. */
const taintRights: readonly Right[] = [
  { verb: 'get', resource: 'nodes', mayBeAsNode: true },
  { verb: 'patch', resource: 'nodes' },
];
const accountRights: readonly Right[] = [
  { verb: 'get', resource: 'serviceaccounts', isPerNamespace: true },
  { verb: 'create', resource: 'serviceaccounts/token', mayBeAsNode: true, isPerNamespace: true },
];

export interface IdentityRight extends Right {
  readonly namespace: string;
  readonly identities: readonly string[];
}

export function rightsForIdentities(
  identities: readonly RawObject[],
  agent: Pick<AgentView, 'namespace'>,
): readonly IdentityRight[] {
  const groups = Map.groupBy(identities, (each) => JSON.stringify(rightFor(each, agent)));
  return [...groups.values()].flatMap((group) => {
    const [first] = group;
    const right = first === undefined ? undefined : rightFor(first, agent);
    return right === undefined ? [] : [{ ...right, identities: group.map(titleOf) }];
  });
}

function rightFor(identity: RawObject, agent: Pick<AgentView, 'namespace'>) {
  const spec = specOf(identity);
  const [kind] = kindsOfType(Number(spec['type'] ?? 0));
  if (kind === undefined || isOfNode(identity)) return undefined;
  const own = namespaceOf(identity);
  if (kind.objectKind === 'Secret') return { verb: 'get', resource: 'secrets', namespace: own };
  const isOfAgent = stringAt(spec, 'federation') === 'node';
  return {
    verb: 'create',
    resource: 'serviceaccounts/token',
    mayBeAsNode: true,
    namespace: isOfAgent ? agent.namespace : own,
  };
}

/** @param account of the agents, with its namespace. */
export function findingOfIdentityRight(account: string, right: IdentityRight): Finding {
  const { verb, resource, namespace, identities } = right;
  const more = identities.length > 1 ? ` and ${identities.length - 1} more` : '';
  const [option, list] =
    resource === 'secrets'
      ? ['allowAccessToSecrets', 'secretsNamespaces']
      : ['allowFederation', 'federationNamespaces'];
  return createFinding('agent_rights', {
    object: `ServiceAccount ${account}`,
    text: `It may not ${verb} ${resource} in namespace ${namespace}, which AzureIdentity ${identities[0] ?? ''}${more} needs.`,
    fix: `Set rbac.${option} of the chart; rbac.${list}, if it is set, must have the namespace.`,
  });
}
