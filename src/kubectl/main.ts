/** The process of `kubectl nmi`: its arguments, its streams and its end. */
import { readFile, writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import { exitCodes } from './base/io.ts';
import { runPlugin } from './plugin.ts';
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
// A reader that closed the pipe (`kubectl nmi list | head`) must not cause a crash.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exitCodes.ok);
});
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    process.stderr.write(`bug: ${error instanceof Error ? (error.stack ?? '') : 'unknown'}\n`);
    process.exit(exitCodes.bug);
  });
}

void runPlugin(process.argv.slice(2), {
  environment: process.env,
  stdout: (output) => process.stdout.write(output),
  stderr: (output) => process.stderr.write(output),
  run: (program, args, options = {}) => runProgram(program, args, options, stop.signal),
  post,
  readText: (path) => (path === '-' ? text(process.stdin) : readIfThere(path)),
  writeNew,
  wallMs: () => Date.now(),
  sleep: (ms) => delay(ms, undefined, { signal: stop.signal }).catch(() => undefined),
  stop: stop.signal,
}).then((code) => {
  process.exitCode ??= code;
});

async function post(url: string, form: Readonly<Record<string, string>>) {
  try {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(15_000)]);
    const body = new URLSearchParams(form);
    const response = await fetch(url, { method: 'POST', body, redirect: 'error', signal });
    return { status: response.status, body: await response.text() };
  } catch {
    return undefined;
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

async function writeNew(path: string, content: string): Promise<boolean> {
  try {
    await writeFile(path, content, { flag: 'wx', mode: 0o600 });
    return true;
  } catch {
    return false;
  }
}
