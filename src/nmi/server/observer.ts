/** Events of the request path. An observer changes no answer. */
import type { CacheOutcome } from '../../cache/token/cache.ts';
import type { Pod } from '../../cache/index/objects.ts';
import type { Answer, Reason } from '../base/answers.ts';
import type { Authorization } from '../grants/authorization.ts';
import type { UpstreamObserver } from '../tokens/broker.ts';
import type { IdHeaders } from '../base/correlation.ts';
import type { Exchange, Handled } from './request.ts';
import type { Route } from './route.ts';
import type { GrantedDecision } from './decision-cache.ts';
import type { ThrottleLimit } from '../callers/throttled-pods.ts';

export type TokenRoute = Extract<Route['kind'], 'token' | 'host-token'>;

/** All data of the log line and the metrics about one token request. */
export interface TokenDecision {
  readonly route: TokenRoute;
  readonly answer: Answer;
  readonly authorization: Authorization | undefined;
  readonly resource: string;
  readonly source: string;
  readonly cache: CacheOutcome | 'none';
  /** Id of the fetch that returned the token or the failure, whichever request caused it. */
  readonly fetchId?: string | undefined;
}

/** A request that the fast path answered. */
export interface Hit extends Pick<Exchange, 'caller' | 'startedAtMs' | 'requestId'> {
  readonly request: IdHeaders;
  /** Id of the fetch that returned the token. */
  readonly fetchId: string | undefined;
}

export interface Observer extends UpstreamObserver {
  onDecision(exchange: Exchange, decision: TokenDecision): void;
  /** Every request that reached the router, once, after `onDecision` if it was decided. */
  onHandled(exchange: Exchange, route: Route, handled: Handled): void;
  /** A request that was refused before it reached the router. */
  onRefusal(reason: Reason): void;
  /** A request or connection of a pod went beyond a limit of that pod. */
  onThrottled(pod: Pod, limit: ThrottleLimit): void;
  /** Called instead of the first two. */
  onHit(hit: Hit, right: GrantedDecision): void;
}
