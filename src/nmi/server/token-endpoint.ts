/**
 * `/metadata/identity/oauth2/token`: from a checked request to an answer.
 *
 * A hit is synchronous: query, caller, grant, cache, answer in one turn. Whatever has to wait, for
 * a watch event or for the upstream, is authorised again afterwards: the world may have changed.
 */
import type { Clock } from '../../cache/clock.ts';
import type { CacheOutcome } from '../../cache/token/cache.ts';
import type { AskedId, RenderedToken } from '../../cache/token/token.ts';
import { answerToken, refuse, type Answer } from '../base/answers.ts';
import type { Authorisation, Authorised, ByObjectId } from '../grants/authorization.ts';
import { authorise, type GrantKnowledge } from '../grants/authorize.ts';
import type { Exchange } from './request.ts';
import { grantedSinceWallMs } from '../grants/grant-age.ts';
import type { GrantPolicy } from '../grants/grant.ts';
import { identify, type Refused } from '../grants/identify.ts';
import { settle, type Patience } from './wait-for-object.ts';
import { explainFailure, explainUnknownObjectId } from '../grants/refusal-text.ts';
import { sourceNameOf, type SourceFailure, type UpstreamIdentity } from '../sources/source.ts';
import {
  askedIdOf,
  parseTokenQuery,
  type TokenQuery,
  type TokenQueryResult,
} from './token-query.ts';
import type { CachedToken, TokenBroker } from '../tokens/broker.ts';
import { identityKey } from '../grants/cache-key.ts';

export type TokenRoute = 'token' | 'host-token';

/** All that the log line and the metrics say about one token request. */
export interface TokenDecision {
  readonly route: TokenRoute;
  readonly answer: Answer;
  readonly authorisation: Authorisation | undefined;
  readonly resource: string;
  readonly source: string;
  readonly cache: CacheOutcome | 'none';
}

export interface TokenEndpointOptions {
  readonly knowledge: GrantKnowledge;
  readonly broker: TokenBroker;
  readonly policy: GrantPolicy;
  readonly patience: Patience;
  readonly clock: Clock;
  readonly onDecision: (exchange: Exchange, decision: TokenDecision) => void;
}

/** One request that names a pod, by its connection or otherwise, and how its answer looks. */
export interface TokenJob {
  readonly exchange: Exchange;
  readonly route: TokenRoute;
  readonly query: TokenQuery;
  /** The caller's right by what is known now; asked again whenever that may have changed. */
  readonly decide: () => Authorisation;
  readonly render: (
    rendered: RenderedToken,
    auxiliary: readonly RenderedToken[],
    authorised: Authorised,
  ) => Answer;
}

const noTokens: readonly RenderedToken[] = [];

/** How often one request may find the world changed under its feet before it is sent away. */
const maxTurns = 4;

/** Parsed queries that are kept: half a megabyte at most. */
const maxMemos = 512;
const maxMemoLength = 512;

export class TokenEndpoint {
  readonly #options: TokenEndpointOptions;
  readonly #parsed = new Map<string, TokenQueryResult>();

  constructor(options: TokenEndpointOptions) {
    this.#options = options;
  }

  /** @param rawQuery the query as sent; the route, method and header checks have passed. */
  handle(exchange: Exchange, rawQuery: string): Answer | Promise<Answer> {
    const parsed = this.#parse(rawQuery);
    if (parsed.kind === 'refused') {
      return this.refuse(exchange, 'token', refuse(parsed.reason, parsed.detail));
    }
    const decide = () => this.#decide(exchange, parsed.query);
    const render = (rendered: RenderedToken, auxiliary: readonly RenderedToken[]) => {
      const nowWallMs = this.#options.clock.wallMs();
      return answerToken(bodyOf(rendered, auxiliary, nowWallMs, askedIdOf(parsed.query)));
    };
    return this.serve({ exchange, route: 'token', query: parsed.query, decide, render });
  }

