/**
 * Runs the command line. The only file that touches the process: its arguments, environment,
 * signals and exit.
 */
import { setFlagsFromString } from 'node:v8';
import { runCli } from './cli/cli.ts';
import { exitCodes } from './cli/io.ts';

// Small buffers share slabs, and one slice keeps its whole slab: the bytes of a secret or a token
// would stay in memory long after everything that referenced them was released.
Buffer.poolSize = 0;

// The heap is collected when it has grown by half, and not to four times the live data: 164 MB
// resident at most under the lab's attacks instead of 210. Hits leave nothing that fills the heap
// (bench/PROFILE.md), so it costs them nothing; set among the start flags of the executable, it made
// hits at 16 connections slower (Node 26.10, November 2026).
//
// But not from the start on: after a change of its flags V8 refuses the compiled code of Node's own modules, and
// four collections while 30,000 objects are listed take as long as half of the rest. Then the garbage of the
// start is collected: a buffer of this size makes V8 begin with it, and takes no memory unless it is written to.
setTimeout(() => {
  setFlagsFromString('--heap-growing-percent=50');
  try {
    // No mutation: only the size of a process shows it.
    void new ArrayBuffer(64 * 2 ** 20);
  } catch {
    // A kernel that promises no more memory than it has may refuse it; the garbage waits.
  }
}, 5_000).unref();

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    // After a second signal the process does not wait for the drain.
    if (stop.signal.aborted) process.exit(exitCodes.failed);
    stop.abort();
  });
}
// By default Node would open its debugger, to every process of the node's network.
process.on('SIGUSR1', () => undefined);
// A closed reader (`nmi explain | head`) must not be a crash.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exitCodes.ok);
});
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    process.stderr.write(`nmi: bug: ${error instanceof Error ? (error.stack ?? '') : 'unknown'}\n`);
    process.exit(exitCodes.bug);
  });
}

void runCli(process.argv.slice(2), {
  environment: process.env,
  // Synchronous, as is the other: to files, and to pipes that are read, Node writes at once.
  stdout: (text) => process.stdout.write(text),
  // Counted in characters, which take two bytes at most.
  stdoutWaitingBytes: () => 2 * process.stdout.writableLength,
  // The error that ends the process is its last line, which Kubernetes takes as the termination
  // message.
  stderr: (text) => process.stderr.write(text),
  columns: process.stdout.isTTY ? process.stdout.columns : undefined,
  stop: stop.signal,
}).then((code) => {
  process.exitCode = code;
  // Everything is closed by now. A handle that a library still has open must not keep the process.
  setTimeout(() => process.exit(), 2_000).unref();
});
