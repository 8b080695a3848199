/**
 * For each identity in use: what its source last refused it with, when, and since when. Log, Events,
 * explanation and metrics report this one fact. It ends with a token of the identity, and when no pod
 * of this node may use it any more.
 *
 * Not a refusal of the identity is one of a resource that it never had a token for, which a pod may
 * invent, and one or two refusals of a federated credential, which Entra ID makes by mistake.
 */
import { loggableResource } from '../../base/log.ts';
import type { Clock } from '../../base/time/clock.ts';
import { dropOfLargestOwner } from '../../cache/token/drop-of-largest-owner.ts';
import { identityKey } from '../grants/cache-key.ts';
import type { IdentitiesInUse, IdentityOwner } from '../grants/identities-in-use.ts';
import type { FailureReason, SourceFailure, SourceResult } from '../sources/source.ts';
import type { UpstreamIdentity } from '../sources/upstream-identity.ts';
import { failureOfLeg } from './leg-failure.ts';

/** Where the fix is: at the identity, its credential and its assignment, or at the platform. */
export type Cause = 'object' | 'platform';

export function causeOf(reason: FailureReason): Cause {
  return reason === 'upstream_down' || reason === 'upstream_throttled' ? 'platform' : 'object';
}

export interface SourceRefusal {
  readonly identity: UpstreamIdentity;
  readonly resource: string;
  /** Its text contains no resource that a pod may have invented. */
  readonly failure: SourceFailure;
  /** The first one in a row, and the last one. */
  readonly sinceWallMs: number;
  readonly lastWallMs: number;
}

/**
 * Whether people are to hear of it. A short break of the platform is a matter for log and metric alone while cached
 * tokens serve.
 *
 * @param leftMs of the tokens in memory.
 */
export function isReported(
  { failure, sinceWallMs }: SourceRefusal,
  leftMs: number,
  nowWallMs: number,
  breakMs: number,
): boolean {
  return causeOf(failure.reason) === 'object' || leftMs <= 0 || nowWallMs - sinceWallMs >= breakMs;
}

export interface RefusalObserver {
  onRefused(owner: IdentityOwner, refusal: SourceRefusal): void;
  /** Nothing that the owner needs is refused any more. */
  onAccepted(owner: IdentityOwner): void;
}

export interface RefusedFetch {
  readonly identity: UpstreamIdentity;
  readonly resource: string;
  /** A token for this resource is in memory. */
  readonly hasToken: boolean;
}

/** Each is about 2 KB. */
const maxRefusals = 2_000;
const maxDescription = 1_000;
/** Tokens in use are requested again every five minutes. */
const passesMs = 15 * 60_000;

const ofResource: ReadonlySet<FailureReason> = new Set(['resource_refused', 'upstream_refused']);
const passing: ReadonlySet<FailureReason> = new Set([
  ...ofResource,
  'upstream_down',
  'upstream_throttled',
]);

export class SourceRefusals {
  readonly #clock: Clock;
  readonly #demand: Pick<IdentitiesInUse, 'ownersOf' | 'isGranted' | 'isOwner'>;
  readonly #observer: RefusalObserver;
  /** By key of the identity, the oldest refusal first. */
  readonly #refusals = new Map<string, SourceRefusal>();
  /** By uid: their acceptance is to be reported, also after a change of the object. */
  readonly #refused = new Map<string, IdentityOwner>();

  constructor(
    clock: Clock,
    demand: Pick<IdentitiesInUse, 'ownersOf' | 'isGranted' | 'isOwner'>,
    observer: RefusalObserver,
  ) {
    this.#clock = clock;
    this.#demand = demand;
    this.#observer = observer;
  }

  get isEmpty(): boolean {
    return this.#refusals.size === 0 && this.#refused.size === 0;
  }

  /**
   * Undefined for an identity whose last token came, or whose failure has passed.
   *
   * @param resource for which a token is wanted: another one may be refused alone.
   */
  of(key: string, resource?: string): SourceRefusal | undefined {
    const refusal = this.#refusals.get(key);
    if (refusal === undefined || !passing.has(refusal.failure.reason)) return refusal;
    const isOther = resource !== undefined && resource !== refusal.resource;
    if (isOther && ofResource.has(refusal.failure.reason)) return undefined;
    return this.#clock.wallMs() - refusal.lastWallMs < passesMs ? refusal : undefined;
  }

  *keys(): Iterable<string> {
    for (const key of this.#refusals.keys()) if (this.of(key) !== undefined) yield key;
  }

  note(fetched: RefusedFetch, result: SourceResult): void {
    const key = identityKey(fetched.identity);
    if (result.ok) this.#accept(key, fetched);
    else if (this.#counts(fetched, result.failure)) this.#refuse(key, fetched, result.failure);
  }

  /** Forgets what no pod uses any more. */
  drop(): void {
    for (const [key, { identity }] of this.#refusals) {
      if (!this.#demand.isGranted(identity)) this.#refusals.delete(key);
    }
    for (const uid of this.#refused.keys()) {
      if (!this.#demand.isOwner(uid)) this.#refused.delete(uid);
    }
  }

  #counts({ identity, hasToken }: RefusedFetch, { reason }: SourceFailure): boolean {
    if (reason === 'federation_pending' || (ofResource.has(reason) && !hasToken)) return false;
    return this.#demand.isGranted(identity);
  }

  #refuse(key: string, { identity, resource }: RefusedFetch, failure: SourceFailure): void {
    const lastWallMs = this.#clock.wallMs();
    const sinceWallMs = this.of(key)?.sinceWallMs ?? lastWallMs;
    const description = withoutSecret(failure.description, resource).slice(0, maxDescription);
    const refusal = {
      identity,
      resource,
      failure: { ...failure, description },
      sinceWallMs,
      lastWallMs,
    };
    this.#refusals.delete(key);
    this.#refusals.set(key, refusal);
    if (this.#refusals.size > maxRefusals) {
      dropOfLargestOwner(this.#refusals, (_, of) => this.#namespaceOf(of));
    }
    const ofLeg = { ...refusal, failure: failureOfLeg(refusal.failure, identity) };
    for (const { owner, lastKey } of this.#demand.ownersOf(key)) {
      this.#refused.set(owner.uid, owner);
      this.#observer.onRefused(owner, lastKey === key ? refusal : ofLeg);
    }
  }

  #accept(key: string, { resource }: RefusedFetch): void {
    if (this.isEmpty) return;
    const refusal = this.#refusals.get(key);
    // Another resource may be refused still.
    const isOther = refusal !== undefined && refusal.resource !== resource;
    if (isOther && ofResource.has(refusal.failure.reason)) return;
    this.#refusals.delete(key);
    for (const { owner } of this.#demand.ownersOf(key)) {
      if (!this.#refused.has(owner.uid) || this.#isRefused(owner)) continue;
      this.#refused.delete(owner.uid);
      this.#observer.onAccepted(owner);
    }
  }

  #isRefused({ uid }: IdentityOwner): boolean {
    return [...this.keys()].some((key) =>
      this.#demand.ownersOf(key).some(({ owner }) => owner.uid === uid),
    );
  }

  #namespaceOf(key: string): string {
    return this.#demand.ownersOf(key)[0]?.owner.namespace ?? '';
  }
}

/** Entra ID repeats the resource. A value that does not look like a resource may be a secret. */
function withoutSecret(text: string, resource: string): string {
  return resource === '' ? text : text.replaceAll(resource, loggableResource(resource));
}
