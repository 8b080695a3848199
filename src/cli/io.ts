import { once } from 'node:events';
import type { StartError } from '../nmi/base/start-error.ts';

/**
 * What a verb may touch of the process it runs in, as values: `main.ts` fills them in, tests put
 * their own there.
 */
export interface Io {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Whole lines, newline included. */
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Width of the terminal, where there is one. */
  readonly columns?: number | undefined;
  /** Aborted by the first SIGTERM or SIGINT. */
  readonly stop: AbortSignal;
}

/** Exit codes, after sysexits where it has a word for them. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  unavailable: 69,
  bug: 70,
  config: 78,
} as const;

/** The last line of a process that cannot go on, for `kubectl describe pod` and for a person. */
export function renderFatal({ code, message }: StartError): string {
  return `nmi: cannot start: ${message.replaceAll(/\s+/g, ' ')} (${code})\n`;
}

/** Resolves at the first signal, at once when it came already. */
export async function untilStopped({ stop }: Io): Promise<void> {
  if (!stop.aborted) await once(stop, 'abort');
}
