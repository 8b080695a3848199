/**
 * The composition root: makes every long-lived part, starts them in the order that never leaves
 * the node open, and stops them in reverse.
 *
 * Own address up → listener bound → redirect installed → watches synced → ready. Requests that come
 * before the watches are synced wait a moment and are then told to retry; they never reach the real
 * service. Stopping drains and leaves the redirect where it is.
 */
import type { Clock } from '../cache/clock.ts';
import type { PodIndex } from '../cache/index/pod-index.ts';
import { CgroupIndex } from '../redirect/cgroup/cgroup-index.ts';
import { nativeModule } from '../redirect/native/addon.ts';
import type { Redirect } from '../redirect/redirect.ts';
import { openAdminServers, type AdminServers } from './admin/pages.ts';
import { openExplainServer } from './explain/socket.ts';
import { describeAtScrape } from './telemetry/gauges.ts';
import { describeKernelAtScrape } from './telemetry/kernel-gauges.ts';
import { createMetrics, type Metrics } from './telemetry/metrics.ts';
import { readHealth } from './admin/node-health.ts';
import { presetSeries } from './telemetry/preset-series.ts';
import { readiness, type Condition } from './base/readiness.ts';
import { buildInfo, userAgent } from './base/build-info.ts';
import { noCgroups, type FindCgroupUid } from './grants/caller.ts';
import { chooseRedirect } from './kernel/choose-redirect.ts';
import type { Config } from './config/config.ts';
import { readEntraCa } from './sources/entra/ca-file.ts';
import { openEntraUpstream, type ProofDemand } from './sources/entra/open-entra.ts';
import { explain, type Sight } from './explain/explain.ts';
import { resetGonePods } from './server/close-stale-connections.ts';
import { dropWithGoneSecrets } from './tokens/evict-deleted-secrets.ts';
import { createSecretReader } from './kube/accounts/secrets.ts';
import { openKubeClient, type KubeClient } from './kube/api/client.ts';
import { connectionLimits, type ConnectionLimits } from './server/connection-limits.ts';
import { openListener, type Listener } from './server/listener.ts';
import type { Logger } from './base/logger.ts';
import { networkCode } from './base/network-code.ts';
import { openNodeKnowledge, type NodeKnowledge } from './state/cluster-state.ts';
import { createObserver } from './telemetry/telemetry.ts';
import { RedirectKeeper } from './kernel/reconciler.ts';
import { openRequestPath, type RequestPath } from './server/server.ts';
import type { EntraSource } from './sources/entra/entra.ts';
import { EntraNetworkError } from './sources/entra/network.ts';
import { StartupTaint } from './admin/startup-taint.ts';
import { giveBackSpareMemory } from './state/spare-memory.ts';
import { StartError } from './base/start-error.ts';
import { IdentitiesInUse } from './grants/identities-in-use.ts';
import { watchConditions } from './state/watch-conditions.ts';

export interface Agent {
  readonly listenPort: number;
  /** Drains and closes everything but the redirect. */
  stop(): Promise<void>;
}

export interface AgentOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** @throws StartError when the agent cannot run at all, with what to do about it. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { config, clock, log } = options;
  await using starting = new AsyncDisposableStack();
  const metrics = createMetrics();
  presetSeries(metrics);
  metrics.set('nmi_build_info', 1, { version: buildInfo.version, commit: buildInfo.commit });
  const observer = createObserver(metrics, log.child({ component: 'token' }), clock);

  const entraCaPem = await readEntraCa(config.entraCaFile);
  const client = starting.use(await openClient(options));
  const { redirect, why, podsRoot, counts } = chooseRedirect(config);
  log.info({ mode: redirect.mode, why }, 'redirect chosen');
  const findCgroupUid = podsRoot === undefined ? noCgroups : cgroupFinder(podsRoot);
  await redirect.prepare().catch((error: unknown) => {
    throw new StartError('UNAVAILABLE', 'the listen address could not be brought up', error);
  });
  // The watches begin while the kernel side is still coming up: nothing is served before both.
  const knowledge = starting.use(
    openNodeKnowledge({ config, client, clock, log, attests: redirect.mode === 'ebpf' }),
  );
  const demand = new IdentitiesInUse(knowledge);
  const entra = starting.use(openEntra(options, client, knowledge.pods, demand, entraCaPem));
  const path = starting.use(
    openRequestPath({ config, knowledge, demand, observer, clock, log, entra }),
  );
  const listeners: Listener[] = [];
  const hosts = listenHosts(config);
  const callers = { redirect, findCgroupUid, pods: knowledge.pods };
  const limits = connectionLimits(hosts.length);
  for (const host of hosts) {
    const listener = starting.use(await openAt(host, options, callers, limits, path, metrics));
    listeners.push(listener);
    log.info({ host, port: listener.port }, 'listening');
  }
  starting.use(
    resetGonePods({
      pods: knowledge.pods,
      listeners,
      clock,
      log: log.child({ component: 'pods' }),
    }),
  );
  starting.use(
    dropWithGoneSecrets({
      ...{ broker: path.broker, reader: createSecretReader(client), clock },
      log: log.child({ component: 'token' }),
    }),
  );
  const keeper = starting.use(
    new RedirectKeeper({
      redirect,
      intervalMs: config.redirectIntervalMs,
      clock,
      log: log.child({ component: 'redirect' }),
      onCheck: (outcome) => {
        metrics.inc('nmi_redirect_installs_total', { outcome });
      },
    }),
  );
  const redirectMode = redirect.mode;
  const sight: Sight = {
    ...{ knowledge, policy: path.policy, broker: path.broker },
    health: () => readHealth({ nodeName: config.node, redirectMode, keeper, knowledge }),
  };
  // Before the kernel side is up: what keeps it down is worth asking for.
  starting.use(
    await openExplainServer({
      path: config.explainSocket,
      explain: (query) => explain(query, sight, clock.wallMs()),
      log: log.child({ component: 'explain' }),
    }),
  );
  await keeper.start();

  starting.use(
    giveBackSpareMemory({
      whenSynced: () => knowledge.watches.whenSynced(),
      giveBack: () => nativeModule().trimMemory(),
      ...{ clock, log: log.child({ component: 'memory' }) },
    }),
  );
  const conditions = conditionsOf(keeper, knowledge, config.watchStalenessLimitMs);
  describeAtScrape(metrics, {
    ...{ knowledge, broker: path.broker, listeners, keeper, redirectMode, conditions },
  });
  if (counts !== undefined) describeKernelAtScrape(metrics, counts);
  starting.use(await openAdmin(config, metrics, conditions, keeper));
  if (config.startupTaint !== '') {
    starting.use(
      new StartupTaint({
        ...{ client, clock, node: config.node, key: config.startupTaint, random: Math.random },
        isReady: () => readiness(conditions).ready,
        log: log.child({ component: 'taint' }),
      }),
    );
  }

  const running = starting.move();
  return {
    listenPort: listeners[0]?.port ?? 0,
    stop: async () => {
      await Promise.all(listeners.map((listener) => listener.drain(config.drainTimeoutMs)));
      await running.disposeAsync();
    },
  };
}

