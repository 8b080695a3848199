/** Runs a program on the user's machine, without a shell. */
import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { ProgramRun, RunOptions } from '../base/io.ts';

/** A list of 10,000 pods is about 80 MB; beyond this something else is wrong. */
const maxOutputBytes = 512 * 1024 * 1024;

/** kubectl ends at once after an error: what it leaves on the screen longer is a question. */
const promptAfterMs = 500;
/** Of client-go, about its attempts. */
const logLine = /^[EWI]\d{4} .*\n?/gm;

export interface Terminal {
  readonly isInteractive: boolean;
  /** Text that the program waits behind. */
  readonly prompt: (text: string) => void;
}

export function runProgram(
  program: string,
  args: readonly string[],
  options: RunOptions,
  stop: AbortSignal,
  terminal: Terminal,
): Promise<ProgramRun> {
  const { input, outlivesStop = false, mayRepeat = false } = options;
  const { promise, resolve } = Promise.withResolvers<ProgramRun>();
  const isAsked = terminal.isInteractive && input === undefined && !outlivesStop;
  const child = spawn(program, args, {
    stdio: [isAsked ? 'inherit' : 'pipe', 'pipe', 'pipe'],
    // A terminal sends Ctrl-C to the whole group of processes.
    ...(outlivesStop ? { detached: true } : { signal: stop }),
  });
  const chunks: { stdout: Buffer[]; stderr: Buffer[] } = { stdout: [], stderr: [] };
  // No mutation: the limit is no exact number of bytes.
  let bytes = 0;
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      // No mutation: likewise.
      if (bytes > maxOutputBytes) child.kill();
      else chunks[name].push(chunk);
    });
  }
  const textOf = (name: 'stdout' | 'stderr') => Buffer.concat(chunks[name]).toString('utf8');
  const stopPrompts = showPrompts(child.stderr, terminal);
  child.on('error', (error: NodeJS.ErrnoException) => {
    const isMissing = error.code === 'ENOENT' || error.code === 'EACCES';
    resolve({
      code: isMissing ? undefined : 1,
      stdout: '',
      stderr: textOf('stderr') || error.message,
    });
  });
  child.on('close', (code, signal) => {
    stopPrompts();
    // Ctrl-C reached the child, as a rule before it had a group of its own and had begun.
    const isAgain = outlivesStop && mayRepeat && signal === 'SIGINT';
    resolve(
      isAgain
        ? runProgram(program, args, options, stop, terminal)
        : { code: code ?? 1, stdout: textOf('stdout'), stderr: textOf('stderr') },
    );
  });
  // A program may end before it has read its input; its exit code reports the result.
  child.stdin?.on('error', () => undefined).end(input ?? '');
  return promise;
}

/** Passes on what stands on standard error while the program goes on. Returns how to end that. */
function showPrompts(stderr: Readable | null, { prompt }: Terminal): () => void {
  let text = '';
  let timer: NodeJS.Timeout | undefined;
  stderr?.on('data', (chunk: Buffer) => {
    text += chunk.toString('utf8');
    clearTimeout(timer);
    timer = setTimeout(() => {
      const shown = text.replaceAll(logLine, '');
      text = '';
      if (shown !== '') prompt(shown);
    }, promptAfterMs);
  });
  return () => clearTimeout(timer);
}
