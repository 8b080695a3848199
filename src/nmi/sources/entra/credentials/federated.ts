/**
 * Assertions for federated identities: tokens of service accounts, issued by the API server for the
 * audience that Entra ID expects.
 * 1. Pod mode: the subject is the pod's own service account, and the token is bound to a live pod
 * of this node that runs under it. Without such a pod there is no assertion, not even a cached one.
 * 2. The same for identity bindings, with the audience of AKS.
 * 3. Node mode: the subject is the agent's own service account; the token is bound to its pod.
 * 4. Assertions are cached until they expire or no identity needs them.
 */
import { fullName, type ObjectName } from '../../../../cache/index/object-name.ts';
import { createOwnAccount, type OwnAccount } from '../../../kube/accounts/own-account.ts';
import { requestServiceAccountToken } from '../../../kube/accounts/token-request.ts';
import type { SourceFailure } from '../../source.ts';
import { bindingAudience } from '../identity-use.ts';
import type { CredentialContext, CredentialKind, CredentialLoader, Loaded } from './descriptor.ts';
import { failureOfAccount, failureOfToken, noLivePod, type Subject } from './federated-failure.ts';

export interface PodCredential {
  readonly kind: 'federated_pod';
  readonly serviceAccount: ObjectName;
  readonly audience: string;
}

/** The token is exchanged by the API server of AKS; see identity-binding.ts. */
export interface BindingCredential extends Omit<PodCredential, 'kind'> {
  readonly kind: 'federated_binding';
}

export interface NodeCredential {
  readonly kind: 'federated_node';
  readonly audience: string;
}

const type = { type: 3, typeTitle: 'federated' } as const;

const ofPod = {
  ...type,
  isOfPod: true,
  objectKind: 'service account',
  key: keyOfPod,
  objectOf: ({ serviceAccount }: OfPod) => serviceAccount,
  open: openPodAssertions,
} as const;

export const federatedPodKind: CredentialKind<PodCredential> = {
  ...ofPod,
  kind: 'federated_pod',
  parse: ({ entra: { federation }, serviceAccount, audience }) =>
    federation === '' || federation === 'pod' ? podCredential(serviceAccount, audience) : undefined,
};

export const federatedBindingKind: CredentialKind<BindingCredential> = {
  ...ofPod,
  kind: 'federated_binding',
  isExchangedByCluster: true,
  parse({ entra: { federation, adEndpoint }, serviceAccount }) {
    if (federation !== 'binding') return undefined;
    if (adEndpoint !== '') return 'has a spec.adEndpoint, and federation binding uses none';
    return { kind: 'federated_binding', serviceAccount, audience: bindingAudience };
  },
};

export const federatedNodeKind: CredentialKind<NodeCredential> = {
  ...type,
  kind: 'federated_node',
  isOfAgent: true,
  parse: ({ entra: { federation }, audience }) =>
    federation === 'node'
      ? { kind: 'federated_node', audience }
      : 'has a spec.federation that is none of "pod", "node" and "binding"',
  key: keyOfNode,
  objectOf: () => undefined,
  open: (context) => openNodeAssertions({ ...context, ownAccount: createOwnAccount(context) }),
};

export function podCredential(serviceAccount: ObjectName, audience: string): PodCredential {
  return { kind: 'federated_pod', serviceAccount, audience };
}

type OfPod = Omit<PodCredential, 'kind'>;

function keyOfPod({ serviceAccount, audience }: OfPod): string {
  return `${fullName(serviceAccount)} ${audience}`;
}

function keyOfNode({ audience }: NodeCredential): string {
  return audience;
}

type TokenContext = Pick<CredentialContext<never>, 'tokenClient' | 'clock'>;

/** Until Entra ID has checked it, by its clock; its own libraries leave five minutes. */
const marginMs = 5 * 60_000;
/** The requested lifetime; the server decides. An hour is Kubernetes' own default. */
const expirationSeconds = 3600;
const timeoutMs = 5_000;

/** Exported for its tests, as `openNodeAssertions`. */
export function openPodAssertions(
  context: TokenContext & Pick<CredentialContext<never>, 'livePodOf'>,
): CredentialLoader<OfPod> {
  return {
    keyOf: (credential) =>
      `${keyOfPod(credential)} ${context.livePodOf(credential.serviceAccount)?.uid ?? ''}`,
    async load({ serviceAccount, audience }) {
      const pod = context.livePodOf(serviceAccount);
      if (pod === undefined) return failed(noLivePod(serviceAccount));
      return loadAssertion(context, { serviceAccount, pod, audience });
    },
  };
}

export function openNodeAssertions(
  context: TokenContext & { readonly ownAccount: OwnAccount },
): CredentialLoader<NodeCredential> {
  return {
    keyOf: keyOfNode,
    async load({ audience }) {
      const account = await context.ownAccount.get();
      if (account.kind !== 'ok') return failed(failureOfAccount(account));
      const { serviceAccount, pod } = account;
      return loadAssertion(context, { serviceAccount, pod, audience });
    },
  };
}

/** Its life is counted from before the request. Failures are not cached here. */
async function loadAssertion(
  { tokenClient, clock }: TokenContext,
  subject: Subject,
): Promise<Loaded> {
  const sentAtMs = clock.monotonicMs();
  const { serviceAccount, audience, pod } = subject;
  const request = { serviceAccount, audience, expirationSeconds, boundTo: pod };
  const outcome = await requestServiceAccountToken(tokenClient, request, { timeoutMs });
  if (outcome.kind !== 'ok') return failed(failureOfToken(outcome, subject));
  const { token, lifeMs, expiresAtWallMs } = outcome;
  const spareMs = Math.min(marginMs, lifeMs / 2);
  return {
    result: { ok: true, clientCredential: { clientAssertion: token } },
    keepMs: sentAtMs + lifeMs - spareMs - clock.monotonicMs(),
    usableUntilWallMs: expiresAtWallMs - spareMs,
  };
}

function failed(failure: SourceFailure): Loaded {
  return { result: { ok: false, failure }, keepMs: 0 };
}