function openEntra(
  { config, clock, environment }: AgentOptions,
  client: KubeClient,
  pods: PodIndex,
  demand: ProofDemand,
  caPem: string | undefined,
): EntraSource {
  try {
    return openEntraUpstream({
      timeoutMs: config.entraTimeoutMs,
      userAgent: userAgent(config.customUserAgent),
      ...{ client, pods, demand, clock, environment, caPem },
    });
  } catch (error) {
    if (!(error instanceof EntraNetworkError)) throw error;
    throw new StartError('CONFIG', error.message, error);
  }
}

async function openClient({ config, clock, environment }: AgentOptions): Promise<KubeClient> {
  try {
    return await openKubeClient({
      kubeconfigPath: config.kubeconfigPath,
      environment,
      userAgent: userAgent(config.customUserAgent),
      clock,
    });
  } catch (error) {
    throw new StartError('CONFIG', 'no usable Kubernetes configuration', error);
  }
}

/** Where to listen. `/host/token` needs loopback, which the redirect's own address is not. */
function listenHosts(config: Config): readonly string[] {
  const { listenIp, hostToken } = config;
  const hasLoopback = listenIp === '0.0.0.0' || listenIp === '127.0.0.1';
  return hostToken && !hasLoopback ? [listenIp, '127.0.0.1'] : [listenIp];
}

/** What says who opened a connection. */
interface Callers {
  readonly redirect: Redirect;
  readonly findCgroupUid: FindCgroupUid;
  readonly pods: PodIndex;
}

function cgroupFinder(podsRoot: () => string | undefined): FindCgroupUid {
  const index = new CgroupIndex({ podsRoot });
  return (cgroupId, candidates) => index.resolve(cgroupId, candidates)?.podUid;
}

async function openAt(
  host: string,
  { config, clock, log }: AgentOptions,
  { redirect, findCgroupUid, pods }: Callers,
  limits: ConnectionLimits,
  { handle, hits }: RequestPath,
  metrics: Metrics,
): Promise<Listener> {
  try {
    return await openListener({
      host,
      port: config.listenPort,
      clock,
      serverHeader: `IMDS/150.870.65.0 nmi/${buildInfo.version}`,
      attest: (peer) => redirect.attest(peer),
      findCgroupUid,
      // A connection belongs to the pod that has the address when it is opened.
      onConnection: (caller) => caller.resolve(pods),
      handle,
      openHits: (caller) => hits.open(caller),
      limits,
      onTooMany: (whose) => {
        metrics.inc('nmi_connections_refused_total', { whose });
      },
      onRefusal: (answer) => {
        metrics.inc('nmi_requests_total', { route: 'refused', reason: answer.reason });
      },
      onBug: (error) => {
        log.error({ err: error instanceof Error ? error.stack : 'unknown' }, 'connection failed');
      },
    });
  } catch (error) {
    const where = `${host}:${config.listenPort}`;
    throw portError(error, where, '--nmi-port or --nmi-listen-address');
  }
}

function conditionsOf(
  keeper: RedirectKeeper,
  knowledge: NodeKnowledge,
  stalenessLimitMs: number,
): readonly Condition[] {
  return [
    { name: 'redirect', problem: () => keeper.problem() },
    ...watchConditions(knowledge.watches, stalenessLimitMs),
    { name: 'addresses_believed', problem: () => knowledge.addressTrust.problem() },
  ];
}

async function openAdmin(
  config: Config,
  metrics: Metrics,
  conditions: readonly Condition[],
  keeper: RedirectKeeper,
): Promise<AdminServers> {
  const { probePort, metricsPort } = config;
  try {
    return await openAdminServers({
      ...{ probePort, metricsPort, metrics, conditions },
      hasBeenActive: () => keeper.hasBeenActive,
    });
  } catch (error) {
    const where = `one of the ports ${probePort} and ${metricsPort}`;
    throw portError(error, where, '--http-probe-port or --prometheus-port');
  }
}

function portError(error: unknown, where: string, flags: string): StartError {
  const known: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is in use by another process; ${flags} chooses another`,
    EACCES: `no permission to bind ${where}; ${flags} chooses another`,
    EADDRNOTAVAIL: `this node does not hold the address ${where}; ${flags} chooses another`,
  };
  const text = known[networkCode(error)] ?? `${where} could not be bound`;
  return new StartError('UNAVAILABLE', text, error);
}
