/**
 * The kernel's side alone: installs the redirect, checks it at each interval, repairs it, and looks
 * callers up. For a node where the process that answers pods has no right to touch the kernel.
 */
import type { Clock } from '../cache/clock.ts';
import { openAdminPages } from './admin/pages.ts';
import { flagsPage, statusPage } from './admin/z-pages.ts';
import type { Logger } from './base/logger.ts';
import type { Config } from './config/config.ts';
import { LAYOUT } from '../redirect/ebpf/settings.ts';
import type { Attestation } from '../redirect/redirect.ts';
import { reachableTarget } from '../redirect/target.ts';
import type { KeptMode } from './kernel/caller-frames.ts';
import { openCallerServer, type CallerServerOptions } from './kernel/caller-server.ts';
import { openKernel, type Kernel } from './kernel/kernel.ts';
import { exportParts } from './telemetry/export-parts.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { exportProcess } from './telemetry/process-metrics.ts';

export interface RedirectDaemonOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Runs until disposed; the redirect stays. What the kernel refuses is logged and tried again.
 * @throws StartError when a port of its own is taken.
 */
export async function startRedirectDaemon(
  options: RedirectDaemonOptions,
): Promise<AsyncDisposable> {
  const { config, clock } = options;
  await using starting = new AsyncDisposableStack();
  const metrics = createMetrics({ oldNames: false });
  exportProcess(metrics);
  const kernel = starting.use(openKernel(options));
  const parts = [kernel];
  exportParts(metrics, parts);
  await kernel.start();
  const { mode } = kernel;
  if (mode === 'ebpf' || mode === 'iptables') {
    starting.use(await openCallerServer(lookUps(config, kernel, mode)));
  }
  starting.use(
    await openAdminPages({
      clock,
      probePort: config.probePort,
      metricsPort: config.metricsPort,
      metricsAddress: config.metricsAddress,
      metrics,
      parts,
      hasBeenActive: () => kernel.hasBeenActive(),
      zPages: [
        statusPage({ component: 'nmi-redirect', clock, parts }),
        flagsPage('nmi-redirect', config),
      ],
    }),
  );
  return starting.move();
}

/** For an agent that may not look callers up itself. */
function lookUps(config: Config, kernel: Kernel, mode: KeptMode): CallerServerOptions {
  const { metadataIp, metadataPort, listenIp, listenPort } = config;
  const target = reachableTarget({ metadataIp, metadataPort, listenIp, listenPort });
  const here = { localIp: target.listenIp, localPort: target.listenPort };
  return {
    path: config.callerSocket,
    report: () => ({ mode, isActive: kernel.problem() === undefined, layout: LAYOUT, target }),
    lookUp: (remoteIp, remotePort) => {
      // What was there before may have another agent's meaning.
      if (!kernel.hasBeenActive()) return notInstalled;
      const attestation = kernel.attest({ remoteIp, remotePort, ...here });
      return attestation instanceof Promise ? notInstalled : attestation;
    },
  };
}

const notInstalled: Attestation = { kind: 'unavailable', why: 'the redirect is not installed' };
