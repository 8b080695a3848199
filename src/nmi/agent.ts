/**
 * The composition root: creates every long-lived part, starts them in an order that never leaves
 * the node open, and stops them in reverse.
 *
 * Own address up → listener bound → redirect installed → watches synced → ready. Requests that come
 * before all watches are synced wait a moment and then get a 503; they never reach the real
 * service. Stopping drains requests and leaves the redirect in place.
 */
import { sleep, type Clock } from '../base/time/clock.ts';
import { openAdminPages, waitingForPort } from './admin/pages.ts';
import { openReadinessEvents } from './admin/readiness-events.ts';
import { StartupTaint } from './admin/startup-taint.ts';
import type { Logger } from '../base/logger.ts';
import type { Part } from './base/part.ts';
import { readiness } from './base/readiness.ts';
import type { Config } from './config/config.ts';
import { tuning as defaultTuning, type Tuning } from './config/tuning.ts';
import { openExplain } from './explain/agent-explain.ts';
import { openKernel } from './kernel/kernel.ts';
import { createOwnAccount } from './kube/accounts/own-account.ts';
import type { KubeClient } from './kube/api/client.ts';
import { EventWriter } from './kube/events/event-writer.ts';
import { ResourceUses } from './grants/resource-uses.ts';
import { openServer } from './server/server.ts';
import { LoopDetection } from './sources/imds/loop-detection.ts';
import { openConfiguredClient } from './state/configured-client.ts';
import { openClusterState } from './state/cluster-state.ts';
import { letsNodePodsThrough, openNodePods } from './state/node-pods.ts';
import { giveBackSpareMemory } from '../base/spare-memory.ts';
import { exportEventLoopDelay } from './telemetry/event-loop-delay.ts';
import { exportParts } from './telemetry/export-parts.ts';
import { openAudit } from './telemetry/audit/open-audit.ts';
import { Telemetry } from './telemetry/telemetry.ts';
import { openTokens } from './tokens/tokens.ts';

export interface Agent {
  readonly listenPort: number;
  /** Drains and closes everything but the redirect. */
  stop(): Promise<void>;
}

export interface AgentOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  /** Receives whole lines of the audit stream, newline included. Returns false if one was dropped. */
  readonly stdout: (line: string) => boolean;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Aborts the start, which then rejects with the signal's reason. Anything installed stays. */
  readonly stop?: AbortSignal;
  /** Limits that differ from the product's, for tests. */
  readonly tuning?: Partial<Tuning>;
}

/** @throws StartError with a remedy when the agent cannot run at all. */
export async function startAgent(given: AgentOptions): Promise<Agent> {
  const { config, log, stop } = given;
  const tuning: Tuning = { ...defaultTuning, ...given.tuning };
  await using starting = new AsyncDisposableStack();
  const telemetry = new Telemetry({
    log: log.child({ component: 'token' }),
    clock: given.clock,
    oldNames: config.oldMetrics,
    byIdentity: config.identityMetrics,
  });
  const { metrics, clients } = telemetry;
  const clock = exportEventLoopDelay(metrics, given.clock);
  const options: AgentOptions = { ...given, clock };
  const audit = starting.use(await openAudit(options));
  const client = starting.use(await openConfiguredClient(options));
  stop?.throwIfAborted();
  let followPort = (): void => undefined;
  const kernel = starting.use(openKernel({ ...options, onStatus: () => followPort() }));
  await kernel.prepare(stop);
  stop?.throwIfAborted();
  // The watches begin while the kernel side is still starting: nothing is served before both are
  // up.
  const state = starting.use(
    openClusterState({
      config,
      tuning,
      client,
      clock,
      log,
      attests: kernel.mode === 'ebpf',
      network: kernel.network,
    }),
  );
  state.pods.onChange((uids) => clients.forget(uids.filter((uid) => !state.pods.byUid(uid))));
  const events = config.events ? starting.use(openEventWriter(options, client)) : undefined;
  if (events !== undefined) {
    const { identityEventJitterMs: jitterMs, identityBreakMs: breakMs } = tuning;
    starting.use(telemetry.writeEvents({ events, node: config.node, jitterMs, breakMs }));
  }
  const uses = new ResourceUses(clock);
  if (audit !== undefined) telemetry.add(audit.renderer(state, uses));
  const loopDetection = new LoopDetection();
  const core = { ...options, tuning, client, kernel, state, observer: telemetry, loopDetection };
  const tokens = starting.use(await openTokens({ ...core, clusterState: state }));
  const { broker } = tokens;
  const optional = [audit, events].filter((part) => part !== undefined);
  const others: Part[] = [kernel, state, tokens, ...optional];
  const isReady = (): boolean => readiness(others).ready;
  const server = starting.use(await openServer({ ...core, broker, uses, isReady }));
  followPort = () => server.followPort();
  const parts: Part[] = [...others, server];
  // Before the kernel side is up, so that `nmi explain` can report what keeps it down.
  starting.use(
    await openExplain({
      ...core,
      broker,
      parts,
      policy: server.policy,
      letsNodePodsThrough: letsNodePodsThrough(config),
      seen: clients,
      throttledOf: (uid) => server.throttled.of(uid),
    }),
  );
  await kernel.start();
  starting.use(openNodePods({ ...core, policy: server.policy }));
  // No mutation: only the size of a process that has run for long shows it.
  starting.use(
    giveBackSpareMemory(clock, log.child({ component: 'memory' }), () => kernel.trimMemory()),
  );
  exportParts(metrics, parts);
  starting.use(
    await openAdminPages({
      clock,
      config,
      metrics,
      parts,
      hasBeenActive: () => kernel.hasBeenActive,
      onTaken: kernel.hasSlots ? (port) => log.info({ port }, waitingForPort) : undefined,
    }),
  );
  if (events !== undefined) {
    const ownAccount = createOwnAccount({ client });
    starting.use(
      openReadinessEvents({ events, ownAccount, readiness: () => readiness(parts), clock }),
    );
  }
  if (config.startupTaint !== '') {
    starting.use(openStartupTaint(options, client, () => readiness(parts).ready));
  }

  const running = starting.move();
  return {
    listenPort: server.port,
    stop: async () => {
      if (await kernel.leave()) await sleep(clock, lastConnectsMs);
      await server.drain(tuning.drainTimeoutMs);
      await running.disposeAsync();
    },
  };
}

/** Where new connections go to another agent, those that were on their way here are still accepted. */
const lastConnectsMs = 300;

function openStartupTaint(
  { config, clock, log }: AgentOptions,
  client: KubeClient,
  isReady: () => boolean,
): StartupTaint {
  return new StartupTaint({
    client,
    clock,
    node: config.node,
    key: config.startupTaint,
    random: Math.random,
    isReady,
    log: log.child({ component: 'taint' }),
  });
}

function openEventWriter({ config, clock, log }: AgentOptions, client: KubeClient): EventWriter {
  return new EventWriter({
    client,
    clock,
    instance: config.node,
    random: Math.random,
    log: log.child({ component: 'events' }),
  });
}
