/** What the way of a request reports of its work; whoever listens changes no answer. */
import type { UpstreamObserver } from '../tokens/broker.ts';
import type { StandingRight } from './fast-path/lookup.ts';
import type { Handled } from './listener.ts';
import type { Exchange } from './request.ts';
import type { RouteName } from './router.ts';
import type { TokenDecision } from './token-endpoint.ts';

export interface Observer extends UpstreamObserver {
  onDecision(exchange: Exchange, decision: TokenDecision): void;
  onHandled(exchange: Exchange, route: RouteName, handled: Handled): void;
  /** A token request answered on the short way: what the two above would say of it. */
  onHit(exchange: Exchange, right: StandingRight): void;
}
