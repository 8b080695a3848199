/** The process of `kubectl nmi`: its arguments, its streams and its end. */
import { readFile, readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import type { WriteStream } from 'node:tty';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { exitCodes, type Io } from './base/io.ts';
import { paint } from './base/paint.ts';
import { runPlugin } from './plugin.ts';
import { firstAlone } from './transport/first-alone.ts';
import { runProgram } from './transport/program.ts';

const stop = new AbortController();
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.on(signal, () => {
    stop.abort();
    process.exitCode = code;
  });
}
// Who reads the output, or a script, must not take a part of it for all.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A reader that has closed the pipe (`kubectl nmi reasons | head`) wants no more, not even this.
  if (error.code !== 'EPIPE') report(`error: the output cannot be written: ${error.message}\n`);
  process.exit(exitCodes.outputLost);
});
process.stderr.on('error', () => undefined);
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    process.stderr.write(`bug: ${error instanceof Error ? (error.stack ?? '') : 'unknown'}\n`);
    process.exit(exitCodes.bug);
  });
}

const terminal = {
  isInteractive: process.stdin.isTTY,
  prompt: (question: string) => process.stderr.write(question),
};
const run: Io['run'] = (program, args, options = {}) =>
  runProgram(program, args, options, stop.signal, terminal);

void runPlugin(process.argv.slice(2), {
  environment: process.env,
  stdout: (output) => process.stdout.write(hasColors(process.stdout) ? paint(output) : output),
  stderr: report,
  run: firstAlone(run, hasLoginPlugin),
  readText: (path) => (path === '-' ? text(process.stdin) : readIfThere(path)),
  listFolder,
  wallMs: () => Date.now(),
  sleep: (ms) => delay(ms, undefined, { signal: stop.signal }).catch(() => undefined),
  stop: stop.signal,
}).then((code) => {
  process.exitCode ??= code;
});

/** Node follows NO_COLOR and TERM. */
function hasColors(stream: Partial<WriteStream>): boolean {
  return stream.isTTY === true && stream.hasColors?.() === true;
}

function report(line: string): void {
  process.stderr.write(hasColors(process.stderr) ? paint(line) : line);
}

async function hasLoginPlugin(): Promise<boolean> {
  const flag = process.argv.find((word) => word.startsWith('--kubeconfig='))?.slice(13);
  const paths = (flag ?? process.env['KUBECONFIG'] ?? join(homedir(), '.kube/config')).split(
    delimiter,
  );
  const texts = await Promise.all(paths.map(readIfThere));
  return texts.some((each) => /^\s*"?exec"?:/m.test(each ?? ''));
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

async function listFolder(path: string): Promise<readonly string[] | undefined> {
  try {
    const entries = await readdir(path, { recursive: true, withFileTypes: true });
    return entries
      .filter((each) => !each.isDirectory())
      .map((each) => join(each.parentPath, each.name));
  } catch {
    return undefined;
  }
}
