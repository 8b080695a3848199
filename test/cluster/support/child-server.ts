/**
 * A server as a separate process. The kernel ends it when this process ends in any way, so that a
 * crashed or interrupted test leaves none.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface ChildServer {
  readonly name: string;
  readonly pid: number;
  /** Why it ended, or undefined while it runs. */
  readonly ended: string | undefined;
  /** SIGTERM, SIGKILL after `graceMs`; resolves when it has ended. */
  stop(graceMs?: number): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** The end of its output. */
  lastWords(): string;
}

const defaultGraceMs = 10_000;
const wordsBytes = 3000;

/** Rejects when the program cannot be started. It runs in the folder, which gets its output. */
export async function startChildServer(
  name: string,
  program: string,
  args: readonly string[],
  folder: string,
): Promise<ChildServer> {
  const logFile = join(folder, `${name}.log`);
  const log = openSync(logFile, 'a');
  // setpriv replaces itself by the program: the process and its pid stay the same.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', program, ...args], {
    cwd: folder,
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  const exited = once(child, 'exit');
  // The wait for `spawn` reports a program that cannot be started.
  exited.catch(() => undefined);
  let ended: string | undefined;
  child.once('exit', (code, signal) => {
    ended = signal === null ? `exit code ${code ?? '?'}` : signal;
  });
  await once(child, 'spawn');
  const { pid } = child;
  if (pid === undefined) throw new TypeError(`${name} has no process`);

  async function end(signal: NodeJS.Signals): Promise<void> {
    if (ended !== undefined) return;
    child.kill(signal);
    await exited;
  }

  return {
    name,
    pid,
    get ended() {
      return ended;
    },
    async stop(graceMs = defaultGraceMs) {
      const deadline = setTimeout(() => child.kill('SIGKILL'), graceMs);
      try {
        await end('SIGTERM');
      } finally {
        clearTimeout(deadline);
      }
    },
    kill: () => end('SIGKILL'),
    lastWords: () => readFileSync(logFile, 'utf8').slice(-wordsBytes),
  };
}
