/**
 * The kernel's side alone: installs the redirect, checks it at each interval, mends it. For a node
 * where whoever answers pods has no right to touch the kernel.
 */
import type { Clock } from '../cache/clock.ts';
import { openAdminServers } from './admin/pages.ts';
import { describeKernelAtScrape } from './telemetry/kernel-gauges.ts';
import { createMetrics } from './telemetry/metrics.ts';
import type { Condition } from './base/readiness.ts';
import { buildInfo } from './base/build-info.ts';
import { chooseRedirect } from './kernel/choose-redirect.ts';
import type { Config } from './config/config.ts';
import type { Logger } from './base/logger.ts';
import { networkCode } from './base/network-code.ts';
import { RedirectKeeper } from './kernel/reconciler.ts';
import { StartError } from './base/start-error.ts';

export interface RedirectSideOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Runs until disposed; the redirect stays. What the kernel refuses is logged and tried again.
 * @throws StartError when a port of its own is taken.
 */
export async function startRedirectSide(options: RedirectSideOptions): Promise<AsyncDisposable> {
  const { config, clock, log } = options;
  const metrics = createMetrics();
  metrics.set('nmi_build_info', 1, { version: buildInfo.version, commit: buildInfo.commit });
  const { redirect, why, counts } = chooseRedirect(config);
  log.info({ mode: redirect.mode, why }, 'redirect chosen');
  await using starting = new AsyncDisposableStack();
  const keeper = starting.use(
    new RedirectKeeper({
      redirect,
      intervalMs: config.redirectIntervalMs,
      clock,
      log,
      onCheck: (outcome) => {
        metrics.inc('nmi_redirect_installs_total', { outcome });
      },
    }),
  );
  const conditions: readonly Condition[] = [{ name: 'redirect', problem: () => keeper.problem() }];
  metrics.onScrape(() => {
    const isUp = keeper.problem() === undefined ? 1 : 0;
    metrics.set('nmi_redirect_up', isUp, { mode: redirect.mode });
    metrics.set('nmi_ready', isUp, { condition: 'redirect' });
  });
  if (counts !== undefined) describeKernelAtScrape(metrics, counts);
  await keeper.start();
  const { probePort, metricsPort } = config;
  try {
    starting.use(
      await openAdminServers({
        ...{ probePort, metricsPort, metrics, conditions },
        hasBeenActive: () => keeper.hasBeenActive,
      }),
    );
  } catch (error) {
    const text = `one of the ports ${probePort} and ${metricsPort} could not be bound`;
    throw new StartError('UNAVAILABLE', `${text}: ${networkCode(error)}`, error);
  }
  return starting.move();
}
