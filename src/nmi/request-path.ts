/** The way of a request, put together: front, endpoints, broker, source. */
import type { Clock } from '../cache/clock.ts';
import { userAgent } from './build-info.ts';
import type { Config } from './config.ts';
import { createFront, type Handler } from './front.ts';
import { HostTokenEndpoint } from './host-token.ts';
import type { Log } from './log.ts';
import type { NodeKnowledge } from './node-knowledge.ts';
import type { Observer } from './observe.ts';
import { openPassthrough } from './passthrough.ts';
import type { Patience } from './patience.ts';
import { openImdsSource } from './sources/imds.ts';
import { TokenBroker } from './token-broker.ts';
import { TokenEndpoint } from './token-endpoint.ts';

export interface RequestPath extends AsyncDisposable {
  readonly handle: Handler;
  readonly broker: TokenBroker;
}

export interface RequestPathOptions {
  readonly config: Config;
  readonly knowledge: NodeKnowledge;
  readonly observer: Observer;
  readonly clock: Clock;
  readonly log: Log;
}

export function openRequestPath(options: RequestPathOptions): RequestPath {
  const { config, knowledge, observer, clock, log } = options;
  const endpoint = `http://${config.metadataIp}:${config.metadataPort}`;
  const timeoutMs = config.imdsTimeoutMs;
  const patience: Patience = { clock, holds: knowledge.holds, maxWaitMs: config.lateObjectWaitMs };
  const policy = { strict: config.strictIdentity, graceMs: config.bindingGraceMs };

  const agent = userAgent(config.customUserAgent);
  const source = openImdsSource({ endpoint, userAgent: agent, timeoutMs, clock });
  const { blockInstanceMetadata, allowedAreas } = config;
  const passthrough = openPassthrough({
    endpoint,
    timeoutMs,
    policy: { blockInstanceMetadata, allowedAreas },
  });
  const broker = new TokenBroker({ source, clock, maxEntries: config.tokenCacheSize, observer });
  const tokens = new TokenEndpoint({
    ...{ knowledge, broker, policy, patience, clock },
    onDecision: (exchange, decision) => {
      observer.onDecision(exchange, decision);
    },
  });
  const hostTokens = config.hostToken
    ? new HostTokenEndpoint({ knowledge, policy, clock, endpoint: tokens })
    : undefined;
  const handle = createFront({
    metadataHeaderRequired: config.metadataHeaderRequired,
    ...{ tokens, hostTokens, passthrough, knowledge, patience },
    onHandled: (exchange, route, handled) => {
      observer.onHandled(exchange, route, handled);
    },
    onBug: (error) => {
      log.error({ err: error instanceof Error ? error.stack : 'unknown' }, 'request failed');
    },
  });
  return {
    handle,
    broker,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([source[Symbol.asyncDispose](), passthrough[Symbol.asyncDispose]()]);
    },
  };
}
