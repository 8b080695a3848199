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
import { openExplainServer } from './explain/socket.ts';
import type { Metrics } from './telemetry/metrics.ts';
import { userAgent } from './base/build-info.ts';
import { openAdminPages } from './admin/pages.ts';
import type { Part } from './base/part.ts';
import { portError } from './base/port-error.ts';
import { readiness } from './base/readiness.ts';
import { readHealth } from './explain/node-health.ts';
import { openKernel, type Kernel } from './kernel/kernel.ts';
import { exportParts } from './telemetry/export-parts.ts';
import type { Config } from './config/config.ts';
import { tuning as defaultTuning, type Tuning } from './config/tuning.ts';
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
import { openNodeKnowledge } from './state/cluster-state.ts';
import { createTelemetry } from './telemetry/telemetry.ts';
import { openRequestPath, type RequestPath } from './server/server.ts';
import type { EntraSource } from './sources/entra/entra.ts';
import { EntraNetworkError } from './sources/entra/network.ts';
import { StartupTaint } from './admin/startup-taint.ts';
import { giveBackSpareMemory } from './state/spare-memory.ts';
import { StartError } from './base/start-error.ts';
import { IdentitiesInUse } from './grants/identities-in-use.ts';

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
  /** Other limits than those of the product, for tests. */
  readonly tuning?: Partial<Tuning>;
}

/** @throws StartError when the agent cannot run at all, with what to do about it. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { config, clock, log } = options;
  const tuning: Tuning = { ...defaultTuning, ...options.tuning };
  await using starting = new AsyncDisposableStack();
  const { metrics, observer } = createTelemetry(log.child({ component: 'token' }), clock);

  const entraCaPem = await readEntraCa(config.entraCaFile);
  const client = starting.use(await openClient(options));
  const kernel = starting.use(openKernel(options));
  await kernel.prepare();
  // The watches begin while the kernel side is still coming up: nothing is served before both.
  const knowledge = starting.use(
    openNodeKnowledge({ config, tuning, client, clock, log, attests: kernel.mode === 'ebpf' }),
  );
  const demand = new IdentitiesInUse(knowledge);
  const entra = starting.use(
    openEntra(options, tuning.entraTimeoutMs, client, knowledge.pods, demand, entraCaPem),
  );
  const path = starting.use(
    openRequestPath({ config, tuning, knowledge, demand, observer, clock, log, entra }),
  );
  const listeners: Listener[] = [];
  const hosts = listenHosts(config);
  const limits = connectionLimits(hosts.length);
  for (const host of hosts) {
    const listener = starting.use(
      await openAt(host, options, kernel, knowledge.pods, limits, path, metrics),
    );
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
  const sight: Sight = {
    ...{ knowledge, policy: path.policy, broker: path.broker },
    health: () => readHealth({ nodeName: config.node, kernel, knowledge }),
  };
  // Before the kernel side is up: what keeps it down is worth asking for.
  starting.use(
    await openExplainServer({
      path: config.explainSocket,
      explain: (query) => explain(query, sight, clock.wallMs()),
      log: log.child({ component: 'explain' }),
    }),
  );
  await kernel.start();

  starting.use(
    giveBackSpareMemory({
      whenSynced: () => knowledge.watches.whenSynced(),
      giveBack: () => {
        kernel.trimMemory();
      },
      ...{ clock, log: log.child({ component: 'memory' }) },
    }),
  );
  const connections: Part = {
    samples: () => [
      {
        metric: 'nmi_connections',
        value: listeners.reduce((sum, listener) => sum + listener.connections, 0),
      },
    ],
  };
  const parts: readonly Part[] = [kernel, knowledge, path.broker, connections];
  exportParts(metrics, parts);
  starting.use(
    await openAdminPages({
      probePort: config.probePort,
      metricsPort: config.metricsPort,
      metrics,
      parts,
      hasBeenActive: () => kernel.hasBeenActive(),
    }),
  );
  if (config.startupTaint !== '') {
    starting.use(
      new StartupTaint({
        ...{ client, clock, node: config.node, key: config.startupTaint, random: Math.random },
        isReady: () => readiness(parts).ready,
        log: log.child({ component: 'taint' }),
      }),
    );
  }

  const running = starting.move();
  return {
    listenPort: listeners[0]?.port ?? 0,
    stop: async () => {
      await Promise.all(listeners.map((listener) => listener.drain(tuning.drainTimeoutMs)));
      await running.disposeAsync();
    },
  };
}

function openEntra(
  { config, clock, environment }: AgentOptions,
  timeoutMs: number,
  client: KubeClient,
  pods: PodIndex,
  demand: ProofDemand,
  caPem: string | undefined,
): EntraSource {
  try {
    return openEntraUpstream({
      timeoutMs,
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

async function openAt(
  host: string,
  { config, clock, log }: AgentOptions,
  kernel: Kernel,
  pods: PodIndex,
  limits: ConnectionLimits,
  { handle, fastPath }: RequestPath,
  metrics: Metrics,
): Promise<Listener> {
  try {
    return await openListener({
      host,
      port: config.listenPort,
      clock,
      attest: (peer) => kernel.attest(peer),
      findCgroupUid: (cgroupId, candidates) => kernel.findCgroupUid(cgroupId, candidates),
      // A connection belongs to the pod that has the address when it is opened.
      onConnection: (caller) => caller.resolve(pods),
      handle,
      fastPath,
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
