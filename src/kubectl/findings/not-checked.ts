/** What a verdict about a pod does not know, without what cannot change it. Pure. */
import type { IdentityView, PodExplanation, UpstreamView } from '../../nmi/explain/explanation.ts';
import { credentialKinds } from '../../nmi/sources/entra/credentials/kinds.ts';
import { isOfNode } from '../azure/federation.ts';
import type { RawObject } from '../base/object.ts';
import { unverified, type AgentView } from '../cluster/agents.ts';
import { losses, type Unread } from '../cluster/unread.ts';
import {
  hiddenEnvironmentOf,
  identityOf,
  isWorkloadIdentity,
  named,
  namedClientId,
  policiesOf,
  type PodContext,
} from './pods.ts';
import { isReadyByStatus } from './status.ts';
import type { Verdict } from './verdict.ts';

export function notCheckedOf(
  pod: RawObject,
  explanation: PodExplanation,
  verdict: Verdict,
  agent: AgentView | undefined,
  context: PodContext,
): readonly Unread[] {
  const { snapshot, config, knowsOptions } = context;
  const view = identityOf(explanation);
  const identity = named(snapshot.identities, view?.name, pod);
  const isReady = identity !== undefined && isReadyByStatus(identity);
  const isOpen = verdict.kind === 'granted' || verdict.kind === 'unknown';
  const isBound = explanation.label !== undefined || explanation.exception !== undefined;
  const matters: Readonly<Record<string, boolean>> = {
    [losses.policies]: isOpen && isBound && !explanation.pod.hostNetwork,
    [losses.accounts]: isWorkloadIdentity(pod) || (knowsOptions && config.workloadIdentity),
    [losses.grants]: !isReady && !(knowsOptions && config.identityOwners === 'off'),
    [losses.workloads]: explanation.label === undefined,
    [losses.elsewhere]: !isOpen,
    [losses.refusals]: isOpen,
  };
  const read = snapshot.unread.filter(({ loses }) => matters[loses] ?? true);
  if (!isOpen) return read;
  const doubtful = policiesOf(pod, explanation, context, false).join(', ');
  const why = 'a CIDR in it cannot be read';
  return [
    ...(doubtful === ''
      ? []
      : [{ loses: losses.policies, what: `judge NetworkPolicy ${doubtful}`, why }]),
    ...(view?.upstream === undefined
      ? []
      : ofUpstream(view, view.upstream, { isReady, beginsAtNode: isOfNode(identity ?? {}) })),
    ...ofClientIds(pod, explanation),
    ...(agent === undefined || knowsOptions ? [] : [ofOptions(agent)]),
    ...(knowsOptions && !config.events ? [noEvents] : []),
    ...read,
  ];
}

const noEvents: Unread = {
  loses: losses.refusals,
  what: 'see refusals of the last hour',
  why: 'the agents write no Events (--events=false)',
};

/** Which identity SDKs in the pod name, unless the user asks about a request that names another. */
function ofClientIds(pod: RawObject, { requests, label }: PodExplanation): readonly Unread[] {
  const asked = requests.at(-1)?.selector ?? '';
  const isOfPod = asked === '' || asked === `client_id=${namedClientId(pod) ?? ''}`;
  if (!isOfPod || label === undefined || isWorkloadIdentity(pod)) return [];
  return hiddenEnvironmentOf(pod, 'AZURE_CLIENT_ID').map(({ container, what }) => ({
    loses: `AZURE_CLIENT_ID of container ${container}`,
    what,
    why: 'name its value by --client-id',
  }));
}

function ofOptions({ namespace, name, config }: AgentView): Unread {
  return {
    loses: losses.agents,
    what: `know the options of the agent ${namespace}/${name}`,
    why:
      config === undefined
        ? 'this version does not know those that it was started with'
        : unverified,
  };
}

function ofUpstream(
  { kind, clientId }: IdentityView,
  { source, credential }: UpstreamView,
  { isReady, beginsAtNode }: { readonly isReady: boolean; readonly beginsAtNode: boolean },
): readonly Unread[] {
  const of = (loses: string, what: string): Unread => ({
    loses,
    what,
    why: 'only a token request shows it',
  });
  if (kind === 'node') return [of('identities of the node', 'see which identities the node has')];
  if (source === 'imds') {
    return [of('assignment of the identity in Azure', 'see whether Azure assigned it to the node')];
  }
  const credentialKind = credentialKinds.find((each) => each.kind === source);
  if (credentialKind?.isExchangedByCluster === true) {
    const user = `system:serviceaccount:${credential.replace('/', ':')}`;
    const resource = `${clientId}.cid.wi.aks.azure.com`;
    return [
      of('identity binding of AKS', 'see whether AKS has it'),
      {
        ...of('right on the identity', `see whether ${user} may use the identity`),
        why: `kubectl auth can-i use-managed-identity ${resource} --as=${user} shows it`,
      },
    ];
  }
  const trust = of('federated credential in Entra ID', 'see whether Entra ID has it');
  if (source.startsWith('federated')) return [trust];
  if (credentialKind?.objectKind === 'chain') {
    const assigned = 'see whether Azure assigned it to the node';
    return beginsAtNode
      ? [of('assignment of the managed identity in Azure', assigned), trust]
      : [trust];
  }
  return [
    ...(isReady ? [] : [of(`Secret ${credential}`, 'read it')]),
    of(`whether Entra ID accepts the ${source}`, 'know it'),
  ];
}
