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
import { answerToken, refuse, type Answer } from '../base/answers.ts';
import type { Authorization, Authorized, ByObjectId, RefusedPod } from '../grants/authorization.ts';
import type { GrantState } from '../grants/authorize.ts';
import { limitKeyOf, partyOf } from '../callers/caller.ts';
import type { Observer, TokenRoute } from './observer.ts';
import type { Exchange, HttpExchange } from './request.ts';
import { grantedSinceWallMs } from '../grants/grant-age.ts';
import type { GrantPolicy } from '../grants/grant.ts';
import type { DecisionCache } from './decision-cache.ts';
import { waitForObject, type ObjectWait } from './wait-for-object.ts';
import { renderFailure, renderRefusal } from '../grants/refusal-text.ts';
import type { SourceFailure } from '../sources/source.ts';
import { sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';
import { askedIdOf, wantsOtherToken, type TokenQuery } from './token-query.ts';
import type { CachedToken, TokenBroker } from '../tokens/broker.ts';
import { identityKey } from '../grants/cache-key.ts';

export interface TokenEndpointOptions {
  readonly clusterState: Pick<GrantState, 'grants'>;
  readonly rights: DecisionCache;
  readonly broker: Pick<TokenBroker, 'peek' | 'get' | 'renew' | 'replace' | 'objectIdOf'>;
  readonly policy: GrantPolicy;
  readonly objectWait: ObjectWait;
  readonly clock: Clock;
  readonly observer: Pick<Observer, 'onDecision'>;
}

/**
 * One request for a pod, identified by its connection or otherwise, and how its answer is rendered.
 */
export interface TokenJob {
  readonly exchange: Exchange;
  readonly route: TokenRoute;
  readonly query: TokenQuery;
  /** The authorization by the current objects; called again whenever these may have changed. */
  readonly decide: () => Authorization;
  readonly render: (
    rendered: RenderedToken,
    auxiliary: readonly RenderedToken[],
    authorized: Authorized,
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
  handle(exchange: HttpExchange): Answer | Promise<Answer> {
    const { caller, target, startedAtMs, handed } = exchange;
    const { rights, clock } = this.#options;
    const decided = rights.decide(caller, target, startedAtMs, handed);
    if ('kind' in decided) {
      return this.refuse(exchange, 'token', refuse(decided.reason, decided.detail));
    }
    const { query, authorization } = decided;
    const job: TokenJob = {
      exchange,
      route: 'token',
      query,
      decide: () => rights.authorize(caller, target, query, clock.monotonicMs()).authorization,
      render: (rendered, auxiliary) =>
        answerToken(bodyOf(rendered, auxiliary, clock.wallMs(), askedIdOf(query))),
    };
    return this.serve(job, authorization);
  }

  /** Refuses a request for its parameters, before any authorization. */
  refuse(exchange: Exchange, route: TokenRoute, answer: Answer): Answer {
    const decision = { route, answer, authorization: undefined, resource: '', source: '' };
    this.#options.observer.onDecision(exchange, { ...decision, cache: 'none' });
    return answer;
  }

  /**
   * Serves one request: at once if the token is in memory, else after waiting for it.
   * @param decision made just now.
   */
  serve(job: TokenJob, decision: Authorization): Answer | Promise<Answer> {
    if (decision.kind === 'authorized') {
      const peeked = this.#peek(job, decision);
      if (peeked !== undefined) {
        const { answer, fetchId } = peeked;
        return this.#close(job, decision, answer, 'hit', fetchId);
      }
    } else if (decision.kind === 'refused' && !decision.isPending) {
      return this.#close(job, decision, renderRefusal(decision));
    }
    return this.#serveSlowly(job, decision);
  }

  /** The answer from memory alone. */
  #peek(job: TokenJob, authorized: Authorized): Peeked | undefined {
    const { broker } = this.#options;
    const { resource } = job.query;
    if (wantsOtherToken(job.query)) return undefined;
    const rendered = broker.peek(authorized.upstream, resource);
    if (rendered === undefined) return undefined;
    const { fetchId } = rendered.token;
    const auxiliary: RenderedToken[] = [];
    for (const identity of authorized.auxiliary) {
      const other = broker.peek(identity, resource);
      if (other === undefined) return undefined;
      auxiliary.push(other);
    }
    return { answer: job.render(rendered, auxiliary, authorized), fetchId };
  }

  /** @param latest decision, made just now. */
  async #serveSlowly(job: TokenJob, latest: Authorization): Promise<Answer> {
    const { objectWait } = this.#options;
    const { resource } = job.query;
    let decision = latest;
    for (let turn = 0; turn < maxTurns; turn++) {
      decision = await waitForObject(objectWait, job.exchange, decision, job.decide);
      if (decision.kind === 'refused') return this.#close(job, decision, renderRefusal(decision));
      const endFetch = objectWait.limits.beginFetch(
        limitKeyOf(decision.pod),
        `${describeWanted(decision)}\n${resource}`,
      );
      if (endFetch === undefined) return this.#close(job, decision, throttled());
      let found: Found;
      try {
        found = await this.#find(job, decision);
      } finally {
        endFetch();
      }
      // The pod, its label, a binding or the identity may have been deleted since: the cache never
      // grants.
      const decisionNow = job.decide();
      if (isSame(decision, decisionNow)) {
        return this.#close(job, found.authorization, found.answer, found.cache, found.fetchId);
      }
      decision = decisionNow;
    }
    return this.#close(job, decision, changing());
  }

  async #find(job: TokenJob, decision: Authorized | ByObjectId): Promise<Found> {
    const { resource, bypassCache, badTokenSha256 } = job.query;
    const chosen = decision.kind === 'by-object-id' ? await this.#resolve(job, decision) : decision;
    if (!('kind' in chosen))
      return { authorization: decision, answer: chosen, cache: 'none', fetchId: undefined };
    if (chosen.kind === 'refused') {
      const answer = renderRefusal(chosen);
      return { authorization: chosen, answer, cache: 'none', fetchId: undefined };
    }
    const { broker } = this.#options;
    const party = partyOf(decision.pod);
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
        const answer = this.#renderFailure(each.failure, chosen);
        const { fetchId } = each.failure;
        return { authorization: chosen, answer, cache: each.outcome, fetchId };
      }
      if (each !== cached) auxiliary.push(each.rendered);
    }
    if (!cached.ok) throw new TypeError('a failure was passed over');
    const answer = job.render(cached.rendered, auxiliary, chosen);
    const { fetchId } = cached.rendered.token;
    return { authorization: chosen, answer, cache: cached.outcome, fetchId };
  }

  #renderFailure(failure: SourceFailure, authorized: Authorized): Answer {
    const { clusterState, clock, policy } = this.#options;
    const ageMs = clock.wallMs() - grantedSinceWallMs(authorized, clusterState.grants);
    return renderFailure(failure, authorized, ageMs, policy.graceMs);
  }

  /**
   * Finds the pod's identity with an object id, by the `oid` claim of tokens that the pod is
   * entitled to anyway. It never requests tokens of identities that the pod is not bound to. It
   * stops at the first candidate with a transient failure: the answer may change, and the others
   * would fail alike. It also stops at its deadline; the next request continues with the object ids
   * found by then.
   */
  async #resolve(job: TokenJob, decision: ByObjectId): Promise<Authorized | RefusedPod | Answer> {
    const { broker, clock } = this.#options;
    const party = partyOf(decision.pod);
    const deadlineMs = job.exchange.startedAtMs + maxResolveMs;
    for (const candidate of decision.candidates) {
      if (broker.objectIdOf(candidate.upstream) === undefined) {
        if (clock.monotonicMs() >= deadlineMs) return unresolved();
        const cached = await broker.get(candidate.upstream, job.query.resource, party);
        const isPassing = !cached.ok && isPassingFailure(cached.failure);
        if (isPassing || job.exchange.isGone) {
          return cached.ok ? changing() : this.#renderFailure(cached.failure, candidate);
        }
      }
      if (broker.objectIdOf(candidate.upstream) === decision.objectId) return candidate;
    }
    const { pod, objectId } = decision;
    return {
      kind: 'refused',
      reason: 'selector_not_bound',
      facts: { about: 'object-id', objectId },
      isPending: false,
      pod,
    };
  }

  #close(
    job: TokenJob,
    authorization: Authorization | undefined,
    answer: Answer,
    cache: CacheOutcome | 'none' = 'none',
    fetchId?: string,
  ): Answer {
    this.#options.observer.onDecision(job.exchange, {
      route: job.route,
      answer,
      authorization,
      resource: job.query.resource,
      source: authorization?.kind === 'authorized' ? sourceNameOf(authorization.upstream) : '',
      cache,
      fetchId,
    });
    return answer;
  }
}

