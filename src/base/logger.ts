/**
 * The only file that uses pino. Lines go to standard output synchronously: the volume is low by
 * design, and the lines before a crash must not be lost.
 */
import { pino, symbols } from 'pino';
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
  /** An info line whose constant part is rendered once. */
  prepare(fields: LogFields, message: string): PreparedLine;
}

/** @param ids texts without characters that JSON escapes; undefined ones are omitted. */
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
        // Byte for byte the line of `info`, at a quarter of its cost.
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

/** Pino's time fragment, created once per millisecond: under load many lines share one. */
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
