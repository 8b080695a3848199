/**
 * Assertions, issued by the API server and cached in memory, each as long as it is sure to be
 * accepted. One request at a time for each; failures are not cached here.
 *
 * Two clocks: the monotonic clock counts the granted life, from before the request; the wall clock
 * is compared with the expiry in the token itself. Both must allow it. So neither a step of the
 * wall clock nor a suspended machine extends an assertion's life; a wall clock that is ahead only
 * costs a request.
 */
import type { Clock } from '../../../../base/time/clock.ts';
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import { ExpiringMap } from '../../../../base/expiring-map.ts';
import { SingleFlight } from '../../../../base/single-flight.ts';
import {
  requestServiceAccountToken,
  type JsonPoster,
  type PodName,
  type ServiceAccountToken,
  type ServiceAccountTokenOutcome,
} from '../../../kube/accounts/token-request.ts';
import type { SourceFailure } from '../../source.ts';
import type {
  ClientCredential,
  CredentialContext,
  CredentialProvider,
  ClientCredentialResult,
} from './descriptor.ts';
import { failureOfToken } from './federated-failure.ts';

/** The service account of an assertion, and the pod that it is bound to. */
interface Subject {
  readonly serviceAccount: ObjectName;
  readonly pod: PodName | undefined;
}

type Found = Subject | SourceFailure;

/** How the subject of a credential is found. */
export interface Subjects<C> {
  readonly key: (credential: C) => string;
  readonly find: (credential: C, signal: AbortSignal) => Found | Promise<Found>;
  /** The pod that a token is bound to now; undefined for none. */
  readonly podOf: (credential: C) => PodName | undefined;
}

export interface AssertionsOptions<C> {
  readonly client: JsonPoster;
  readonly clock: Clock;
  readonly isNeeded: CredentialContext<C>['isNeeded'];
  readonly maxKept?: number;
}

export interface AssertionCredentials<C> extends CredentialProvider<C> {
  /** For tests. */
  readonly kept: number;
}

type Asked =
  | { readonly kind: 'clientCredential'; readonly clientCredential: ClientCredential }
  | Exclude<ServiceAccountTokenOutcome, { kind: 'ok' }>;

interface Kept<C> {
  readonly credential: C;
  /** Empty without a pod. */
  readonly podUid: string;
  readonly clientCredential: ClientCredential;
  readonly usableUntilWallMs: number;
}

/**
 * An assertion has to live until Entra ID has checked it: after a fetch with its tries, by a clock
 * that agrees with the API server's to within minutes. Entra ID's own libraries leave a token five
 * minutes. A short-lived one is used for half of its life.
 */
const marginMs = 5 * 60_000;
/** The requested lifetime; the server decides. An hour is Kubernetes' own default. */
const expirationSeconds = 3600;
/** For one request to the API server. */
const timeoutMs = 5_000;

/** One assertion per key. */
export function openAssertions<C extends { readonly audience: string }>(
  { client, clock, isNeeded, maxKept = 256 }: AssertionsOptions<C>,
  { key: keyOf, find, podOf }: Subjects<C>,
): AssertionCredentials<C> {
  const kept = new ExpiringMap<Kept<C>>(clock, maxKept);
  const calls = new SingleFlight<Asked>();
  /** Assertions that were cached. When one is refused, it may have expired since. */
  const everKept = new WeakSet<ClientCredential>();

  function mayBeKept({ credential, podUid }: Pick<Kept<C>, 'credential' | 'podUid'>): boolean {
    return uidOf(podOf(credential)) === podUid && isNeeded(credential);
  }

  /** @param sentAtMs monotonic milliseconds when the token was requested. */
  function keep(
    credential: C,
    podUid: string,
    {
      token,
      clientCredential,
    }: { readonly token: ServiceAccountToken; readonly clientCredential: ClientCredential },
    sentAtMs: number,
  ): void {
    const spareMs = Math.min(marginMs, token.lifeMs / 2);
    const usableUntilWallMs = token.expiresAtWallMs - spareMs;
    const usableForMs = sentAtMs + token.lifeMs - spareMs - clock.monotonicMs();
    if (usableForMs <= 0 || clock.wallMs() >= usableUntilWallMs) return;
    const entry = { credential, podUid, clientCredential, usableUntilWallMs };
    if (!mayBeKept(entry)) return;
    kept.set(keyOf(credential), entry, usableForMs);
    everKept.add(clientCredential);
  }

  async function ask(credential: C, { serviceAccount, pod }: Subject): Promise<Asked> {
    const sentAtMs = clock.monotonicMs();
    const { audience } = credential;
    const request = { serviceAccount, audience, expirationSeconds, boundTo: pod };
    const outcome = await requestServiceAccountToken(client, request, { timeoutMs });
    if (outcome.kind !== 'ok') return outcome;
    const clientCredential = { clientAssertion: outcome.token };
    keep(credential, uidOf(pod), { token: outcome, clientCredential }, sentAtMs);
    return { kind: 'clientCredential', clientCredential };
  }

  /** Synchronous up to its request to the API server: no pod is added or removed in between. */
  async function prove(
    credential: C,
    found: Found,
    signal: AbortSignal,
  ): Promise<ClientCredentialResult> {
    const key = keyOf(credential);
    if ('reason' in found) {
      kept.delete(key);
      return { ok: false, failure: found };
    }
    const podUid = uidOf(found.pod);
    const entry = kept.get(key);
    if (entry?.podUid === podUid && clock.wallMs() < entry.usableUntilWallMs) {
      return { ok: true, clientCredential: entry.clientCredential };
    }
    const call = callKey(key, podUid);
    const outcome = await calls.share(call, () => ask(credential, found), signal);
    if (outcome.kind === 'clientCredential')
      return { ok: true, clientCredential: outcome.clientCredential };
    const { audience } = credential;
    return { ok: false, failure: failureOfToken(outcome, { ...found, audience }) };
  }

  return {
    async get(credential, signal) {
      const found = find(credential, signal);
      return prove(credential, found instanceof Promise ? await found : found, signal);
    },
    forget(credential, refused) {
      const key = keyOf(credential);
      const entry = kept.get(key);
      if (entry?.clientCredential === refused) kept.delete(key);
      return everKept.has(refused) || calls.has(callKey(key, uidOf(podOf(credential))));
    },
    get kept() {
      return kept.size;
    },
    dropUnneeded() {
      kept.deleteWhere((entry) => !mayBeKept(entry));
    },
    [Symbol.dispose]() {
      kept[Symbol.dispose]();
    },
  };
}

function uidOf(pod: PodName | undefined): string {
  return pod?.uid ?? '';
}

// As JSON, two different lists of strings never have the same text.
function callKey(key: string, podUid: string): string {
  return JSON.stringify([key, podUid]);
}