/** Result of a request, before it is known whether its grant is still valid. */
interface Found extends Peeked {
  readonly authorization: Authorization;
  readonly cache: CacheOutcome | 'none';
}

interface Peeked {
  readonly answer: Answer;
  readonly fetchId: string | undefined;
}

function describeWanted(decision: Authorized | ByObjectId): string {
  if (decision.kind === 'by-object-id') return `object ${decision.objectId}`;
  return `identity ${identityKey(decision.upstream)}`;
}

function isPassingFailure(failure: SourceFailure): boolean {
  return failure.reason === 'upstream_down' || failure.reason === 'upstream_throttled';
}

function throttled(): Answer {
  return refuse(
    'caller_throttled',
    'This pod waits for too many different tokens at once. Retry when some have come.',
  );
}

function unresolved(): Answer {
  return refuse(
    'agent_not_synced',
    "The object ids of this pod's identities are not all known yet. Retry.",
  );
}

function changing(): Answer {
  return refuse('agent_not_synced', 'The objects of this pod keep changing. Retry.');
}

/** The same pod still has the same authorization. */
function isSame(before: Authorization, after: Authorization): boolean {
  if (before === after) return true;
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
  return after.kind === 'authorized' && isSameUpstream(before, after);
}

function isSameUpstream(before: Authorized, after: Authorized): boolean {
  if (before.identity?.uid !== after.identity?.uid) return false;
  const keys = ({ upstream, auxiliary }: Authorized): string =>
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
