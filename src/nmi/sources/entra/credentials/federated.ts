/**
 * Assertions for federated identities: tokens of service accounts, issued by the API server for the
 * audience that Entra ID expects. No secret is configured and nothing is assigned to the node.
 *
 * 1. Pod mode: the subject is the pod's own service account, and the token is bound to a live pod
 *    of this node that runs under it. Without such a pod there is no assertion, not even a cached
 *    one: the agent acts only for pods that run on this node.
 * 2. Node mode: the subject is the agent's own service account; the token is bound to its pod.
 * 3. Assertions are cached per service account, audience and pod, until they expire or no identity
 *    needs them.
 */
import { objectKey, type ObjectName } from '../../../../cache/index/object-name.ts';
import { createOwnAccount, type OwnAccount } from '../../../kube/accounts/own-account.ts';
import {
  openAssertions,
  type AssertionCredentials,
  type AssertionsOptions,
} from './assertion-cache.ts';
import type { CredentialKind, CredentialContext } from './descriptor.ts';
import { failureOfAccount, noLivePod } from './federated-failure.ts';

export interface PodCredential {
  readonly kind: 'federated_pod';
  readonly serviceAccount: ObjectName;
  readonly audience: string;
}

export interface NodeCredential {
  readonly kind: 'federated_node';
  readonly audience: string;
}

const type = { type: 3, typeTitle: 'federated' } as const;

export const federatedPodKind: CredentialKind<PodCredential> = {
  ...type,
  kind: 'federated_pod',
  isOfPod: true,
  objectKind: 'service account',
  parse: ({ entra: { federation }, serviceAccount, audience }) =>
    federation === '' || federation === 'pod' ? podCredential(serviceAccount, audience) : undefined,
  key: keyOfPod,
  objectOf: ({ serviceAccount }) => serviceAccount,
  open: openPodCredentials,
};

export const federatedNodeKind: CredentialKind<NodeCredential> = {
  ...type,
  kind: 'federated_node',
  isOfAgent: true,
  parse: ({ entra: { federation }, audience }) =>
    federation === 'node'
      ? { kind: 'federated_node', audience }
      : 'has a spec.federation that is neither "pod" nor "node"',
  key: keyOfNode,
  objectOf: () => undefined,
  open: (context) => openNodeCredentials({ ...context, ownAccount: createOwnAccount(context) }),
};

export function podCredential(serviceAccount: ObjectName, audience: string): PodCredential {
  return { kind: 'federated_pod', serviceAccount, audience };
}

function keyOfPod({ serviceAccount, audience }: PodCredential): string {
  return `${objectKey(serviceAccount.namespace, serviceAccount.name)} ${audience}`;
}

function keyOfNode({ audience }: NodeCredential): string {
  return audience;
}

/** Exported for its tests, as `openNodeCredentials`. */
export function openPodCredentials(
  options: AssertionsOptions<PodCredential> & Pick<CredentialContext<PodCredential>, 'livePodOf'>,
): AssertionCredentials<PodCredential> {
  return openAssertions(options, {
    key: keyOfPod,
    podOf: ({ serviceAccount }) => options.livePodOf(serviceAccount),
    find({ serviceAccount }) {
      const pod = options.livePodOf(serviceAccount);
      return pod === undefined ? noLivePod(serviceAccount) : { serviceAccount, pod };
    },
  });
}

export function openNodeCredentials(
  options: AssertionsOptions<NodeCredential> & { readonly ownAccount: OwnAccount },
): AssertionCredentials<NodeCredential> {
  const { ownAccount } = options;
  return openAssertions(options, {
    key: keyOfNode,
    podOf: () => ownAccount.known?.pod,
    async find(_credential, signal) {
      const account = await ownAccount.get(signal);
      return account.kind === 'ok' ? account : failureOfAccount(account);
    },
  });
}
