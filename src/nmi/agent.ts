/**
 * The composition root: makes every long-lived part, starts them in the order that never leaves
 * the node open, and stops them in reverse.
 *
 * Own address up → listener bound → redirect installed → watches synced → ready. Requests that come
 * before the watches are synced wait a moment and are then told to retry; they never reach the real
 * service. Stopping drains and leaves the redirect where it is.
 */
import type { Clock } from '../cache/clock.ts';
import { GrantIndex } from '../cache/grant-index.ts';
import { PodIndex } from '../cache/pod-index.ts';
import { openAdminServers, type AdminServers } from './admin/admin-server.ts';
import { createMetrics } from './admin/metrics.ts';
import { presetSeries } from './admin/preset-series.ts';
import type { Condition } from './admin/readiness.ts';
import type { GrantKnowledge } from './authorise.ts';
import { buildInfo, userAgent } from './build-info.ts';
import { chooseRedirect } from './choose-redirect.ts';
import type { Config } from './config.ts';
import { createFront } from './front.ts';
import { Holds } from './holds.ts';
import { HostTokenEndpoint } from './host-token.ts';
import { openKubeClient } from './kube/client.ts';
import { openWatches, type Watches } from './kube/watches.ts';
import { openListener, type Listener } from './listener.ts';
import type { Logger } from './logger.ts';
import { createObserver } from './observe.ts';
import { openPassthrough } from './passthrough.ts';
import type { Patience } from './patience.ts';
import { RedirectKeeper } from './redirect-keeper.ts';
import { openImdsSource } from './sources/imds.ts';
import { StartError } from './start-error.ts';
import { TokenBroker } from './token-broker.ts';
import { TokenEndpoint } from './token-endpoint.ts';

export interface Agent {
  readonly listenPort: number;
  readonly adminPorts: readonly number[];
  /** Drains and closes everything but the redirect. */
  stop(): Promise<void>;
}

export interface AgentOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Requests held at once for an object that has not arrived. */
const maxHeldRequests = 2_000;

