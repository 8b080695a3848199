/**
 * The lab's outer process. It stays in the machine's own namespace, makes the fabric, and runs this
 * program again inside the azure namespace, where 169.254.169.254 is a local address. Whatever
 * becomes of that inner process, the fabric goes when this function returns.
 */
import { constants } from 'node:os';

import { openFabric } from './fabric.ts';
import { labCommand, type Command } from './lab-command.ts';

const defaultGraceMs = 15_000;

export interface SuperviseOptions {
  /** What follows `inner <prefix>`. */
  readonly args: readonly string[];
  /** Aborted by a Ctrl-C: the inner process gets SIGTERM, and SIGKILL after the grace. */
  readonly stop: AbortSignal;
  readonly graceMs?: number;
  /** Default {@link labCommand}. */
  readonly command?: Command;
  readonly name?: string;
}

/**
 * Runs `<command> inner <prefix> <args>`, its output on ours.
 * @returns the inner process's exit code, or 128 plus the number of the signal that ended it.
 * @throws LabError when the fabric cannot be made or removed.
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
    // `exit`, not `close`: a grandchild may hold the inherited output longer.
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