  /** Parsing is pure and a pod asks for the same few things again and again. */
  #parse(rawQuery: string): TokenQueryResult {
    const known = this.#parsed.get(rawQuery);
    if (known !== undefined) return known;
    const parsed = parseTokenQuery(rawQuery);
    if (rawQuery.length > maxMemoLength) return parsed;
    if (this.#parsed.size >= maxMemos) this.#parsed.clear();
    this.#parsed.set(rawQuery, parsed);
    return parsed;
  }

  /** Ends a request that got no further than its parameters. */
  refuse(exchange: Exchange, route: TokenRoute, answer: Answer): Answer {
    const decision = { route, answer, authorisation: undefined, resource: '', source: '' };
    this.#options.onDecision(exchange, { ...decision, cache: 'none' });
    return answer;
  }

  /** Serves one request: at once where memory has the token, else after waiting for it. */
  serve(job: TokenJob): Answer | Promise<Answer> {
    const decision = job.decide();
    if (decision.kind === 'authorised') {
      const answer = this.#peek(job, decision);
      if (answer !== undefined) return this.#close(job, decision, answer, 'hit');
    } else if (decision.kind === 'refused' && !decision.isPending) {
      return this.#close(job, decision, decision.answer);
    }
    return this.#serveSlowly(job, decision);
  }

  /** The answer from memory alone. */
  #peek(job: TokenJob, authorised: Authorised): Answer | undefined {
    const { broker } = this.#options;
    const { resource, bypassCache } = job.query;
    if (bypassCache) return undefined;
    const rendered = broker.peek(authorised.upstream, resource);
    if (rendered === undefined) return undefined;
    if (authorised.auxiliary.length === 0) return job.render(rendered, noTokens, authorised);
    const auxiliary: RenderedToken[] = [];
    for (const identity of authorised.auxiliary) {
      const other = broker.peek(identity, resource);
      if (other === undefined) return undefined;
      auxiliary.push(other);
    }
    return job.render(rendered, auxiliary, authorised);
  }

  #decide(exchange: Exchange, query: TokenQuery): Authorisation {
    const { knowledge, policy, clock } = this.#options;
    const identified = identify(exchange.caller, knowledge);
    if (identified.kind === 'refused') return identified;
    return authorise(identified.pod, query, knowledge, policy, clock.wallMs());
  }

  /** @param latest decision, made just now. */
  async #serveSlowly(job: TokenJob, latest: Authorisation): Promise<Answer> {
    const { patience } = this.#options;
    const { resource } = job.query;
    let decision = latest;
    for (let turn = 0; turn < maxTurns; turn++) {
      if (isPending(decision)) {
        decision = await settle(patience, job.exchange, job.decide, isPending);
      }
      if (decision.kind === 'refused') return this.#close(job, decision, decision.answer);
      const endFetch = patience.share.beginFetch(
        job.exchange.caller.ip,
        `${describeWanted(decision)}\n${resource}`,
      );
      if (endFetch === undefined) return this.#close(job, decision, throttled());
      let found: Found;
      try {
        found = await this.#find(job, decision);
      } finally {
        endFetch();
      }
      // The pod, its label, a binding or the identity may be gone since: the cache never grants.
      const decisionNow = job.decide();
      if (isSame(decision, decisionNow)) {
        return this.#close(job, found.authorisation, found.answer, found.cache);
      }
      decision = decisionNow;
    }
    return this.#close(job, decision, changing());
  }

  async #find(job: TokenJob, decision: Authorised | ByObjectId): Promise<Found> {
    const { resource, bypassCache } = job.query;
    const chosen = decision.kind === 'by-object-id' ? await this.#resolve(job, decision) : decision;
    if (chosen.kind === 'refused') {
      return { authorisation: chosen, answer: chosen.answer, cache: 'none' };
    }
    const { broker } = this.#options;
    const get = (identity: UpstreamIdentity): Promise<CachedToken> =>
      bypassCache ? broker.renew(identity, resource) : broker.get(identity, resource);
    const [cached, ...others] = await Promise.all([
      get(chosen.upstream),
      ...chosen.auxiliary.map(get),
    ]);
    const auxiliary: RenderedToken[] = [];
    for (const each of [cached, ...others]) {
      if (!each.ok) {
        const answer = this.#explain(each.failure, chosen);
        return { authorisation: chosen, answer, cache: each.outcome };
      }
      if (each !== cached) auxiliary.push(each.rendered);
    }
    if (!cached.ok) throw new TypeError('a failure was passed over');
    const answer = job.render(cached.rendered, auxiliary, chosen);
    return { authorisation: chosen, answer, cache: cached.outcome };
  }

  #explain(failure: SourceFailure, authorised: Authorised): Answer {
    const { knowledge, clock, policy } = this.#options;
    const ageMs = clock.wallMs() - grantedSinceWallMs(authorised, knowledge.grants);
    return explainFailure(failure, authorised, ageMs, policy.graceMs);
  }

  /**
   * Finds which of the pod's own identities has an object id, by the `oid` claim of tokens the pod
   * is entitled to anyway. No identity it is not bound to is ever asked for. Ends with the first
   * candidate that cannot be asked now: the answer may change, and the others would fail alike.
   */
  async #resolve(job: TokenJob, decision: ByObjectId): Promise<Authorised | Refused> {
    const { broker } = this.#options;
    for (const candidate of decision.candidates) {
      if (broker.objectIdOf(candidate.upstream) === undefined) {
        const cached = await broker.get(candidate.upstream, job.query.resource);
        const isPassing = !cached.ok && isPassingFailure(cached.failure);
        if (isPassing || job.exchange.isGone) {
          const answer = cached.ok ? changing() : this.#explain(cached.failure, candidate);
          return { kind: 'refused', answer, isPending: false, pod: decision.pod };
        }
      }
      if (broker.objectIdOf(candidate.upstream) === decision.objectId) return candidate;
    }
    const answer = explainUnknownObjectId(decision.pod, decision.objectId);
    return { kind: 'refused', answer, isPending: false, pod: decision.pod };
  }

  #close(
    job: TokenJob,
    authorisation: Authorisation | undefined,
    answer: Answer,
    cache: CacheOutcome | 'none' = 'none',
  ): Answer {
    this.#options.onDecision(job.exchange, {
      route: job.route,
      answer,
      authorisation,
      resource: job.query.resource,
      source: authorisation?.kind === 'authorised' ? sourceNameOf(authorisation.upstream) : '',
      cache,
    });
    return answer;
  }
}

