/**
 * Checks every request in the order of the real service: route, method, forwarding, `Metadata`
 * header, policy; then calls its endpoint. Cheap checks come before any look-up, so that the probes
 * of SDKs (300 ms timeout) are answered even when everything else is down.
 */
import type { Clock } from '../../base/time/clock.ts';
import { metadataHeaderMissing, refuse, type Answer } from '../base/answers.ts';
import { relayed, type Handled, type HttpExchange } from './request.ts';
import { recordOf, type Observer } from './request-record.ts';
import type { HostTokenEndpoint } from './host-token.ts';
import { identify, type CallerState } from '../callers/identify.ts';
import { renderRefusal } from '../grants/refusal-text.ts';
import { correlationHeader, type LoopDetection } from '../sources/imds/loop-detection.ts';
import { allowedMethods, type Passthrough, type PassthroughRoute } from './passthrough.ts';
import { waitForObject, type ObjectWait } from './wait-for-object.ts';
import { parseRoute, type Route } from './route.ts';
import type { TokenEndpoint } from './token-endpoint.ts';

export interface RouterOptions {
  readonly metadataHeaderRequired: boolean;
  readonly tokens: TokenEndpoint;
  /** Undefined while `/host/token` is off. */
  readonly hostTokens: HostTokenEndpoint | undefined;
  readonly passthrough: Passthrough;
  readonly clusterState: CallerState;
  readonly objectWait: ObjectWait;
  readonly loopDetection: LoopDetection;
  readonly clock: Clock;
  readonly observer: Pick<Observer, 'onRequest'>;
  readonly onBug: (error: unknown) => void;
}

export type Handler = (exchange: HttpExchange) => Handled | Promise<Handled>;

export function createRouter(options: RouterOptions): Handler {
  const { clusterState, clock, observer } = options;
  return (exchange) => {
    const route = parseRoute(exchange.target);
    const done = (handled: Handled): Handled => {
      const caller = exchange.caller.resolve(clusterState.pods, clusterState.places);
      const pod = caller.kind === 'pod' ? caller.pod : undefined;
      observer.onRequest(recordOf(exchange, route, handled, pod, clock.monotonicMs()));
      return handled;
    };
    const failed = (error: unknown): Handled => {
      options.onBug(error);
      return done(refuse('internal_error', 'The agent failed on this request; its log says why.'));
    };
    try {
      const handled = dispatch(exchange, route, options);
      return handled instanceof Promise ? handled.then(done).catch(failed) : done(handled);
    } catch (error) {
      return failed(error);
    }
  };
}

function dispatch(
  exchange: HttpExchange,
  route: Route,
  options: RouterOptions,
): Handled | Promise<Handled> {
  switch (route.kind) {
    case 'refused':
      return route.reason === 'path_invalid'
        ? refuse('path_invalid', 'Invalid request: the path is not in canonical form.')
        : refuse('not_found', 'There is nothing at this path.');
    case 'token':
      return (
        checkCommon(exchange, ['GET'], options) ??
        checkLoop(exchange, options) ??
        options.tokens.handle(exchange)
      );
    case 'host-token':
      if (options.hostTokens === undefined) {
        return refuse('not_found', '/host/token is off (--enable-host-token turns it on).');
      }
      // Its clients send no Metadata header.
      return checkMethod(exchange, ['GET']) ?? options.hostTokens.handle(exchange, route.query);
    case 'passthrough':
      return (
        checkCommon(exchange, allowedMethods(route.area), options) ??
        checkLoop(exchange, options) ??
        options.passthrough.refusal(route) ??
        passThrough(exchange, route, options)
      );
  }
}

function checkCommon(
  exchange: HttpExchange,
  methods: readonly string[],
  options: RouterOptions,
): Answer | undefined {
  const wrongMethod = checkMethod(exchange, methods);
  if (wrongMethod !== undefined) return wrongMethod;
  if (exchange.headerValues('x-forwarded-for').length > 0) {
    return refuse('forwarded', 'Requests with an X-Forwarded-For header are not served.');
  }
  if (!options.metadataHeaderRequired) return undefined;
  const values = exchange.headerValues('metadata');
  return values.length === 1 && values[0] === 'true' ? undefined : metadataHeaderMissing;
}

/** The agent is a pod too, and on the host network it may be taken for another. */
function checkLoop(exchange: HttpExchange, options: RouterOptions): Answer | undefined {
  const [correlationId = ''] = exchange.headerValues(correlationHeader);
  if (!options.loopDetection.isOwn(correlationId)) return undefined;
  return refuse('loop_detected', 'The request came from the agent itself.', { close: true });
}

function checkMethod(exchange: HttpExchange, methods: readonly string[]): Answer | undefined {
  if (methods.includes(exchange.method)) return undefined;
  const allow = methods.join(', ');
  return refuse('method_not_allowed', `Allowed methods: ${allow}.`, { allow });
}

async function passThrough(
  exchange: HttpExchange,
  route: PassthroughRoute,
  options: RouterOptions,
): Promise<Handled> {
  const decide = () => identify(exchange.caller, options.clusterState);
  const identified = await waitForObject(options.objectWait, exchange, decide(), decide);
  if (identified.kind === 'refused') return renderRefusal(identified);
  return exchange.isGone ? relayed : options.passthrough.relay(exchange, route, identified.pod);
}
