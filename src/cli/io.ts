import { once } from 'node:events';
import type { Log } from '../base/log.ts';
import { StartError } from '../base/start-error.ts';

/** The parts of its process that a verb may use: `main.ts` provides the real ones. */
export interface Io {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Whole lines, newline included. */
  readonly stdout: (text: string) => void;
  /** What no one has read yet and the process keeps; absent if nothing ever waits. */
  readonly stdoutWaitingBytes?: () => number;
  readonly stderr: (text: string) => void;
  readonly columns?: number | undefined;
  readonly stop: AbortSignal;
}

/** Those of sysexits where it defines one. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  unavailable: 69,
  bug: 70,
  config: 78,
} as const;

/** @returns the exit code, for the last line of a verb. */
export function fail(io: Io, verb: string, problem: string, code: number): number {
  io.stderr(`nmi ${verb}: ${problem}\n`);
  return code;
}

/** Reports each problem of the flags and the environment. @returns the exit code. */
export function failUsage(io: Io, command: string, problems: readonly string[]): number {
  for (const problem of problems) io.stderr(`${command}: ${problem}\n`);
  return exitCodes.usage;
}

/**
 * Reports why a process cannot start. Its last line is for `kubectl describe pod` and for people.
 * @param failed message of the log.
 * @returns the exit code.
 * @throws every other error.
 */
export function reportStartError(error: unknown, failed: string, log: Log, io: Io): number {
  if (!(error instanceof StartError)) throw error;
  const { code, message } = error;
  log.error({ code, problem: message }, failed);
  io.stderr(`nmi: cannot start: ${message.replaceAll(/\s+/g, ' ')} (${code})\n`);
  return code === 'CONFIG' ? exitCodes.config : exitCodes.unavailable;
}

/** The timers of a clock do not, and before it listens nothing else may keep a process alive. */
export function keepAlive(): Disposable {
  const timer = setInterval(() => undefined, 2 ** 30);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

export async function untilStopped({ stop }: Io): Promise<void> {
  if (!stop.aborted) await once(stop, 'abort');
}
