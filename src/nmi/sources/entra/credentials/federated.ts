/**
 * Assertions for federated identities: tokens of service accounts, issued by the API server for the
 * audience that Entra ID expects.
 * 1. Pod mode: the subject is the pod's own service account, and the token is bound to a live pod
 * of this node that runs under it. Without such a pod there is no assertion, not even a cached one.
 * 2. Node mode: the subject is the agent's own service account; the token is bound to its pod.
 * 3. Assertions are cached until they expire or no identity needs them.
 */
import { objectKey, type ObjectName } from '../../../../cache/index/object-name.ts';
import { createOwnAccount, type OwnAccount } from '../../../kube/accounts/own-account.ts';
import {
  requestServiceAccountToken,
  type JsonPoster,
} from '../../../kube/accounts/token-request.ts';
import type { SourceFailure } from '../../source.ts';
import {
  openCredentialCache,
  type CredentialCache,
  type CredentialCacheOptions,
  type Loaded,
} from './credential-cache.ts';
import type { CredentialKind, CredentialContext } from './descriptor.ts';
import { failureOfAccount, failureOfToken, noLivePod, type Subject } from './federated-failure.ts';

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
  open: (context) => openPodCredentials({ ...context, client: context.tokenClient }),
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
  open: (context) =>
    openNodeCredentials({
      ...context,
      client: context.tokenClient,
      ownAccount: createOwnAccount(context),
    }),
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

interface AssertionOptions<C> extends Pick<CredentialCacheOptions<C>, 'isNeeded' | 'clock'> {
  readonly client: JsonPoster;
  readonly maxKept?: number;
}

/**
 * An assertion has to live until Entra ID has checked it, by a clock that agrees with the API
 * server's to within minutes. Entra ID's own libraries leave a token five minutes.
 */
const marginMs = 5 * 60_000;
/** The requested lifetime; the server decides. An hour is Kubernetes' own default. */
const expirationSeconds = 3600;
const timeoutMs = 5_000;
const defaultMaxKept = 256;

/** Exported for its tests, as `openNodeCredentials`. */
export function openPodCredentials(
  options: AssertionOptions<PodCredential> & Pick<CredentialContext<PodCredential>, 'livePodOf'>,
): CredentialCache<PodCredential> {
  const { livePodOf } = options;
  return openCredentialCache({
    maxKept: defaultMaxKept,
    ...options,
    keyOf: (credential) =>
      `${keyOfPod(credential)} ${livePodOf(credential.serviceAccount)?.uid ?? ''}`,
    async load({ serviceAccount, audience }) {
      const pod = livePodOf(serviceAccount);
      if (pod === undefined) return failed(noLivePod(serviceAccount));
      return loadAssertion(options, { serviceAccount, pod, audience });
    },
  });
}

export function openNodeCredentials(
  options: AssertionOptions<NodeCredential> & { readonly ownAccount: OwnAccount },
): CredentialCache<NodeCredential> {
  return openCredentialCache({
    maxKept: defaultMaxKept,
    ...options,
    keyOf: keyOfNode,
    async load({ audience }) {
      const account = await options.ownAccount.get();
      if (account.kind !== 'ok') return failed(failureOfAccount(account));
      const { serviceAccount, pod } = account;
      return loadAssertion(options, { serviceAccount, pod, audience });
    },
  });
}

/** Its life is counted from before the request. Failures are not cached here. */
async function loadAssertion(
  { client, clock }: Pick<AssertionOptions<unknown>, 'client' | 'clock'>,
  subject: Subject,
): Promise<Loaded> {
  const sentAtMs = clock.monotonicMs();
  const { serviceAccount, audience, pod } = subject;
  const request = { serviceAccount, audience, expirationSeconds, boundTo: pod };
  const outcome = await requestServiceAccountToken(client, request, { timeoutMs });
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
