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
import {
  authorise,
  type Authorisation,
  type Authorised,
  type ByObjectId,
  type GrantKnowledge,
} from './authorise.ts';
import type { Exchange } from './exchange.ts';
import type { GrantPolicy } from './grant.ts';
import { identify } from './identify.ts';
import { settle, type Patience } from './patience.ts';
import { explainFailure, explainUnknownObjectId } from './refusal-text.ts';
import { parseTokenQuery, type TokenQuery } from './token-query.ts';
import type { CachedToken, TokenBroker } from './token-broker.ts';

/** All that the log line and the metrics say about one token request. */
export interface TokenDecision {
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
      return this.#close(exchange, undefined, '', refuse(parsed.reason, parsed.detail));
    }
    const decide = () => this.#decide(exchange, parsed.query);
    return this.serve(exchange, parsed.query, decide);
  }

  /**
   * Serves a request whose caller is found by `decide`. Also the way of `/host/token`, which names
   * its pod otherwise and renders otherwise.
   */
  serve(
    exchange: Exchange,
    query: TokenQuery,
    decide: () => Authorisation,
    render: (rendered: RenderedToken, authorised: Authorised) => Answer = (rendered) =>
      answerToken(rendered.body(this.#options.clock.wallMs())),
  ): Answer | Promise<Answer> {
    const decision = decide();
    if (decision.kind === 'authorised') {
      const rendered = this.#options.broker.peek(decision.upstream, query.resource);
      if (rendered !== undefined) {
        const answer = render(rendered, decision);
        return this.#close(exchange, decision, query.resource, answer, 'hit');
      }
    } else if (decision.kind === 'refused' && !decision.isPending) {
      return this.#close(exchange, decision, query.resource, decision.answer);
    }
    return this.#serveSlowly(exchange, query, decide, render);
  }

  #decide(exchange: Exchange, query: TokenQuery): Authorisation {
    const { knowledge, policy, clock } = this.#options;
    const identified = identify(exchange.caller, knowledge);
    if (identified.kind === 'refused') return identified;
    return authorise(identified.pod, query, knowledge, policy, clock.wallMs());
  }

  async #serveSlowly(
    exchange: Exchange,
    query: TokenQuery,
    decide: () => Authorisation,
    render: (rendered: RenderedToken, authorised: Authorised) => Answer,
  ): Promise<Answer> {
    const { patience, broker } = this.#options;
    let last: Authorisation | undefined;
    for (let turn = 0; turn < maxTurns; turn++) {
      const decision = await settle(patience, exchange, decide, isPending);
      last = decision;
      if (decision.kind === 'refused') {
        return this.#close(exchange, decision, query.resource, decision.answer);
      }
      const chosen =
        decision.kind === 'by-object-id' ? await this.#resolve(decision, query) : decision;
      if (chosen.kind === 'refused') {
        if (!isSame(decision, decide())) continue;
        return this.#close(exchange, chosen, query.resource, chosen.answer);
      }
      const cached = await broker.get(chosen.upstream, query.resource);
      // The pod, its label, a binding or the identity may be gone since: the cache never grants.
      if (!isSame(decision, decide())) continue;
      const answer = cached.ok
        ? render(cached.rendered, chosen)
        : explainFailure(cached.failure, chosen);
      return this.#close(exchange, chosen, query.resource, answer, cached.outcome);
    }
    const answer = refuse('agent_not_synced', 'The objects of this pod keep changing. Retry.');
    return this.#close(exchange, last, query.resource, answer);
  }

  /**
   * Finds which of the pod's own identities has an object id, by the `oid` claim of tokens the pod
   * is entitled to anyway. No identity it is not bound to is ever asked for.
   */
  async #resolve(
    decision: ByObjectId,
    query: TokenQuery,
  ): Promise<Authorised | (Authorisation & { kind: 'refused' })> {
    const { broker } = this.#options;
    let failed: Extract<CachedToken, { ok: false }> | undefined;
    for (const candidate of decision.candidates) {
      if (broker.objectIdOf(candidate.upstream) === undefined) {
        const cached = await broker.get(candidate.upstream, query.resource);
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
    exchange: Exchange,
    authorisation: Authorisation | undefined,
    resource: string,
    answer: Answer,
    cache: CacheOutcome | 'none' = 'none',
  ): Answer {
    const source = authorisation?.kind === 'authorised' ? this.#options.broker.sourceName : '';
    this.#options.onDecision(exchange, { answer, authorisation, resource, source, cache });
    return answer;
  }
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