/** @throws StartError when the agent cannot run at all, with what to do about it. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { config, clock, log, environment } = options;
  await using starting = new AsyncDisposableStack();

  const metrics = createMetrics();
  presetSeries(metrics);
  metrics.set('nmi_build_info', 1, { version: buildInfo.version, commit: buildInfo.commit });
  const observer = createObserver(metrics, log.child({ component: 'token' }), clock);
  const client = starting.use(
    await openKubeClient({
      kubeconfigPath: config.kubeconfigPath,
      environment,
      userAgent: userAgent(config.customUserAgent),
      clock,
    }).catch((error: unknown) => {
      throw new StartError('CONFIG', 'no usable Kubernetes configuration', error);
    }),
  );

  // What is known, and who waits for it.
  const onListenerError = reportListenerBug(log);
  const pods = new PodIndex(clock, onListenerError);
  const grants = new GrantIndex(pods, onListenerError);
  const holds = new Holds({ clock, maxWaiters: maxHeldRequests });
  grants.onChange(() => {
    holds.wake();
  });
  let watches: Watches | undefined;
  const knowledge: GrantKnowledge = { pods, grants, isSynced: () => watches?.synced ?? false };
  const patience: Patience = { clock, holds, maxWaitMs: config.lateObjectWaitMs };
  const policy = { strict: config.strictIdentity, graceMs: config.bindingGraceMs };

  // The way of a request.
  const endpoint = `http://${config.metadataIp}:${config.metadataPort}`;
  const source = starting.use(
    openImdsSource({
      endpoint,
      userAgent: userAgent(config.customUserAgent),
      timeoutMs: config.imdsTimeoutMs,
      clock,
    }),
  );
  const passthrough = starting.use(
    openPassthrough({
      endpoint,
      timeoutMs: config.imdsTimeoutMs,
      policy: {
        blockInstanceMetadata: config.blockInstanceMetadata,
        allowedAreas: config.allowedAreas,
      },
    }),
  );
  const broker = new TokenBroker({
    source,
    clock,
    maxEntries: config.tokenCacheSize,
    observer,
  });
  const tokens = new TokenEndpoint({
    knowledge,
    broker,
    policy,
    patience,
    clock,
    onDecision: observer.onDecision,
  });
  const hostTokens = config.hostToken
    ? new HostTokenEndpoint({ knowledge, policy, clock, endpoint: tokens })
    : undefined;
  const front = createFront({
    metadataHeaderRequired: config.metadataHeaderRequired,
    tokens,
    hostTokens,
    passthrough,
    knowledge,
    patience,
    onHandled: observer.onHandled,
    onBug: (error) => {
      log.error({ err: error instanceof Error ? error.stack : 'unknown' }, 'request failed');
    },
  });

  // Address, listener, redirect: in this order nothing is ever redirected into the void for long,
  // and nothing reaches the real service once the redirect stands.
  const redirect = chooseRedirect(config);
  const keeper = new RedirectKeeper({
    redirect,
    intervalMs: config.redirectIntervalMs,
    clock,
    log: log.child({ component: 'redirect' }),
    onCheck: (outcome) => {
      metrics.inc('nmi_redirect_installs_total', { outcome });
    },
  });
  await redirect.prepare().catch((error: unknown) => {
    throw new StartError('UNAVAILABLE', 'the listen address could not be brought up', error);
  });
  const listeners: Listener[] = [];
  for (const host of listenHosts(config)) {
    const listener = await openListener({
      host,
      port: config.listenPort,
      clock,
      serverHeader: `IMDS/150.870.65.0 nmi/${buildInfo.version}`,
      attest: (peer) => redirect.attest(peer),
      handle: front,
      onParserRefusal: (answer) => {
        metrics.inc('nmi_requests_total', { route: 'refused', reason: answer.reason });
      },
    }).catch((error: unknown) => {
      throw portError(error, `${host}:${config.listenPort}`, '--nmi-port or --nmi-listen-address');
    });
    listeners.push(starting.use(listener));
    log.info({ host, port: listener.port }, 'listening');
  }
  starting.use(keeper);
  await keeper.start();

  watches = starting.use(
    openWatches({
      client,
      node: config.node,
      stores: {
        pods,
        identities: grants.identities,
        bindings: grants.bindings,
        exceptions: grants.exceptions,
      },
      log: log.child({ component: 'kube' }),
      clock,
    }),
  );
  const watching = watches;
  const conditions: readonly Condition[] = [
    { name: 'redirect', problem: () => keeper.problem() },
    {
      name: 'watches',
      problem: () =>
        watching.synced ? undefined : `waiting for ${watching.unsynced().join(', ')}`,
    },
  ];
  const relistsCounted = new Map<string, number>();
  const admin = starting.use(await openAdmin());
  metrics.onScrape(fillGauges);
  void watching.whenSynced().then(
    () => {
      holds.wake();
      log.info({ pods: pods.stats.pods, ...grants.stats }, 'watches are synced');
    },
    () => undefined,
  );

  const running = starting.move();
  return {
    listenPort: listeners[0]?.port ?? 0,
    adminPorts: admin.ports,
    stop: async () => {
      await Promise.all(listeners.map((listener) => listener.drain(config.drainTimeoutMs)));
      await running.disposeAsync();
    },
  };

  function openAdmin(): Promise<AdminServers> {
    return openAdminServers({
      probePort: config.probePort,
      metricsPort: config.metricsPort,
      metrics,
      conditions,
      hasBeenActive: () => keeper.hasBeenActive,
    }).catch((error: unknown) => {
      const ports = `${config.probePort} or ${config.metricsPort}`;
      throw portError(error, ports, '--http-probe-port or --prometheus-port');
    });
  }

  function fillGauges(): void {
    metrics.set('nmi_token_cache_entries', broker.cachedTokens);
    metrics.set('nmi_held_requests', holds.size);
    let connections = 0;
    for (const listener of listeners) connections += listener.connections;
    metrics.set('nmi_connections', connections);
    const { stats } = pods;
    metrics.set('nmi_index_pods', stats.pods, { kind: 'all' });
    metrics.set('nmi_index_pods', stats.hostNetwork, { kind: 'host_network' });
    metrics.set('nmi_index_pods', stats.ambiguousIps, { kind: 'ambiguous' });
    metrics.set('nmi_index_pods', grants.stats.boundPods, { kind: 'bound' });
    metrics.set('nmi_index_objects', grants.stats.identities, { kind: 'identities' });
    metrics.set('nmi_index_objects', grants.stats.bindings, { kind: 'bindings' });
    metrics.set('nmi_index_objects', grants.stats.exceptions, { kind: 'exceptions' });
    for (const [resource, watch] of Object.entries(watching.stats())) {
      metrics.set('nmi_watch_synced', watch.syncedOnce ? 1 : 0, { resource });
      metrics.set('nmi_watch_age_seconds', watch.lastContactAgeMs / 1000, { resource });
      const counted = relistsCounted.get(resource) ?? 0;
      metrics.inc('nmi_watch_relists_total', { resource }, watch.relists - counted);
      relistsCounted.set(resource, watch.relists);
    }
    metrics.set('nmi_redirect_up', keeper.problem() === undefined ? 1 : 0, { mode: redirect.mode });
    for (const condition of conditions) {
      const holdsNow = condition.problem() === undefined;
      metrics.set('nmi_ready', holdsNow ? 1 : 0, { condition: condition.name });
    }
  }
}

/** Where to listen. `/host/token` needs loopback, which the redirect's own address is not. */
function listenHosts(config: Config): readonly string[] {
  const { listenIp, hostToken } = config;
  const hasLoopback = listenIp === '0.0.0.0' || listenIp === '127.0.0.1';
  return hostToken && !hasLoopback ? [listenIp, '127.0.0.1'] : [listenIp];
}

function portError(error: unknown, where: string, flags: string): StartError {
  const code = (error as { code?: unknown }).code;
  const known: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is in use by another process; ${flags} chooses another`,
    EACCES: `no permission to bind ${where}; ${flags} chooses another`,
    EADDRNOTAVAIL: `this node does not hold the address ${where}; ${flags} chooses another`,
  };
  const text = typeof code === 'string' ? known[code] : undefined;
  return new StartError('UNAVAILABLE', text ?? `${where} could not be bound`, error);
}

function reportListenerBug(log: Logger): (error: unknown) => void {
  return (error) => {
    log.error({ err: error instanceof Error ? error.stack : 'unknown' }, 'index listener failed');
  };
}
