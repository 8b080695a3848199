/**
 * Assertions, made by the API server and kept in memory, each for as long as it is sure to be
 * accepted. One request at a time for each; a failure is not kept here.
 *
 * Two clocks: the monotonic one counts the life that was granted, from before it was asked for; the
 * wall clock is compared with the expiry the token itself names. Both must allow it. So neither a
 * step of the wall clock nor a machine that slept lends an assertion any life; a wall clock that is
 * ahead costs a request and no more.
 */
import type { Clock } from '../../../../cache/clock.ts';
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import { ExpiringMap } from '../../../base/expiring-map.ts';
import { SingleFlight } from '../../../base/single-flight.ts';
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

/** Whose token an assertion is, and the pod that it is bound to. */
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
  /** Empty for none. */
  readonly podUid: string;
  readonly clientCredential: ClientCredential;
  readonly usableUntilWallMs: number;
}

/**
 * An assertion has to live until Entra ID has looked at it: after a fetch with its tries, by a
 * clock that agrees with the API server's to within minutes. Five are what Entra ID's own libraries
 * leave a token. A short-lived one serves half of its life.
 */
const marginMs = 5 * 60_000;
/** What is asked for; the server decides. An hour is Kubernetes' own default. */
const expirationSeconds = 3600;
/** Of one request to the API server. */
const timeoutMs = 5_000;

/** One assertion per key. */
export function openAssertions<C extends { readonly audience: string }>(
  { client, clock, isNeeded, maxKept = 256 }: AssertionsOptions<C>,
  { key: keyOf, find, podOf }: Subjects<C>,
): AssertionCredentials<C> {
  const kept = new ExpiringMap<Kept<C>>(clock, maxKept);
  const calls = new SingleFlight<Asked>();
  /** Refused, they may have outlived what they say. */
  const everKept = new WeakSet<ClientCredential>();

  function mayBeKept({ credential, podUid }: Pick<Kept<C>, 'credential' | 'podUid'>): boolean {
    return uidOf(podOf(credential)) === podUid && isNeeded(credential);
  }

  /** @param sentAtMs monotonic milliseconds of when the token was asked for. */
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

  /** Up to its request to the API server it is one step: no pod comes or goes in between. */
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

// As JSON no two lists of texts read the same, whatever the texts hold.
function callKey(key: string, podUid: string): string {
  return JSON.stringify([key, podUid]);
}
