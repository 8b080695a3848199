/** `nmi conditions`: writes status conditions until a signal ends it. */
import { systemClock } from '../base/time/clock.ts';
import { buildInfo } from '../nmi/base/build-info.ts';
import { startConditions } from '../nmi/conditions-process.ts';
import { parseConfig } from '../nmi/config/config.ts';
import { exitCodes, failUsage, reportStartError, untilStopped, type Io } from './io.ts';
import { openProcessLog } from './process-log.ts';

export async function conditions(flags: Readonly<Record<string, string>>, io: Io): Promise<number> {
  // The options table requires a node.
  const parsed = parseConfig({ node: 'unnamed', ...flags }, io.environment);
  if (!parsed.ok) return failUsage(io, 'nmi conditions', parsed.problems);
  const { config, warnings } = parsed;
  const { log } = openProcessLog(config, io);
  log.info({ ...buildInfo }, 'starting nmi conditions process');
  for (const warning of warnings) log.warn({ warning }, 'setting ignored');
  const { environment } = io;
  try {
    await using _ = await startConditions({ config, clock: systemClock, log, environment });
    await untilStopped(io);
    log.info({}, 'shutting down');
    return exitCodes.ok;
  } catch (error) {
    return reportStartError(error, 'conditions cannot be written', log, io);
  }
}
