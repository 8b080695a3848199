/** The way of a request, put together: front, endpoints, broker, source. */
import type { Clock } from '../../cache/clock.ts';
import { userAgent } from '../base/build-info.ts';
import { CallerShare } from './caller-limits.ts';
import type { Config } from '../config/config.ts';
import type { Tuning } from '../config/tuning.ts';
import { createFront, type Handler } from './router.ts';
import type { GrantPolicy } from '../grants/grant.ts';
import { HitPath } from './fast-path/lookup.ts';
import { HostTokenEndpoint } from './host-token.ts';
import type { Log } from '../base/log.ts';
import type { NodeKnowledge } from '../state/cluster-state.ts';
import type { Observer } from './observer.ts';
import { openPassthrough } from './passthrough.ts';
import { LoopMark } from '../sources/imds/loop-detection.ts';
import type { Patience } from './wait-for-object.ts';
import { openImdsSource } from '../sources/imds/imds.ts';
import type { EntraIdentity, TokenSource } from '../sources/source.ts';
import type { IdentityDemand } from '../grants/identities-in-use.ts';
import { TokenBroker, type UpstreamBudget } from '../tokens/broker.ts';
import { TokenEndpoint } from './token-endpoint.ts';

/**
 * Of the four fetches that run upstream at once, 16 queued ones of one pod delay another pod's by
 * four fetches' time. Azure SDKs ask for a handful of resources.
 */
const callerLimits = { fetches: 16, waiting: 512, held: 64 };

export interface RequestPath extends AsyncDisposable {
  readonly handle: Handler;
  readonly hits: HitPath;
  readonly broker: TokenBroker;
  readonly policy: GrantPolicy;
}

export interface RequestPathOptions {
  readonly config: Config;
  readonly tuning: Tuning;
  readonly knowledge: NodeKnowledge;
  readonly demand: IdentityDemand;
  readonly observer: Observer;
  readonly clock: Clock;
  readonly log: Log;
  /** Belongs to whoever opened it. */
  readonly entra: TokenSource<EntraIdentity>;
}

/** IMDS answers at most 5 identity requests at once and 20 a second, for the node as a whole. */
const imdsBudget: UpstreamBudget = { maxConcurrent: 4, maxPerSec: 20, maxQueued: 1_000 };

/** Entra ID names no limit for one client; a node that starts asks for all its identities at once. */
const entraBudget: UpstreamBudget = { maxConcurrent: 8, maxPerSec: 40, maxQueued: 1_000 };

export function openRequestPath(options: RequestPathOptions): RequestPath {
  const { config, tuning, knowledge, observer, clock, log } = options;
  const endpoint = `http://${config.metadataIp}:${config.metadataPort}`;
  const timeoutMs = tuning.imdsTimeoutMs;
  const patience: Patience = {
    clock,
    holds: knowledge.holds,
    share: new CallerShare(callerLimits),
    maxWaitMs: tuning.lateObjectWaitMs,
  };
  const policy: GrantPolicy = {
    strict: config.strictIdentity,
    graceMs: tuning.bindingGraceMs,
    hostNetwork: config.hostNetwork,
  };

  const agent = userAgent(config.customUserAgent);
  const loopMark = new LoopMark();
  const { blockInstanceMetadata, allowedAreas } = config;
  const source = openImdsSource({
    ...{ endpoint, userAgent: agent, timeoutMs, clock, loopMark },
    hidesNode: blockInstanceMetadata,
  });
  const passthrough = openPassthrough({
    endpoint,
    timeoutMs,
    policy: { blockInstanceMetadata, allowedAreas, hasImds: config.redirect !== 'address' },
  });
  const broker = new TokenBroker({
    ...{ clock, observer, random: Math.random },
    imds: { source, budget: imdsBudget },
    entra: { source: options.entra, budget: entraBudget },
    demand: options.demand,
    maxEntries: tuning.tokenCacheSize,
    waitMs: Math.max(timeoutMs, tuning.entraTimeoutMs) + 500,
  });
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
    ...{ tokens, hostTokens, passthrough, knowledge, patience, loopMark },
    onHandled: (exchange, route, handled) => {
      observer.onHandled(exchange, route, handled);
    },
    onBug: (error) => {
      log.error({ err: error instanceof Error ? error.stack : 'unknown' }, 'request failed');
    },
  });
  const hits = new HitPath({
    ...{ knowledge, broker, policy, clock },
    onHit: (exchange, right) => {
      observer.onHit(exchange, right);
    },
  });
  return {
    handle,
    hits,
    broker,
    policy,
    [Symbol.asyncDispose]: async () => {
      broker[Symbol.dispose]();
      await Promise.all([source[Symbol.asyncDispose](), passthrough[Symbol.asyncDispose]()]);
    },
  };
}
