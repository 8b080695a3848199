/**
 * Serves usual token requests with a cheaper parser and a cheaper writer, if the decision is valid
 * and the token is in memory. All others go to `node:http`, which finds the decision in its cache.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../../base/time/clock.ts';
import type { CallerConnection } from '../../callers/caller.ts';
import type { FairTurns } from '../fair-turns.ts';
import { headersTimeoutMs, idleMs, type FastPath, type FastPathConnection } from '../listener.ts';
import type { Observer } from '../request-record.ts';
import {
  isGranted,
  type Decision,
  type DecisionCache,
  type GrantedDecision,
} from '../decision-cache.ts';
import { askedIdOf } from '../token-query.ts';
import type { TokenBroker } from '../../tokens/broker.ts';
import { serveConnection } from './connection.ts';
import type { KnownRequest } from './known-request.ts';
import { ResponseCache, type CachedResponse } from './response-cache.ts';
import { WriteBatch } from './write-batch.ts';

export interface FastPathOptions {
  readonly decisions: Pick<DecisionCache, 'decide' | 'isCurrent'>;
  readonly broker: Pick<TokenBroker, 'peek'>;
  readonly clock: Clock;
  readonly observer: Pick<Observer, 'onHit'>;
  readonly turns: Pick<FairTurns, 'run'>;
  /** One of the above threw: the request goes to `node:http`. */
  readonly onBug: (error: unknown) => void;
}

export class TokenFastPath implements FastPath {
  readonly #options: FastPathOptions;
  readonly #responses: ResponseCache;
  readonly #batch = new WriteBatch();
  readonly #shared = { last: undefined };

  constructor(options: FastPathOptions) {
    this.#options = options;
    this.#responses = new ResponseCache(options.clock);
  }

  accept({ socket, caller, isDraining, handOver, onSilent }: FastPathConnection): void {
    const { decisions, clock, onBug, turns } = this.#options;
    /** Clients nearly always repeat the same request. */
    let decision: Decision | undefined;
    serveConnection({
      socket,
      inTurn: (work) => turns.run(caller.limitKey, work),
      batch: this.#batch,
      shared: this.#shared,
      firstByteMs: headersTimeoutMs,
      idleMs,
      answer: (request) => {
        if (isDraining()) return undefined;
        const { target } = request;
        try {
          const nowMs = clock.monotonicMs();
          if (decision?.target !== target || !decisions.isCurrent(decision, nowMs)) {
            const decided = decisions.decide(caller, target, nowMs);
            decision = 'kind' in decided ? undefined : decided;
          }
          if (decision === undefined || !isGranted(decision)) return undefined;
          return this.#answer(caller, decision, nowMs, request);
        } catch (error) {
          // `node:http` runs into the same error, and answers that the agent failed.
          onBug(error);
          return undefined;
        }
      },
      handOver,
      onSilent,
    });
  }

  #answer(
    caller: CallerConnection,
    decision: GrantedDecision,
    nowMs: number,
    request: KnownRequest,
  ): CachedResponse | undefined {
    const { broker, observer } = this.#options;
    const rendered = broker.peek(decision.cacheKey);
    if (rendered === undefined) return undefined;
    const requestId = randomUUID();
    const { fetchId } = rendered.token;
    observer.onHit({ caller, decision, startedAtMs: nowMs, requestId, request, fetchId });
    return this.#responses.render(rendered, askedIdOf(decision.query), requestId, request.isLast);
  }
}
