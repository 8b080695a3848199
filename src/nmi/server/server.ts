/** Wires the request path: listeners, router, endpoints. */
import type { Clock } from '../../base/time/clock.ts';
import { bugReporter } from '../../base/lines/bug-reporter.ts';
import type { Logger } from '../../base/logger.ts';
import { samplesBy, type Part } from '../base/part.ts';
import { portError } from '../base/port-error.ts';
import type { Config } from '../config/config.ts';
import type { Tuning } from '../config/tuning.ts';
import { podOfLimitKey } from '../callers/caller.ts';
import type { GrantPolicy } from '../grants/choose-identity.ts';
import { connectRate } from '../../redirect/redirect.ts';
import type { HeldListener } from '../kernel/held-listener.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { LoopDetection } from '../sources/imds/loop-detection.ts';
import type { ClusterState } from '../state/cluster-state.ts';
import type { TokenBroker } from '../tokens/broker.ts';
import { CallerLimits, CallerRates, type OnBeyond } from './caller-limits.ts';
import { resetGonePods } from './close-stale-connections.ts';
import { connectionLimits } from './connection-limits.ts';
import { FairTurns } from './fair-turns.ts';
import { TokenFastPath } from './fast-path/fast-path.ts';
import { HostTokenEndpoint } from './host-token.ts';
import { openListener, type Listener, type ListenerOptions } from './listener.ts';
import type { Observer } from './request-record.ts';
import { openPassthrough, type Passthrough } from './passthrough.ts';
import { createRouter } from './router.ts';
import { DecisionCache, type Admit } from './decision-cache.ts';
import type { ResourceUses } from '../grants/resource-uses.ts';
import { TokenEndpoint } from './token-endpoint.ts';
import { ThrottledPods, type ThrottleLimit } from '../callers/throttled-pods.ts';
import type { ObjectWait } from './wait-for-object.ts';

/**
 * Pods take turns at the upstream, so the queue of one pod delays each other pod by one fetch.
 * Fewer fetches than a pod may have connections, so that the excess gets a 429. Azure SDKs request
 * a handful of resources.
 */
const callerMaxima = { fetches: 50, waiting: 512, pendingObjects: 32 };

/** At five calls of the metadata service per second, 16 take three seconds. */
const relayMaxima = { fetches: 16, waiting: 128, pendingObjects: 0 };

/** The agent sees only what the kernel lets through, and reports a caller that uses half of it. */
const shareOfRate = 0.5;

/** Names of the token limits in metrics and Events. */
const limitNames = {
  fetches: 'tokens',
  waiting: 'requests',
  pendingObjects: 'pending_objects',
  resources: 'resources',
} as const;

export interface Server extends Required<Pick<Part, 'samples'>>, AsyncDisposable {
  /** Of the first listener. */
  readonly port: number;
  readonly policy: GrantPolicy;
  readonly throttled: Pick<ThrottledPods, 'of'>;
  /** Stops accepting, lets requests under way finish for at most `maxMs`, then cuts the rest. */
  drain(maxMs: number): Promise<void>;
}

export interface ServerOptions {
  /** The listening socket of the first listener, if another process holds it. */
  readonly held?: Pick<HeldListener, 'descriptor' | 'isShared' | 'untilAlone'> | undefined;
  readonly config: Config;
  readonly tuning: Tuning;
  readonly kernel: Pick<Kernel, 'attest' | 'findCgroupUid'>;
  readonly state: ClusterState;
  readonly broker: TokenBroker;
  readonly uses: ResourceUses;
  readonly observer: Observer;
  readonly loopDetection: LoopDetection;
  readonly clock: Clock;
  readonly log: Logger;
}

