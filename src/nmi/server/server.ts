/** Wires the request path: listeners, router, endpoints. */
import type { Clock } from '../../base/time/clock.ts';
import { bugReporter } from '../../base/lines/bug-reporter.ts';
import type { Logger } from '../../base/logger.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import { samplesBy, type Part } from '../base/part.ts';
import { portError } from '../base/port-error.ts';
import type { Config } from '../config/config.ts';
import type { Tuning } from '../config/tuning.ts';
import { podOfLimitKey } from '../callers/caller.ts';
import type { GrantPolicy } from '../grants/choose-identity.ts';
import { connectRate } from '../../redirect/redirect.ts';
import type { NodeRedirect } from '../kernel/node-redirect.ts';
import type { LoopDetection } from '../sources/imds/loop-detection.ts';
import type { ClusterState } from '../state/cluster-state.ts';
import type { TokenBroker } from '../tokens/broker.ts';
import { CallerLimits, CallerRates, type OnBeyond } from './caller-limits.ts';
import { resetGonePods } from './close-stale-connections.ts';
import { connectionLimits } from './connection-limits.ts';
import { FairTurns } from './fair-turns.ts';
import { TokenFastPath } from './fast-path/fast-path.ts';
import { HostTokenEndpoint } from './host-token.ts';
import { Listener, type ListenerOptions } from './listener.ts';
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

export interface Server extends Required<Part>, AsyncDisposable {
  /** Of the first listener. */
  readonly port: number;
  readonly policy: GrantPolicy;
  readonly throttled: Pick<ThrottledPods, 'of'>;
  /** Listens elsewhere if the agent has another port than before. */
  followPort(): void;
  /** Stops accepting, lets requests under way finish for at most `maxMs`, then cuts the rest. */
  drain(maxMs: number): Promise<void>;
}

export interface ServerOptions {
  readonly config: Config;
  readonly tuning: Tuning;
  readonly kernel: Pick<NodeRedirect, 'attest' | 'findCgroupUid' | 'port' | 'isAlone' | 'hasSlots'>;
  readonly state: ClusterState;
  readonly broker: TokenBroker;
  readonly uses: ResourceUses;
  /** Whether all but the server is ready. */
  readonly isReady: () => boolean;
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
    const listener = new Listener({
      ...shared,
      host,
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
  }
  const [first, ...others] = listeners;
  for (const listener of others) await listen(listener, config.listenPort, log);
  const turn = first === undefined ? undefined : opening.use(await listenInTurn(first, options));
  opening.use(
    resetGonePods({ pods: state.pods, listeners, clock, log: log.child({ component: 'pods' }) }),
  );
  const opened = opening.move();
  return {
    port: listeners[0]?.port ?? 0,
    policy,
    throttled,
    followPort: () => turn?.followPort(),
    conditions: [{ name: 'listener', problem: () => turn?.problem() }],
    samples: () => [
      {
        metric: 'nmi_connections',
        value: listeners.reduce((sum, { connections }) => sum + connections, 0),
      },
      ...samplesBy('nmi_connections_refused_total', 'limit', refused),
    ],
    drain: async (maxMs) => {
      turn?.[Symbol.dispose]();
      await Promise.all(listeners.map((listener) => listener.drain(maxMs)));
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

interface Turn extends Disposable {
  /** Why it does not listen yet. */
  problem(): string | undefined;
  /** Listens elsewhere, or nowhere, if the agent has another port than before or none. */
  followPort(): void;
}

const turnPollMs = 50;

const waiting = 'another agent takes connections until this one is ready';
const waitsForTurn = 'another agent takes connections, this one will once it is ready';

/**
 * Listens at once if no other agent of this node takes connections, else when this one is ready: the redirect moves to
 * the younger one as soon as it listens. With an API server that did not answer, connections would be refused here. So
 * until it was ready, it leaves them to another one that begins to listen.
 */
export async function listenInTurn(
  listener: Pick<Listener, 'host' | 'port' | 'listen' | 'unlisten'>,
  {
    kernel,
    clock,
    log,
    isReady,
  }: Pick<ServerOptions, 'clock' | 'log' | 'isReady'> & {
    readonly kernel: Pick<NodeRedirect, 'port' | 'isAlone' | 'hasSlots'>;
  },
): Promise<Turn> {
  let problem: string | undefined = waiting;
  let port: number | undefined;
  let job: Disposable | undefined;
  const begin = async (): Promise<void> => {
    const wanted = kernel.port;
    if (wanted === 0) throw new Error('this agent has no port: two others have both');
    await listen(listener, wanted, log);
    port = wanted;
    problem = undefined;
  };
  const end = (): void => {
    port = undefined;
    listener.unlisten();
  };
  const beginLater = (): void => {
    job?.[Symbol.dispose]();
    job = startPeriodicJob(clock, turnPollMs, async () => {
      const wasReady = isReady();
      try {
        if (wasReady || kernel.isAlone()) {
          if (port === undefined) await begin();
          if (wasReady) return undefined;
        } else if (port !== undefined) {
          problem = waiting;
          log.info({}, waitsForTurn);
          end();
        }
      } catch (error) {
        problem = error instanceof Error ? error.message : 'unknown error';
      }
      return turnPollMs;
    });
  };
  if (kernel.isAlone()) {
    await begin().catch((error: unknown) => {
      // An agent that had this port may be about to take its own.
      if (!kernel.hasSlots) throw error;
      problem = error instanceof Error ? error.message : 'unknown error';
    });
  } else {
    log.info({}, waitsForTurn);
  }
  beginLater();
  return {
    problem: () => problem,
    followPort: () => {
      if (port === undefined || port === kernel.port) return;
      end();
      beginLater();
    },
    [Symbol.dispose]: () => job?.[Symbol.dispose](),
  };
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

/** @throws StartError */
async function listen(
  listener: Pick<Listener, 'host' | 'port' | 'listen'>,
  port: number,
  log: Logger,
): Promise<void> {
  try {
    await listener.listen(port);
    log.info({ host: listener.host, port: listener.port }, 'listening');
  } catch (error) {
    const where = `${listener.host}:${port}`;
    throw portError(error, where, '--nmi-port or --nmi-listen-address');
  }
}
