/**
 * The composition root of `nmi conditions`: one process of the cluster, without pods, listener and
 * kernel, which writes the status conditions of identities and bindings.
 */
import type { Clock } from '../base/time/clock.ts';
import { openAdminPages } from './admin/pages.ts';
import type { Logger } from '../base/logger.ts';
import { openConditions } from './conditions/conditions.ts';
import type { Config, Environment } from './config/config.ts';
import { openConfiguredClient } from './state/configured-client.ts';
import { exportParts } from './telemetry/export-parts.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { exportProcess } from './telemetry/process-metrics.ts';

export interface ConditionsProcessOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  readonly environment: Environment;
}

/**
 * Runs until disposed.
 * @throws StartError without a usable configuration of the API server, or if a port is in use.
 */
export async function startConditions(options: ConditionsProcessOptions): Promise<AsyncDisposable> {
  const { config, clock, log } = options;
  await using starting = new AsyncDisposableStack();
  const metrics = createMetrics({ oldNames: false });
  exportProcess(metrics);
  const client = starting.use(await openConfiguredClient(options));
  const conditions = starting.use(
    openConditions({
      client,
      config,
      clock,
      random: Math.random,
      log: log.child({ component: 'conditions' }),
    }),
  );
  // Without its readiness: `nmi_ready` is of agents, and so are the alerts about it.
  exportParts(metrics, [{ samples: () => conditions.samples() }]);
  starting.use(
    await openAdminPages({
      clock,
      config,
      metrics,
      parts: [conditions],
      hasBeenActive: () => conditions.conditions.every(({ problem }) => problem() === undefined),
    }),
  );
  return starting.move();
}
