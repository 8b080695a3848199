/**
 * The lab's entry point: arguments, signals and exit. Besides the lab itself it has the verbs of
 * the lab's processes in other namespaces, `inner`, `pod` and `forge`, and `once` for the build. A pod loads only its client.
 */
import { enableCompileCache } from 'node:module';
import { exitCodes, type Io } from '../src/cli/io.ts';
import { compileCache } from './fabric/lab-command.ts';

enableCompileCache(compileCache);

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    // A second signal exits at once.
    if (stop.signal.aborted) process.exit(exitCodes.failed);
    stop.abort();
  });
}
// A closed reader (`./dev lab | head`) must not crash the lab.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exitCodes.ok);
});
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    process.stderr.write(`lab: bug: ${error instanceof Error ? (error.stack ?? '') : 'unknown'}\n`);
    process.exit(exitCodes.bug);
  });
}

void start(process.argv.slice(2), {
  environment: process.env,
  stdout: (text) => process.stdout.write(text),
  stderr: (text) => process.stderr.write(text),
  stop: stop.signal,
}).then((code) => {
  process.exitCode = code;
  // Everything is closed by now. Handles that a library keeps open must not keep the process alive.
  setTimeout(() => process.exit(), 2_000).unref();
});

async function start(words: readonly string[], io: Io): Promise<number> {
  const [verb, ...rest] = words;
  switch (verb) {
    case 'pod': {
      const { runPodAgent } = await import('./pods/pod-agent.ts');
      await runPodAgent(process.stdin, process.stdout);
      return exitCodes.ok;
    }
    case 'forge': {
      const { forge } = await import('./frames/forge.ts');
      return forge(rest, io);
    }
    case 'once': {
      const { serveOnce } = await import('./once.ts');
      await serveOnce(rest);
      return exitCodes.ok;
    }
    case 'inner': {
      const { labInner } = await import('./command.ts');
      return labInner(rest, io);
    }
    default: {
      const { lab } = await import('./command.ts');
      return lab(words, io);
    }
  }
}