/** @throws StartError when an address or port cannot be bound. */
export async function openServer(options: ServerOptions): Promise<Server> {
  const { config, tuning, state, clock, log } = options;
  await using opening = new AsyncDisposableStack();
  const throttled = opening.use(new ThrottledPods(clock));
  const onThrottled = (limitKey: string, limit: ThrottleLimit): void => {
    const pod = podOfLimitKey(limitKey, state.pods);
    if (pod === undefined) return;
    throttled.note(pod.uid, limit);
    options.observer.onThrottled(pod, limit);
  };
  const passthrough = opening.use(
    openPassthrough({
      endpoint: `http://${config.metadataIp}:${config.metadataPort}`,
      timeoutMs: tuning.imdsTimeoutMs,
      policy: {
        blockInstanceMetadata: config.blockInstanceMetadata,
        allowedAreas: config.allowedAreas,
      },
      limits: new CallerLimits(relayMaxima, (limitKey) => onThrottled(limitKey, 'metadata')),
      loopDetection: options.loopDetection,
      clock,
    }),
  );
  const policy: GrantPolicy = {
    strict: config.strictIdentity,
    graceMs: tuning.bindingGraceMs,
    hostNetwork: config.hostNetwork,
  };
  const refused = { per_caller: 0, total: 0 };
  const rates = new CallerRates(
    shareOfRate * connectRate.perSec,
    shareOfRate * connectRate.burst,
    () => clock.monotonicMs(),
  );
  const isRateLimited = config.redirect !== 'none';
  const listeners: Listener[] = [];
  const shared = createHandlers(options, passthrough, policy, (limitKey, limit) =>
    onThrottled(limitKey, limitNames[limit]),
  );
  const hosts = listenHosts(config);
  const limits = connectionLimits(hosts.length);
  for (const host of hosts) {
    const listener = await listenAt(host, {
      ...shared,
      ...(host === config.listenIp ? givenSocket(options) : {}),
      port: config.listenPort,
      limits,
      onConnection: (caller) => {
        shared.onConnection(caller);
        if (isRateLimited && rates.isBeyond(caller.limitKey)) {
          onThrottled(caller.limitKey, 'connection_rate');
        }
      },
      onTooMany: (limit, limitKey) => {
        refused[limit]++;
        if (limitKey !== undefined) onThrottled(limitKey, 'connections');
      },
    });
    opening.use(listener);
    listeners.push(listener);
    log.info({ host, port: listener.port }, 'listening');
  }
  opening.use(
    resetGonePods({ pods: state.pods, listeners, clock, log: log.child({ component: 'pods' }) }),
  );
  const opened = opening.move();
  return {
    port: listeners[0]?.port ?? 0,
    policy,
    throttled,
    samples: () => [
      {
        metric: 'nmi_connections',
        value: listeners.reduce((sum, { connections }) => sum + connections, 0),
      },
      ...samplesBy('nmi_connections_refused_total', 'limit', refused),
    ],
    drain: async (maxMs) => {
      await Promise.all(listeners.map((listener) => listener.drain(maxMs)));
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/**
 * While another agent accepts from the same socket, this one waits until its watches have synced, or the other
 * one has ended: with an API server that did not answer, half of the connections were refused here.
 */
function givenSocket({ held, state }: ServerOptions) {
  if (held?.isShared !== true) return { descriptor: held?.descriptor };
  const { promise, resolve } = Promise.withResolvers<undefined>();
  void held.untilAlone.then(() => resolve(undefined));
  void state.watches.whenSynced().then(
    () => resolve(undefined),
    () => undefined,
  );
  return { descriptor: held.descriptor, mayAccept: promise };
}

type Handlers = Omit<ListenerOptions, 'host' | 'port' | 'limits' | 'onTooMany'>;

/** The handlers of requests, the same for every listener. */
function createHandlers(
  options: ServerOptions,
  passthrough: Passthrough,
  policy: GrantPolicy,
  onBeyond: OnBeyond,
): Handlers {
  const { config, tuning, kernel, state, broker, observer, loopDetection, clock, log } = options;
  const objectWait: ObjectWait = {
    clock,
    waiters: state.waiters,
    limits: new CallerLimits(callerMaxima, onBeyond),
    maxWaitMs: tuning.lateObjectWaitMs,
  };
  const admit: Admit = (grant, resource) =>
    options.uses.admit(grant, resource, (limitKey) => onBeyond(limitKey, 'resources'));
  const decisions = new DecisionCache({ clusterState: state, policy, admit, clock });
  const tokens = new TokenEndpoint({
    decisions,
    clusterState: state,
    broker,
    policy,
    objectWait,
    clock,
  });
  const onBug = bugReporter(log, clock, 'request failed');
  const turns = new FairTurns(() => clock.monotonicMs());
  const handle = createRouter({
    metadataHeaderRequired: config.metadataHeaderRequired,
    tokens,
    hostTokens: config.hostToken
      ? new HostTokenEndpoint({ clusterState: state, policy, admit, clock, endpoint: tokens })
      : undefined,
    passthrough,
    clusterState: state,
    objectWait,
    loopDetection,
    clock,
    observer,
    onBug,
  });
  return {
    clock,
    attest: (peer) => kernel.attest(peer),
    findCgroupUid: (cgroupId, candidates) => kernel.findCgroupUid(cgroupId, candidates),
    // A connection belongs to the pod that has the address when it is opened.
    onConnection: (caller) => caller.resolve(state.pods, state.places),
    handle,
    turns,
    fastPath: config.fastPath
      ? new TokenFastPath({ decisions, broker, clock, observer, turns, onBug })
      : undefined,
    onRefusal: ({ reason }) => observer.onRefusal(reason),
    onBug: bugReporter(log, clock, 'connection failed'),
  };
}

/** The addresses to listen on. `/host/token` needs loopback, and the redirect's address is not. */
function listenHosts({ listenIp, hostToken }: Config): readonly string[] {
  const hasLoopback = listenIp === '0.0.0.0' || listenIp === '127.0.0.1';
  return hostToken && !hasLoopback ? [listenIp, '127.0.0.1'] : [listenIp];
}

async function listenAt(host: string, options: Omit<ListenerOptions, 'host'>): Promise<Listener> {
  try {
    return await openListener({ ...options, host });
  } catch (error) {
    throw portError(error, `${host}:${options.port}`, '--nmi-port or --nmi-listen-address');
  }
}
