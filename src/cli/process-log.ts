/** The log of a process that runs until a signal, on standard output. */
import { LogOutput } from '../base/lines/log-output.ts';
import { createLogger, type Logger } from '../base/logger.ts';
import type { Config } from '../nmi/config/config.ts';
import type { Io } from './io.ts';

/** With a function that writes other lines, and returns false if one was dropped. */
export function openProcessLog(
  config: Pick<Config, 'logFormat' | 'logLevel'>,
  { stdout, stdoutWaitingBytes }: Io,
) {
  const output = new LogOutput({
    write: stdout,
    waitingBytes: stdoutWaitingBytes,
    onDropped: (count) => log.warn({ count }, 'standard output was not read, lines dropped'),
  });
  const write = (line: string): boolean => output.write(line);
  const log: Logger = createLogger({ format: config.logFormat, level: config.logLevel, write });
  return { log, write };
}
