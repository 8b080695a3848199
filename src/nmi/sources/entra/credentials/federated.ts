/**
 * Assertions for federated identities: tokens of service accounts, made by the API server for the
 * audience that Entra ID expects. Nothing secret is configured and nothing is assigned to the node.
 *
 * 1. Pod mode: the subject is the pod's own service account, and the token is bound to a live pod
 *    of this node that runs under it. Without such a pod there is none, kept or not: the agent
 *    speaks for pods that are here, and for nobody else.
 * 2. Node mode: the subject is the agent's own service account; the token is bound to its pod.
 * 3. Kept per service account, audience and pod, within its life (see `assertion-cache.ts`) and while
 *    an identity needs it. One request at a time for each; a failure is not kept here.
 */
import type { Clock } from '../../../../cache/clock.ts';
import { objectKey, type ObjectName } from '../../../../cache/index/object-name.ts';
import { createOwnAccount, type OwnAccount } from '../../../kube/accounts/own-account.ts';
import { SharedCalls } from '../../../base/single-flight.ts';
import {
  requestServiceAccountToken,
  type JsonPoster,
  type PodName,
  type ServiceAccountTokenOutcome,
} from '../../../kube/accounts/token-request.ts';
import type { SourceFailure } from '../../source.ts';
import { failureOfAccount, failureOfToken, noLivePod } from './federated-failure.ts';
import { KeptAssertions, type AssertionOwner } from './assertion-cache.ts';
import type { CredentialKind, ProofContext, ProofProvider, ProofResult } from './descriptor.ts';

export interface PodCredential {
  readonly kind: 'federated_pod';
  readonly serviceAccount: ObjectName;
  readonly audience: string;
}

export interface NodeCredential {
  readonly kind: 'federated_node';
  readonly audience: string;
}

const federated = { type: 3, typeTitle: 'federated', hasAuxiliaryTenants: false } as const;

export const federatedPodKind: CredentialKind<PodCredential> = {
  ...federated,
  kind: 'federated_pod',
  isOfPod: true,
  objectKind: 'service account',
  parse: ({ entra: { federation }, serviceAccount, audience }) =>
    federation === '' || federation === 'pod' ? podCredential(serviceAccount, audience) : undefined,
  key: keyOfPod,
  objectOf: ({ serviceAccount }) => serviceAccount,
  open: openPodProofs,
};

export const federatedNodeKind: CredentialKind<NodeCredential> = {
  ...federated,
  kind: 'federated_node',
  isOfPod: false,
  objectKind: undefined,
  parse: ({ entra: { federation }, audience }) =>
    federation === 'node'
      ? { kind: 'federated_node', audience }
      : 'has a spec.federation that is neither "pod" nor "node"',
  key: keyOfNode,
  objectOf: () => undefined,
  open: (context) =>
    openNodeProofs({ ...context, ownAccount: createOwnAccount({ client: context.client }) }),
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

export interface AssertionsOptions<C> {
  readonly client: JsonPoster;
  readonly clock: Clock;
  readonly isNeeded: ProofContext<C>['isNeeded'];
  /** Of one request to the API server. */
  readonly timeoutMs?: number;
  readonly maxKept?: number;
}

export interface AssertionProofs<C> extends ProofProvider<C> {
  /** For tests. */
  readonly kept: number;
}

/** Whose token an assertion is, and the pod that it is bound to. */
interface Subject {
  readonly serviceAccount: ObjectName;
  readonly pod: PodName | undefined;
}

interface Owner<C> extends AssertionOwner {
  readonly credential: C;
}

/** How a mode finds its subjects. */
interface Subjects<C> {
  key(credential: C): string;
  find(
    credential: C,
    signal: AbortSignal,
  ): Subject | SourceFailure | Promise<Subject | SourceFailure>;
  /** The pod that a token is bound to now; undefined for none. */
  podOf(credential: C): PodName | undefined;
}

/** What is asked for; the server decides. An hour is Kubernetes' own default. */
const expirationSeconds = 3600;

/** Exported for its tests, as `openNodeProofs`. */
export function openPodProofs(
  options: AssertionsOptions<PodCredential> & Pick<ProofContext<PodCredential>, 'livePodOf'>,
): AssertionProofs<PodCredential> {
  const podOf = ({ serviceAccount }: PodCredential): PodName | undefined =>
    options.livePodOf(serviceAccount);
  return openAssertions(options, {
    key: keyOfPod,
    podOf,
    find(credential) {
      const { serviceAccount } = credential;
      const pod = podOf(credential);
      return pod === undefined ? noLivePod(serviceAccount) : { serviceAccount, pod };
    },
  });
}

export function openNodeProofs(
  options: AssertionsOptions<NodeCredential> & { readonly ownAccount: OwnAccount },
): AssertionProofs<NodeCredential> {
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

function openAssertions<C extends { readonly audience: string }>(
  { client, clock, isNeeded, timeoutMs = 5_000, maxKept = 256 }: AssertionsOptions<C>,
  subjects: Subjects<C>,
): AssertionProofs<C> {
  const kept = new KeptAssertions<Owner<C>>(clock, maxKept);
  const calls = new SharedCalls<ServiceAccountTokenOutcome>();

  function ownerOf(credential: C, pod: PodName | undefined): Owner<C> {
    return { key: subjects.key(credential), podUid: pod?.uid ?? '', credential };
  }

  function mayBeKept({ credential, podUid }: Owner<C>): boolean {
    return (subjects.podOf(credential)?.uid ?? '') === podUid && isNeeded(credential);
  }

  async function ask(owner: Owner<C>, { serviceAccount, pod }: Subject) {
    const sentAtMs = clock.monotonicMs();
    const { audience } = owner.credential;
    const request = { serviceAccount, audience, expirationSeconds, boundTo: pod };
    const outcome = await requestServiceAccountToken(client, request, { timeoutMs });
    if (outcome.kind === 'ok' && mayBeKept(owner)) kept.put(owner, outcome, sentAtMs);
    return outcome;
  }

  /** Up to its request to the API server it is one step: no pod comes or goes in between. */
  async function proofOf(
    credential: C,
    subject: Subject | SourceFailure,
    signal: AbortSignal,
  ): Promise<ProofResult> {
    if ('reason' in subject) {
      kept.drop(subjects.key(credential));
      return { ok: false, failure: subject };
    }
    const owner = ownerOf(credential, subject.pod);
    const assertion = kept.get(owner);
    if (assertion !== undefined) return { ok: true, proof: { clientAssertion: assertion } };
    const outcome = await calls.share(callKeyOf(owner), () => ask(owner, subject), signal);
    if (outcome.kind === 'ok') return { ok: true, proof: { clientAssertion: outcome.token } };
    const { audience } = credential;
    return { ok: false, failure: failureOfToken(outcome, { ...subject, audience }) };
  }

  return {
    async get(credential, signal) {
      const found = subjects.find(credential, signal);
      return proofOf(credential, found instanceof Promise ? await found : found, signal);
    },
    /** A call under way will bring another than the one that was refused. */
    forget(credential) {
      const owner = ownerOf(credential, subjects.podOf(credential));
      return kept.drop(owner.key) || calls.has(callKeyOf(owner));
    },
    get kept() {
      return kept.size;
    },
    dropUnneeded() {
      kept.dropAll((owner) => !mayBeKept(owner));
    },
    [Symbol.dispose]() {
      kept[Symbol.dispose]();
    },
  };
}

function callKeyOf({ key, podUid }: AssertionOwner): string {
  return JSON.stringify([key, podUid]);
}
