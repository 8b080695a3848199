/** The way of a request, put together: router, endpoints, broker, source. */
import type { Clock } from '../../cache/clock.ts';
import { userAgent } from '../base/build-info.ts';
import { CallerLimits } from './caller-limits.ts';
import type { Config } from '../config/config.ts';
import type { Tuning } from '../config/tuning.ts';
import { createRouter, type Handler } from './router.ts';
import type { GrantPolicy } from '../grants/grant.ts';
import { TokenFastPath } from './fast-path/fast-path.ts';
import { HostTokenEndpoint } from './host-token.ts';
import type { Log } from '../base/log.ts';
import type { NodeKnowledge } from '../state/cluster-state.ts';
import type { FastPath } from './listener.ts';
import type { Observer } from './observer.ts';
import { StandingRights } from './standing-rights.ts';
import { openPassthrough } from './passthrough.ts';
import { LoopMark } from '../sources/imds/loop-detection.ts';
import type { ObjectWait } from './wait-for-object.ts';
import { openImdsSource } from '../sources/imds/imds.ts';
import type { EntraIdentity, NodeIdentity, TokenSource } from '../sources/source.ts';
import type { IdentityDemand } from '../grants/identities-in-use.ts';
import { TokenBroker, type UpstreamBudget } from '../tokens/broker.ts';
import { TokenEndpoint } from './token-endpoint.ts';

/**
 * Of the four fetches that run upstream at once, 16 queued ones of one pod delay another pod's by
 * four fetches' time. Azure SDKs ask for a handful of resources.
 */
const callerMaxima = { fetches: 16, waiting: 512, held: 64 };

export interface RequestPath extends AsyncDisposable {
  readonly handle: Handler;
  /** Undefined while it is turned off. */
  readonly fastPath: FastPath | undefined;
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
  const objectWait: ObjectWait = {
    clock,
    holds: knowledge.holds,
    limits: new CallerLimits(callerMaxima),
    maxWaitMs: tuning.lateObjectWaitMs,
  };
  const policy: GrantPolicy = {
    strict: config.strictIdentity,
    graceMs: tuning.bindingGraceMs,
    hostNetwork: config.hostNetwork,
  };
  const loopMark = new LoopMark();
  const { blockInstanceMetadata, allowedAreas } = config;
  const source = openImdsSource({
    endpoint,
    userAgent: userAgent(config.customUserAgent),
    timeoutMs,
    clock,
    loopMark,
    hidesNode: blockInstanceMetadata,
  });
  const passthrough = openPassthrough({
    endpoint,
    timeoutMs,
    policy: { blockInstanceMetadata, allowedAreas, hasImds: config.redirect !== 'address' },
  });
  const broker = openBroker(options, source);
  const rights = new StandingRights({ knowledge, policy, clock });
  const tokens = new TokenEndpoint({
    knowledge,
    rights,
    broker,
    policy,
    objectWait,
    clock,
    observer,
  });
  const hostTokens = config.hostToken
    ? new HostTokenEndpoint({ knowledge, policy, clock, endpoint: tokens })
    : undefined;
  const onBug = (error: unknown): void => {
    log.error({ err: error instanceof Error ? error.stack : 'unknown' }, 'request failed');
  };
  const handle = createRouter({
    metadataHeaderRequired: config.metadataHeaderRequired,
    tokens,
    hostTokens,
    passthrough,
    knowledge,
    objectWait,
    loopMark,
    observer,
    onBug,
  });
  return {
    handle,
    fastPath: config.fastPath
      ? new TokenFastPath({ rights, broker, clock, observer, onBug })
      : undefined,
    broker,
    policy,
    [Symbol.asyncDispose]: async () => {
      broker[Symbol.dispose]();
      await Promise.all([source[Symbol.asyncDispose](), passthrough[Symbol.asyncDispose]()]);
    },
  };
}

function openBroker(
  { tuning, observer, clock, demand, entra }: RequestPathOptions,
  imds: TokenSource<NodeIdentity>,
): TokenBroker {
  return new TokenBroker({
    imds: { source: imds, budget: imdsBudget },
    entra: { source: entra, budget: entraBudget },
    demand,
    clock,
    observer,
    random: Math.random,
    maxEntries: tuning.tokenCacheSize,
    waitMs: Math.max(tuning.imdsTimeoutMs, tuning.entraTimeoutMs) + 500,
  });
}
