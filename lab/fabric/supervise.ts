/**
 * The lab's outer process. It runs in the machine's own namespace, creates the fabric, and runs
 * this program again inside the azure namespace, where 169.254.169.254 is a local address. The
 * fabric is removed when this function returns, however the inner process ended.
 */
import { constants } from 'node:os';

import { openFabric } from './fabric.ts';
import { labCommand, type Command } from './lab-command.ts';

const defaultGraceMs = 15_000;

export interface SuperviseOptions {
  /** What follows `inner <prefix>`. */
  readonly args: readonly string[];
  /** Aborted by Ctrl-C: the inner process gets SIGTERM, and SIGKILL after the grace period. */
  readonly stop: AbortSignal;
  readonly graceMs?: number;
  /** Default {@link labCommand}. */
  readonly command?: Command;
  readonly name?: string;
}

/**
 * Runs `<command> inner <prefix> <args>`, with our stdout and stderr.
 * @returns the inner process's exit code, or 128 plus the number of the signal that ended it.
 * @throws LabError when the fabric cannot be created or removed.
 */
export async function superviseLab(options: SuperviseOptions): Promise<number> {
  await using fabric = await openFabric(options.name === undefined ? {} : { name: options.name });
  if (options.stop.aborted) return signalExitCode('SIGTERM');
  const [program, ...leading] = options.command ?? labCommand;
  const inner = fabric.exec(
    'azure',
    program,
    [...leading, 'inner', fabric.prefix, ...options.args],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  let deadline: NodeJS.Timeout | undefined;
  const stop = (): void => {
    inner.kill('SIGTERM');
    deadline = setTimeout(() => inner.kill('SIGKILL'), options.graceMs ?? defaultGraceMs);
  };
  options.stop.addEventListener('abort', stop, { once: true });
  try {
    // `exit`, not `close`: a grandchild may keep the inherited output open longer.
    return await new Promise<number>((resolve, reject) => {
      inner.once('error', reject);
      inner.once('exit', (code, signal) => {
        resolve(signal === null ? (code ?? 1) : signalExitCode(signal));
      });
    });
  } finally {
    clearTimeout(deadline);
    options.stop.removeEventListener('abort', stop);
  }
}

function signalExitCode(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}
