/**
 * `/metadata/identity/oauth2/token`: from a checked request to an answer.
 *
 * A hit is synchronous: query, caller, grant, cache, answer in one turn. A request that waits for a
 * watch event or for the upstream is decided again afterwards: the cluster may have changed. A
 * decision that is still valid is reused.
 */
import type { Clock } from '../../base/time/clock.ts';
import type { CacheOutcome } from '../../cache/token/cache.ts';
import type { RequestedId, RenderedToken } from '../../cache/token/token.ts';
import { answerToken, refuse, type Answer, type DescribedReason } from '../base/answers.ts';
import type { Grant, Granted, ByObjectId, RefusedPod } from '../grants/grant.ts';
import type { GrantState } from '../grants/decide-grant.ts';
import { limitKeyOf, partyOf } from '../callers/caller.ts';
import type { Exchange, HttpExchange, TokenDecision } from './request.ts';
import { grantedSinceWallMs } from '../grants/grant-age.ts';
import type { GrantPolicy } from '../grants/choose-identity.ts';
import type { DecisionCache } from './decision-cache.ts';
import { waitForObject, type ObjectWait } from './wait-for-object.ts';
import { renderFailure, renderRefusal } from '../grants/refusal-text.ts';
import type { SourceFailure } from '../sources/source.ts';
import type { UpstreamIdentity } from '../sources/upstream-identity.ts';
import { askedIdOf, wantsOtherToken, type TokenQuery } from './token-query.ts';
import type { CachedToken, TokenBroker } from '../tokens/broker.ts';
import { identityKey, tokenKey } from '../grants/cache-key.ts';

export interface TokenEndpointOptions {
  readonly clusterState: Pick<GrantState, 'grants'>;
  readonly decisions: DecisionCache;
  readonly broker: Pick<TokenBroker, 'peek' | 'get' | 'renew' | 'replace' | 'objectIdOf'>;
  readonly policy: GrantPolicy;
  readonly objectWait: ObjectWait;
  readonly clock: Clock;
}

/** An answer, and how it came about. */
export interface TokenAnswer extends Answer {
  readonly decision: TokenDecision;
}

/**
 * One request for a pod, identified by its connection or otherwise, and how its answer is rendered.
 */
export interface TokenJob {
  readonly exchange: Exchange;
  readonly query: TokenQuery;
  /** By the current objects; called again whenever these may have changed. */
  readonly findGrant: () => Grant;
  readonly render: (
    rendered: RenderedToken,
    auxiliary: readonly RenderedToken[],
    grant: Granted,
  ) => Answer;
}

/** How often the cluster may change during one request before the request is refused. */
const maxTurns = 4;

/**
 * How long one request searches for an identity by its object id: as long as one fetch may take.
 */
const maxResolveMs = 10_000;

export class TokenEndpoint {
  readonly #options: TokenEndpointOptions;

  constructor(options: TokenEndpointOptions) {
    this.#options = options;
  }

  /** The route, method and header checks have passed. */
  handle(exchange: HttpExchange): TokenAnswer | Promise<TokenAnswer> {
    const { caller, target, startedAtMs } = exchange;
    const { decisions, clock } = this.#options;
    const decided = decisions.decide(caller, target, startedAtMs);
    if ('kind' in decided) return refuseQuery(decided.reason, decided.detail);
    const { query, grant } = decided;
    const job: TokenJob = {
      exchange,
      query,
      findGrant: () => decisions.decideFor(caller, target, query, clock.monotonicMs()).grant,
      render: (rendered, auxiliary) =>
        answerToken(bodyOf(rendered, auxiliary, clock.wallMs(), askedIdOf(query))),
    };
    return this.serve(job, grant);
  }

  /**
   * Serves one request: at once if the token is in memory, else after waiting for it.
   * @param grant found just now.
   */
  serve(job: TokenJob, grant: Grant): TokenAnswer | Promise<TokenAnswer> {
    if (grant.kind === 'granted') {
      const found = this.#peek(job, grant);
      if (found !== undefined) return close(job, found);
    } else if (grant.kind === 'refused' && !grant.isPending) {
      return close(job, { grant, answer: renderRefusal(grant) });
    }
    return this.#serveSlowly(job, grant);
  }

