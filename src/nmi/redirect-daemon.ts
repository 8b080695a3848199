/**
 * The kernel's side alone: installs the redirect, checks it at each interval, repairs it. For a
 * node where the process that answers pods has no right to touch the kernel.
 */
import type { Clock } from '../cache/clock.ts';
import { openAdminPages } from './admin/pages.ts';
import type { Logger } from './base/logger.ts';
import type { Config } from './config/config.ts';
import { openKernel } from './kernel/kernel.ts';
import { exportParts } from './telemetry/export-parts.ts';
import { createMetrics } from './telemetry/metrics.ts';

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
  const metrics = createMetrics();
  const kernel = starting.use(openKernel(options));
  exportParts(metrics, [kernel]);
  await kernel.start();
  starting.use(
    await openAdminPages({
      clock,
      probePort: config.probePort,
      metricsPort: config.metricsPort,
      metrics,
      parts: [kernel],
      hasBeenActive: () => kernel.hasBeenActive(),
    }),
  );
  return starting.move();
}
