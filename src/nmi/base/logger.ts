/**
 * The one place that knows pino. Lines go to standard output synchronously: volume is low by
 * design, and the lines before a crash matter most.
 */
import { pino, symbols } from 'pino';
import type { Log, LogFields } from './log.ts';
import { renderGlogLine } from './lines/glog-text.ts';

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
  /** An info line of which nearly everything is constant, and rendered once. */
  prepare(fields: LogFields, message: string): PreparedLine;
}

/** @param ids texts of characters that JSON leaves as they are; those that are undefined are left out. */
export type PreparedLine = (
  durationMs: number,
  ids: Readonly<Record<string, string | undefined>>,
) => void;

export function createLogger(options: LoggerOptions): Logger {
  const write =
    options.format === 'json'
      ? options.write
      : (line: string) => options.write(renderGlogLine(line, process.pid));
  const timestamp = createTimestamp();
  const logger = pino(
    {
      level: options.level,
      base: null,
      timestamp,
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
      prepare: (fields, message) => {
        // What `info` writes, byte for byte, at a quarter of its cost.
        const bindings = String(Reflect.get(inner.child(fields), symbols.chindingsSym));
        const end = `,"msg":${JSON.stringify(message)}}\n`;
        return (durationMs, ids) => {
          if (!inner.isLevelEnabled('info')) return;
          let varying = `,"durationMs":${durationMs}`;
          for (const [name, id] of Object.entries(ids)) {
            if (id !== undefined) varying += `,"${name}":"${id}"`;
          }
          write(`{"level":"info"${timestamp()}${bindings}${varying}${end}`);
        };
      },
    };
  }

  return wrap(logger);
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