  /** The answer from memory alone. */
  #peek(job: TokenJob, grant: Granted): Found | undefined {
    const { broker } = this.#options;
    const { resource } = job.query;
    if (wantsOtherToken(job.query)) return undefined;
    const rendered = broker.peek(tokenKey(grant.upstream, resource));
    if (rendered === undefined) return undefined;
    const auxiliary: RenderedToken[] = [];
    for (const identity of grant.auxiliary) {
      const other = broker.peek(tokenKey(identity, resource));
      if (other === undefined) return undefined;
      auxiliary.push(other);
    }
    const { fetchId } = rendered.token;
    return { grant, answer: job.render(rendered, auxiliary, grant), cache: 'hit', fetchId };
  }

  /** @param latest grant, found just now. */
  async #serveSlowly(job: TokenJob, latest: Grant): Promise<TokenAnswer> {
    const { objectWait } = this.#options;
    const { resource } = job.query;
    let grant = latest;
    for (let turn = 0; turn < maxTurns; turn++) {
      grant = await waitForObject(objectWait, job.exchange, grant, job.findGrant);
      if (grant.kind === 'refused') return close(job, { grant, answer: renderRefusal(grant) });
      const endFetch = objectWait.limits.beginFetch(
        limitKeyOf(grant.pod),
        `${describeWanted(grant)}\n${resource}`,
      );
      if (endFetch === undefined) return close(job, { grant, answer: throttled });
      let found: Found;
      try {
        found = await this.#find(job, grant);
      } finally {
        endFetch();
      }
      // The pod, its label, a binding or the identity may have been deleted since: the cache never
      // grants.
      const grantNow = job.findGrant();
      if (isSame(grant, grantNow)) return close(job, found);
      grant = grantNow;
    }
    return close(job, { grant, answer: changing });
  }

  async #find(job: TokenJob, grant: Granted | ByObjectId): Promise<Found> {
    const { resource, bypassCache, badTokenSha256 } = job.query;
    const chosen = grant.kind === 'by-object-id' ? await this.#resolve(job, grant) : grant;
    if (!('kind' in chosen)) return { grant, answer: chosen };
    if (chosen.kind === 'refused') return { grant: chosen, answer: renderRefusal(chosen) };
    const { broker } = this.#options;
    const party = partyOf(grant.pod);
    const get = (identity: UpstreamIdentity): Promise<CachedToken> => {
      if (bypassCache) return broker.renew(identity, resource, party);
      if (badTokenSha256 === undefined) return broker.get(identity, resource, party);
      return broker.replace(identity, resource, party, badTokenSha256);
    };
    const [cached, ...others] = await Promise.all([
      get(chosen.upstream),
      ...chosen.auxiliary.map(get),
    ]);
    const auxiliary: RenderedToken[] = [];
    for (const each of [cached, ...others]) {
      if (!each.ok) {
        const { failure, outcome: cache } = each;
        const answer = this.#renderFailure(failure, chosen);
        return { grant: chosen, answer, cache, fetchId: failure.fetchId };
      }
      if (each !== cached) auxiliary.push(each.rendered);
    }
    if (!cached.ok) throw new TypeError('a failure was passed over');
    const { rendered, outcome: cache } = cached;
    const answer = job.render(rendered, auxiliary, chosen);
    return { grant: chosen, answer, cache, fetchId: rendered.token.fetchId };
  }

  #renderFailure(failure: SourceFailure, grant: Granted): Answer {
    const { clusterState, clock, policy } = this.#options;
    const ageMs = clock.wallMs() - grantedSinceWallMs(grant, clusterState.grants);
    return renderFailure(failure, grant, ageMs, policy.graceMs);
  }

  /**
   * Finds the pod's identity with an object id, by the `oid` claim of tokens that the pod is
   * entitled to anyway. It never requests tokens of identities that the pod is not bound to. It
   * stops at the first candidate whose upstream is away: the answer may change, and the others would
   * fail alike. It also stops at its deadline; the next request continues with the object ids
   * found by then.
   */
  async #resolve(job: TokenJob, grant: ByObjectId): Promise<Granted | RefusedPod | Answer> {
    const { broker, clock } = this.#options;
    const party = partyOf(grant.pod);
    const deadlineMs = job.exchange.startedAtMs + maxResolveMs;
    let pending: Answer | undefined;
    for (const candidate of grant.candidates) {
      if (broker.objectIdOf(candidate.upstream) === undefined) {
        if (clock.monotonicMs() >= deadlineMs) return unresolved;
        const cached = await broker.get(candidate.upstream, job.query.resource, party);
        const isPassing = !cached.ok && isPassingFailure(cached.failure);
        if (isPassing || job.exchange.isGone) {
          return cached.ok ? changing : this.#renderFailure(cached.failure, candidate);
        }
        if (!cached.ok && cached.failure.refusals?.isFinal === false) {
          pending ??= this.#renderFailure(cached.failure, candidate);
        }
      }
      if (broker.objectIdOf(candidate.upstream) === grant.objectId) return candidate;
    }
    if (pending !== undefined) return pending;
    const { pod, objectId } = grant;
    return {
      kind: 'refused',
      reason: 'selector_not_bound',
      facts: { about: 'object-id', objectId },
      isPending: false,
      pod,
    };
  }
}