/** What a request came to, before it is known whether the right to it still stands. */
interface Found {
  readonly authorisation: Authorised | Refused;
  readonly answer: Answer;
  readonly cache: CacheOutcome | 'none';
}

function describeWanted(decision: Authorised | ByObjectId): string {
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

function changing(): Answer {
  return refuse('agent_not_synced', 'The objects of this pod keep changing. Retry.');
}

function isPending(decision: Authorisation): boolean {
  return decision.kind === 'refused' && decision.isPending;
}

/** The same pod still has the same right. */
function isSame(before: Authorisation, after: Authorisation): boolean {
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
  return after.kind === 'authorised' && isSameUpstream(before, after);
}

function isSameUpstream(before: Authorised, after: Authorised): boolean {
  if (before.identity?.uid !== after.identity?.uid) return false;
  const keys = ({ upstream, auxiliary }: Authorised): string =>
    [upstream, ...auxiliary].map(identityKey).join('\n');
  return keys(before) === keys(after);
}

/** An array with the auxiliary tenants' tokens after the first, as the replaced system had it. */
function bodyOf(
  rendered: RenderedToken,
  auxiliary: readonly RenderedToken[],
  nowWallMs: number,
  asked: AskedId | undefined,
): string {
  const body = rendered.body(nowWallMs, asked);
  if (auxiliary.length === 0) return body;
  return `[${[body, ...auxiliary.map((each) => each.body(nowWallMs))].join(',')}]`;
}
