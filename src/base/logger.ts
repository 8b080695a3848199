/**
 * The only file that uses pino. Lines go to standard output synchronously: the volume is low by
 * design, and the lines before a crash must not be lost.
 */
import { pino } from 'pino';
import type { Log, LogFields } from './log.ts';
import { renderGlogLine } from './lines/glog-text.ts';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent';

export interface LoggerOptions {
  readonly format: 'json' | 'text';
  readonly level: LogLevel;
  /** Receives whole lines, newline included. */
  readonly write: (line: string) => void;
}

export interface Logger extends Log {
  /** A logger whose lines have these fields, which are rendered once. */
  child(fields: LogFields): Logger;
}

export function createLogger(options: LoggerOptions): Logger {
  const write =
    options.format === 'json'
      ? options.write
      : (line: string) => options.write(renderGlogLine(line, process.pid));
  const logger = pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write },
  );

  function wrap(inner: pino.Logger): Logger {
    return {
      debug: (fields, message) => inner.debug(fields, message),
      info: (fields, message) => inner.info(fields, message),
      warn: (fields, message) => inner.warn(fields, message),
      error: (fields, message) => inner.error(fields, message),
      child: (fields) => wrap(inner.child(fields)),
    };
  }

  return wrap(logger);
}
