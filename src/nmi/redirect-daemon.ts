/**
 * The kernel side alone: installs the redirect, checks it at each interval, repairs drift, looks
 * callers up, and keeps the listening socket for the agent. For a node on which the process that
 * serves pods has no kernel privileges.
 */
import { openAdminPages, waitingForPort } from './admin/pages.ts';
import { giveBackSpareMemory } from '../base/spare-memory.ts';
import type { Config } from './config/config.ts';
import { mapLayout } from '../redirect/ebpf/settings.ts';
import type { Attestation } from '../redirect/redirect.ts';
import { reachableTarget } from '../redirect/target.ts';
import { tuning } from './config/tuning.ts';
import type { KeptMode } from './kernel/caller-frames.ts';
import {
  openCallerServer,
  type CallerServer,
  type CallerServerOptions,
} from './kernel/caller-server.ts';
import { openKernel, type Kernel, type KernelOptions } from './kernel/kernel.ts';
import { openListenerHolder, type ListenerHolder } from './kernel/listener-holder.ts';
import { listenerPath } from './kernel/listener-notes.ts';
import { exportParts } from './telemetry/export-parts.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { exportProcess } from './telemetry/process-metrics.ts';

/** Longer than an agent that stops at the same time may take to finish its running requests. */
// No mutation: the second part is a margin.
const lastLookUpsMs = tuning.drainTimeoutMs + 2_000;

/**
 * Runs until disposed; the redirect stays. Refusals of the kernel are logged and retried.
 * @throws StartError if one of its ports is in use.
 */
export async function startRedirectDaemon(
  options: Omit<KernelOptions, 'hasPredecessor'>,
): Promise<AsyncDisposable> {
  const { config, clock, log } = options;
  await using starting = new AsyncDisposableStack();
  const metrics = createMetrics({ oldNames: false });
  exportProcess(metrics);
  let holder: ListenerHolder | undefined;
  let callers: CallerServer | undefined;
  // No mutation: only a redirect in the kernel asks, and then there is a holder.
  const hasPredecessor = (): boolean => holder?.hasPredecessor() ?? false;
  const kernel = starting.use(openKernel({ ...options, hasPredecessor }));
  starting.use(
    giveBackSpareMemory(clock, log.child({ component: 'memory' }), () => kernel.trimMemory()),
  );
  const { mode } = kernel;
  const parts = [kernel];
  // No mutation: without a redirect in the kernel there are no samples; the lab reads them.
  exportParts(metrics, parts);
  if (mode === 'ebpf' || mode === 'iptables') {
    // First: from then on an earlier process changes nothing in the kernel.
    holder = await openListenerHolder({
      address: { ip: config.listenIp, port: config.listenPort },
      agentsPath: listenerPath(config.callerSocket),
      handoverPath: config.handoverSocket,
      clock,
      log: log.child({ component: 'handover' }),
      onSuccessor: () => kernel.pause(),
      onSuccessorGone: () => kernel.resume(),
    });
    starting.use(holder);
  }
  // Two that start at the same time do not know of each other yet.
  // No mutation: this needs a redirect in the kernel; the lab's updates find the ports in use.
  const hasOthers = holder !== undefined && config.handoverSocket !== '';
  // Before pods are redirected, or they would be refused until the agent asks for the socket. What fails
  // here, the first check reports.
  await kernel.prepare().then(
    () => holder?.listen(),
    () => undefined,
  );
  await kernel.start();
  if (mode === 'ebpf' || mode === 'iptables') {
    callers = starting.use(await openCallerServer(lookUps(config, kernel, mode)));
  }
  starting.use(
    await openAdminPages({
      clock,
      config,
      metrics,
      parts,
      hasBeenActive: () => kernel.hasBeenActive(),
      onTaken: hasOthers ? (port) => log.info({ port }, waitingForPort) : undefined,
    }),
  );
  const running = starting.move();
  return {
    [Symbol.asyncDispose]: async () => {
      holder?.release();
      await callers?.untilUnused(lastLookUpsMs);
      await running.disposeAsync();
    },
  };
}

/** Serves an agent without the privilege to look callers up. */
function lookUps(config: Config, kernel: Kernel, mode: KeptMode): CallerServerOptions {
  const { metadataIp, metadataPort, listenIp, listenPort } = config;
  const target = reachableTarget({ metadataIp, metadataPort, listenIp, listenPort });
  const here = { localIp: target.listenIp, localPort: target.listenPort };
  return {
    path: config.callerSocket,
    report: () => ({ mode, isActive: kernel.problem() === undefined, layout: mapLayout, target }),
    lookUp: (remoteIp, remotePort) => {
      // Earlier state in the kernel may come from another agent, with another meaning.
      if (!kernel.hasBeenActive()) return notInstalled;
      const attestation = kernel.lookUp({ remoteIp, remotePort, ...here });
      return attestation instanceof Promise ? notInstalled : attestation;
    },
    letThrough: (cgroupIds) => void kernel.letThrough(cgroupIds),
  };
}

const notInstalled: Attestation = { kind: 'unavailable', why: 'the redirect is not installed' };
