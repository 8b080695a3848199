/** `nmi redirect run`: keeps the redirect of this node until a signal ends it, and leaves it there. */
import { systemClock } from '../cache/clock.ts';
import type { Config } from '../nmi/config/config.ts';
import { createLogger } from '../nmi/base/logger.ts';
import { startRedirectDaemon } from '../nmi/redirect-daemon.ts';
import { StartError } from '../nmi/base/start-error.ts';
import { exitCodes, untilStopped, type Outside } from './outside.ts';

export async function keepRedirect(config: Config, outside: Outside): Promise<number> {
  const { logFormat: format, logLevel: level } = config;
  const log = createLogger({ format, level, write: outside.stdout });
  try {
    await using _ = await startRedirectDaemon({ config, clock: systemClock, log });
    await untilStopped(outside);
    log.info({}, 'shutting down, the redirect stays');
    return exitCodes.ok;
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    log.error({ code: error.code, problem: error.message }, 'the redirect cannot be kept');
    return exitCodes.unavailable;
  }
}
