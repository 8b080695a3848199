/**
 * The one place that knows pino. Lines go to standard output synchronously: volume is low by
 * design, and the lines before a crash matter most.
 */
import { pino } from 'pino';
import type { Log, LogFields } from './log.ts';
import { renderGlogLine } from './glog-text.ts';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent';

export interface LoggerOptions {
  readonly format: 'json' | 'text';
  readonly level: LogLevel;
  /** Takes whole lines, newline included. */
  readonly write: (line: string) => void;
}

export interface Logger extends Log {
  /** Lines of it carry these fields, which are rendered once. */
  child(fields: LogFields): Logger;
}

export function createLogger(options: LoggerOptions): Logger {
  const write =
    options.format === 'json'
      ? options.write
      : (line: string) => {
          options.write(renderGlogLine(line, process.pid));
        };
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: createTimestamp(),
      formatters: { level: (label) => ({ level: label }) },
    },
    { write },
  );
}

/** Pino's time fragment, made once a millisecond: under load many lines share one. */
function createTimestamp(): () => string {
  let madeAtMs = Number.NaN;
  let fragment = '';
  return () => {
    const nowMs = Date.now();
    if (nowMs !== madeAtMs) {
      madeAtMs = nowMs;
      fragment = `,"time":"${new Date(nowMs).toISOString()}"`;
    }
    return fragment;
  };
}
