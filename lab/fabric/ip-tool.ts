/** The `ip` program: many commands in one process, in one namespace; a failure names its line. */
import { spawn } from 'node:child_process';

import { LabError } from './lab-error.ts';

/** iproute2 answers in microseconds; a kernel lock held for this long means another problem. */
const timeoutMs = 10_000;

/**
 * Runs the lines as one `ip -batch`, in the named namespace or, without one, in ours. Stops at the
 * first line that fails.
 * @throws LabError `TOOL_MISSING`, or `TOOL_FAILED` with the output of `ip` and the line it names.
 */
export async function runIpBatch(
  lines: readonly string[],
  namespace: string | undefined,
): Promise<void> {
  const place = namespace === undefined ? [] : ['-netns', namespace];
  const child = spawn('ip', [...place, '-batch', '-'], {
    stdio: ['pipe', 'ignore', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  let printed = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (printed += text));
  // A tool that ends early closes its end; its exit code has the reason, not the broken pipe.
  child.stdin.on('error', () => undefined);
  child.stdin.end(`${lines.join('\n')}\n`);
  const status = await new Promise<number | NodeJS.Signals | null>((resolve, reject) => {
    child.once('error', (cause) => {
      reject(new LabError('TOOL_MISSING', `ip: ${cause.message}`, cause));
    });
    child.once('close', (code, signal) => {
      resolve(code ?? signal);
    });
  });
  if (status === 0) return;
  const failed = lines[Number(/Command failed -:(\d+)/.exec(printed)?.[1]) - 1];
  const at = failed === undefined ? '' : `"ip ${failed}": `;
  const where = namespace === undefined ? '' : `${namespace}: `;
  throw new LabError('TOOL_FAILED', `${where}${at}${printed.trim()} (${String(status)})`);
}
