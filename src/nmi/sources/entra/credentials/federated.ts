/**
 * Assertions for federated identities: tokens of service accounts, made by the API server for the
 * audience that Entra ID expects. Nothing secret is configured and nothing is assigned to the node.
 *
 * 1. Pod mode: the subject is the pod's own service account, and the token is bound to a live pod
 *    of this node that runs under it. Without such a pod there is none, kept or not: the agent
 *    speaks for pods that are here, and for nobody else.
 * 2. Node mode: the subject is the agent's own service account; the token is bound to its pod.
 * 3. Kept per service account, audience and pod, within its life (see `kept-assertions.ts`) and while
 *    an identity needs it. One request at a time for each; a failure is not kept here.
 */
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import type { Clock } from '../../../../cache/clock.ts';
import type { AgentAccount, OwnAccount } from '../../../kube/accounts/own-account.ts';
import { SharedCalls } from '../../../base/single-flight.ts';
import {
  requestServiceAccountToken,
  type JsonPoster,
  type PodName,
  type ServiceAccountTokenOutcome,
} from '../../../kube/accounts/token-request.ts';
import { failureOfAccount, failureOfToken, noLivePod } from './federated-failure.ts';
import { KeptAssertions, type AssertionOwner } from './assertion-cache.ts';
import type { IdentityWith, ProofProvider, ProofResult } from './client-credential.ts';

/** A pod of this node that has not ended. */
export type LivePod = PodName;

export interface FederatedProofsOptions {
  readonly client: JsonPoster;
  readonly clock: Clock;
  readonly ownAccount: OwnAccount;
  /**
   * One that runs under the service account: best the same one for as long as it lives, as another
   * pod costs another token.
   */
  readonly livePodOf: (serviceAccount: ObjectName) => LivePod | undefined;
  /** Whether some identity is proven by it now. Default: always. */
  readonly isNeeded?: (credential: FederatedCredential) => boolean;
  /** Of one request to the API server. */
  readonly timeoutMs?: number;
  readonly maxKept?: number;
}

export interface FederatedProofs extends Disposable {
  readonly pod: ProofProvider<'federated_pod'>;
  readonly node: ProofProvider<'federated_node'>;
  /** For metrics and tests. */
  readonly kept: number;
  /**
   * Forgets what is bound to pods that are gone and what no identity needs; to be called when either
   * may have changed.
   */
  dropUnneeded(): void;
}

type FederatedCredential = IdentityWith<'federated_pod' | 'federated_node'>['credential'];

/** What is asked for; the server decides. An hour is Kubernetes' own default. */
const expirationSeconds = 3600;

interface Subject extends AssertionOwner {
  readonly serviceAccount: ObjectName;
  readonly audience: string;
  readonly pod: PodName | undefined;
  /** The pod has to be the live one; the agent's own always is. */
  readonly isOfPod: boolean;
}

export function openFederatedProofs(options: FederatedProofsOptions): FederatedProofs {
  const { client, clock, ownAccount, livePodOf, isNeeded = () => true } = options;
  const { timeoutMs = 5_000, maxKept = 256 } = options;
  const kept = new KeptAssertions<Subject>(clock, maxKept);
  const calls = new SharedCalls<ServiceAccountTokenOutcome>();

  function mayBeKept({ isOfPod, serviceAccount, audience, podUid }: Subject): boolean {
    if (!isOfPod) return isNeeded({ kind: 'federated_node', audience });
    return (
      livePodOf(serviceAccount)?.uid === podUid &&
      isNeeded({ kind: 'federated_pod', serviceAccount, audience })
    );
  }

  async function ask(subject: Subject): Promise<ServiceAccountTokenOutcome> {
    const { serviceAccount, audience, pod } = subject;
    const sentAtMs = clock.monotonicMs();
    const request = { serviceAccount, audience, expirationSeconds, boundTo: pod };
    const outcome = await requestServiceAccountToken(client, request, { timeoutMs });
    if (outcome.kind === 'ok' && mayBeKept(subject)) kept.put(subject, outcome, sentAtMs);
    return outcome;
  }

  async function proofOf(subject: Subject, signal: AbortSignal): Promise<ProofResult> {
    const assertion = kept.get(subject);
    if (assertion !== undefined) return { ok: true, proof: { kind: 'assertion', assertion } };
    const outcome = await calls.share(callKeyOf(subject), () => ask(subject), signal);
    if (outcome.kind === 'ok') {
      return { ok: true, proof: { kind: 'assertion', assertion: outcome.token } };
    }
    return { ok: false, failure: failureOfToken(outcome, subject) };
  }

  /** A call under way will bring another than the one that was refused. */
  function forget(key: string, podUid: string): boolean {
    return kept.drop(key) || calls.has(callKeyOf({ key, podUid }));
  }

  const pod: ProofProvider<'federated_pod'> = {
    async get({ credential }, signal) {
      const subject = subjectOfPod(credential, livePodOf(credential.serviceAccount));
      if (subject !== undefined) return proofOf(subject, signal);
      kept.drop(podKeyOf(credential));
      return { ok: false, failure: noLivePod(credential.serviceAccount) };
    },
    forget({ credential }) {
      const uid = livePodOf(credential.serviceAccount)?.uid ?? '';
      return forget(podKeyOf(credential), uid);
    },
  };

  const node: ProofProvider<'federated_node'> = {
    async get({ credential: { audience } }, signal) {
      const account = await ownAccount.get(signal);
      if (account.kind !== 'ok') return { ok: false, failure: failureOfAccount(account) };
      return proofOf(subjectOfNode(account, audience), signal);
    },
    forget({ credential: { audience } }) {
      return forget(nodeKeyOf(audience), ownAccount.known?.pod?.uid ?? '');
    },
  };

  return {
    pod,
    node,
    get kept() {
      return kept.size;
    },
    dropUnneeded() {
      kept.dropAll((subject) => !mayBeKept(subject));
    },
    [Symbol.dispose]() {
      kept[Symbol.dispose]();
    },
  };
}

type PodCredential = IdentityWith<'federated_pod'>['credential'];

function subjectOfPod(credential: PodCredential, pod: LivePod | undefined): Subject | undefined {
  if (pod === undefined) return undefined;
  const { serviceAccount, audience } = credential;
  const key = podKeyOf(credential);
  return { key, podUid: pod.uid, serviceAccount, audience, pod, isOfPod: true };
}

function subjectOfNode({ serviceAccount, pod }: AgentAccount, audience: string): Subject {
  const podUid = pod?.uid ?? '';
  return { key: nodeKeyOf(audience), podUid, serviceAccount, audience, pod, isOfPod: false };
}

// As JSON no two lists of texts read the same, whatever the texts hold.
function podKeyOf({ serviceAccount, audience }: PodCredential): string {
  return JSON.stringify([serviceAccount.namespace, serviceAccount.name, audience]);
}

function nodeKeyOf(audience: string): string {
  return JSON.stringify([audience]);
}

function callKeyOf({ key, podUid }: AssertionOwner): string {
  return JSON.stringify([key, podUid]);
}
