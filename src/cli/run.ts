/** `nmi run`: the agent, until a signal ends it. */
import { systemClock } from '../base/time/clock.ts';
import { startAgent } from '../nmi/agent.ts';
import { buildInfo } from '../nmi/base/build-info.ts';
import { parseConfig, type Config } from '../nmi/config/config.ts';
import { tuning } from '../nmi/config/tuning.ts';
import { findKubenet } from '../nmi/kernel/kubenet.ts';
import { exitCodes, failUsage, keepAlive, reportStartError, untilStopped, type Io } from './io.ts';
import { openProcessLog } from './process-log.ts';

export async function run(flags: Readonly<Record<string, string>>, io: Io): Promise<number> {
  const parsed = parseConfig(flags, io.environment);
  if (!parsed.ok) return failUsage(io, 'nmi', parsed.problems);
  const { config, warnings } = parsed;
  const kubenet = await kubenetProblem(config);
  if (kubenet !== undefined) {
    io.stderr(`nmi: ${kubenet}\n`);
    return exitCodes.config;
  }

  using _ = keepAlive();
  const { log, write } = openProcessLog(config, io);
  log.info({ ...buildInfo, node: config.node, mode: 'managed' }, 'starting nmi process');
  for (const warning of warnings) log.warn({ warning }, 'setting ignored');
  try {
    const agent = await startAgent({
      config,
      clock: systemClock,
      log,
      stdout: write,
      environment: io.environment,
      stop: io.stop,
    });
    await untilStopped(io);
    log.info({ drainTimeoutMs: tuning.drainTimeoutMs }, 'shutting down, redirect stays installed');
    await agent.stop();
  } catch (error) {
    if (error !== io.stop.reason) return reportStartError(error, 'agent cannot start', log, io);
  }
  log.info({ code: exitCodes.ok }, 'stopped');
  return exitCodes.ok;
}

async function kubenetProblem(config: Config): Promise<string | undefined> {
  if (config.allowKubenet) return undefined;
  const found = await findKubenet(config.kubeletConfigPath);
  if (found === undefined) return undefined;
  return `AAD Pod Identity is not supported for Kubenet: ${found}, and on such a node a pod can take over the address, and so the identity, of another (CVE-2021-1677). Drop NET_RAW from the pods and start with --allow-network-plugin-kubenet, or use another network plugin.`;
}
