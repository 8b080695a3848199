/** Processes of a benchmark: started, awaited, and always ended. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';

const stopLimitMs = 10_000;

export function start(
  words: readonly [string, ...string[]],
  options: { readonly stdio: StdioOptions; readonly env?: NodeJS.ProcessEnv },
): ChildProcess {
  const [program, ...args] = words;
  return spawn(program, args, options);
}

/** SIGTERM, and SIGKILL after 10 s. */
export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), stopLimitMs);
  await exited;
  clearTimeout(late);
}

/** Waits for its first bytes on stdout. @throws Error when it ends without any. */
export async function untilItSpeaks(child: ChildProcess): Promise<void> {
  const { stdout } = child;
  if (stdout === null) throw new TypeError('its stdout is not piped');
  const spoken = once(stdout, 'data');
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`${child.spawnfile} ended with ${String(code)}`);
  });
  await Promise.race([spoken, ended]);
}

/** All of its stdout. @throws Error when it fails. */
export async function outputOf(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (code !== 0)
    throw new Error(`${child.spawnargs.slice(0, 5).join(' ')}: ${String(code ?? signal)}`);
  return text;
}
