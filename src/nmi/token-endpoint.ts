/**
 * `/metadata/identity/oauth2/token`: from a checked request to an answer.
 *
 * A hit is synchronous: query, caller, grant, cache, answer in one turn. Whatever has to wait, for
 * a watch event or for the upstream, is authorised again afterwards: the world may have changed.
 */
import type { Clock } from '../cache/clock.ts';
import type { CacheOutcome } from '../cache/token-cache.ts';
import type { RenderedToken } from '../cache/token.ts';
import { answerToken, refuse, type Answer } from './answers.ts';
import type { Authorisation, Authorised, ByObjectId } from './authorisation.ts';
import { authorise, type GrantKnowledge } from './authorise.ts';
import type { Exchange } from './exchange.ts';
import type { GrantPolicy } from './grant.ts';
import { identify, type Refused } from './identify.ts';
import { settle, type Patience } from './patience.ts';
import { explainFailure, explainUnknownObjectId } from './refusal-text.ts';
import { parseTokenQuery, type TokenQuery } from './token-query.ts';
import type { CachedToken, TokenBroker } from './token-broker.ts';

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
  readonly render: (rendered: RenderedToken, authorised: Authorised) => Answer;
}

/** How often one request may find the world changed under its feet before it is sent away. */
const maxTurns = 4;

export class TokenEndpoint {
  readonly #options: TokenEndpointOptions;

  constructor(options: TokenEndpointOptions) {
    this.#options = options;
  }

  /** @param rawQuery the query as sent; the route, method and header checks have passed. */
  handle(exchange: Exchange, rawQuery: string): Answer | Promise<Answer> {
    const parsed = parseTokenQuery(rawQuery);
    if (parsed.kind === 'refused') {
      return this.refuse(exchange, 'token', refuse(parsed.reason, parsed.detail));
    }
    const decide = () => this.#decide(exchange, parsed.query);
    const render = (rendered: RenderedToken) =>
      answerToken(rendered.body(this.#options.clock.wallMs()));
    return this.serve({ exchange, route: 'token', query: parsed.query, decide, render });
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
      const rendered = this.#options.broker.peek(decision.upstream, job.query.resource);
      if (rendered !== undefined) {
        return this.#close(job, decision, job.render(rendered, decision), 'hit');
      }
    } else if (decision.kind === 'refused' && !decision.isPending) {
      return this.#close(job, decision, decision.answer);
    }
    return this.#serveSlowly(job);
  }

  #decide(exchange: Exchange, query: TokenQuery): Authorisation {
    const { knowledge, policy, clock } = this.#options;
    const identified = identify(exchange.caller, knowledge);
    if (identified.kind === 'refused') return identified;
    return authorise(identified.pod, query, knowledge, policy, clock.wallMs());
  }

  async #serveSlowly(job: TokenJob): Promise<Answer> {
    const { patience, broker } = this.#options;
    const { resource } = job.query;
    let last: Authorisation | undefined;
    for (let turn = 0; turn < maxTurns; turn++) {
      const decision = await settle(patience, job.exchange, job.decide, isPending);
      last = decision;
      if (decision.kind === 'refused') return this.#close(job, decision, decision.answer);
      const chosen =
        decision.kind === 'by-object-id' ? await this.#resolve(decision, resource) : decision;
      const cached =
        chosen.kind === 'refused' ? undefined : await broker.get(chosen.upstream, resource);
      // The pod, its label, a binding or the identity may be gone since: the cache never grants.
      if (!isSame(decision, job.decide())) continue;
      if (chosen.kind === 'refused' || cached === undefined) {
        return this.#close(job, chosen, chosen.kind === 'refused' ? chosen.answer : changing());
      }
      const answer = cached.ok
        ? job.render(cached.rendered, chosen)
        : explainFailure(cached.failure, chosen);
      return this.#close(job, chosen, answer, cached.outcome);
    }
    return this.#close(job, last, changing());
  }

  /**
   * Finds which of the pod's own identities has an object id, by the `oid` claim of tokens the pod
   * is entitled to anyway. No identity it is not bound to is ever asked for.
   */
  async #resolve(decision: ByObjectId, resource: string): Promise<Authorised | Refused> {
    const { broker } = this.#options;
    let failed: Extract<CachedToken, { ok: false }> | undefined;
    for (const candidate of decision.candidates) {
      if (broker.objectIdOf(candidate.upstream) === undefined) {
        const cached = await broker.get(candidate.upstream, resource);
        if (!cached.ok) failed = cached;
      }
      if (broker.objectIdOf(candidate.upstream) === decision.objectId) return candidate;
    }
    const first = decision.candidates[0];
    const answer =
      failed === undefined || first === undefined
        ? explainUnknownObjectId(decision.pod, decision.objectId)
        : explainFailure(failed.failure, first);
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
      source: authorisation?.kind === 'authorised' ? this.#options.broker.sourceName : '',
      cache,
    });
    return answer;
  }
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
  if (before.upstream.kind === 'unnamed' || after.upstream.kind === 'unnamed') {
    return before.upstream.kind === after.upstream.kind;
  }
  return (
    before.upstream.kind === after.upstream.kind && before.upstream.value === after.upstream.value
  );
}