/** Result of a request, before it is known whether its grant is still valid. */
interface Found {
  readonly grant: Grant | undefined;
  readonly answer: Answer;
  readonly cache?: CacheOutcome | 'none';
  readonly fetchId?: string | undefined;
}

/** Refuses a request for its parameters, before any grant is looked up. */
export function refuseQuery(reason: DescribedReason, detail: string): TokenAnswer {
  return {
    ...refuse(reason, detail),
    decision: { grant: undefined, resource: '', cache: 'none', fetchId: undefined },
  };
}

function close(
  { query: { resource } }: TokenJob,
  { grant, answer, cache = 'none', fetchId }: Found,
): TokenAnswer {
  return { ...answer, decision: { grant, resource, cache, fetchId } };
}

function describeWanted(grant: Granted | ByObjectId): string {
  if (grant.kind === 'by-object-id') return `object ${grant.objectId}`;
  return `identity ${identityKey(grant.upstream)}`;
}

function isPassingFailure(failure: SourceFailure): boolean {
  return failure.reason === 'upstream_down' || failure.reason === 'upstream_throttled';
}

const throttled = refuse(
  'caller_throttled',
  'This pod waits for too many different tokens at once. Retry when some have come.',
);

const unresolved = refuse(
  'agent_not_synced',
  "The object ids of this pod's identities are not all known yet. Retry.",
);

const changing = refuse('agent_not_synced', 'The objects of this pod keep changing. Retry.');

/** The same pod still has the same grant. */
function isSame(before: Grant, after: Grant): boolean {
  if (before.kind === 'refused' || after.kind === 'refused') return false;
  if (before.pod.uid !== after.pod.uid) return false;
  if (before.kind === 'by-object-id') {
    return (
      after.kind === 'by-object-id' &&
      before.objectId === after.objectId &&
      before.candidates.length === after.candidates.length &&
      before.candidates.every((each, index) => {
        const other = after.candidates[index];
        return other !== undefined && isSameUpstream(each, other);
      })
    );
  }
  return after.kind === 'granted' && isSameUpstream(before, after);
}

function isSameUpstream(before: Granted, after: Granted): boolean {
  if (before.identity?.uid !== after.identity?.uid) return false;
  const keys = ({ upstream, auxiliary }: Granted): string =>
    [upstream, ...auxiliary].map(identityKey).join('\n');
  return keys(before) === keys(after);
}

/** An array with the auxiliary tenants' tokens after the first, as in the replaced system. */
function bodyOf(
  rendered: RenderedToken,
  auxiliary: readonly RenderedToken[],
  nowWallMs: number,
  requestedId: RequestedId | undefined,
): string {
  const body = rendered.body(nowWallMs, requestedId);
  if (auxiliary.length === 0) return body;
  return `[${[body, ...auxiliary.map((each) => each.body(nowWallMs))].join(',')}]`;
}
