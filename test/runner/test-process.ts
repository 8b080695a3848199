/**
 * Loaded before every test file that `test/runner/run.ts` runs. A file that needs exclusive use of the
 * kernel waits here for its turn, which other runs on this machine may have, and keeps it until its
 * process ends. At the end the process reports what it used: `run-files.ts` reads it. A process that
 * something keeps running after its tests is ended, and its output names what kept it.
 */
import asyncHooks from 'node:async_hooks';
import { readFileSync, writeFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import { isExclusive } from './kinds.ts';
import { takeTurn } from './turn.ts';

/** The unit of `/proc/PID/stat`: USER_HZ is 100 on every architecture of Linux that Node runs on. */
const msPerTick = 10;
/** A run of every test once waited twenty minutes for a process whose tests had all passed. */
const lingerMs = Number(process.env['TEST_LINGER_MS'] ?? 20_000);

const file = process.argv[1] ?? '';
// A forked program gets the same options.
if (isMainThread && /\.test\.m?ts$|\.test\.mjs$/.test(file)) {
  if (file.includes('/test/simulation/')) followNothing();
  const startMs = performance.now();
  // The runner's own tests run files that are exclusive only by their names.
  const turn = process.env['TEST_TURN'] ?? 'entra-pod-identity-kernel-tests';
  if (isExclusive(file)) await takeTurn(turn);
  const waitedMs = performance.now() - startMs;
  const { after } = await import('node:test');
  after(() => {
    setTimeout(() => {
      const kept = process.getActiveResourcesInfo().join(', ');
      process.stderr.write(`WARNING: ${file} is ended after its tests; still open: ${kept}\n`);
      process.exit();
    }, lingerMs).unref();
  });
  const report = process.env['TEST_USAGE'];
  if (report !== undefined) {
    process.once('exit', () => {
      writeFileSync(report, `${waitedMs} ${readProcessorMs()}`);
    });
  }
}

/**
 * Node's test runner follows each promise and callback, to name the test of an error that nobody handles. A simulation
 * reports such errors itself, and needs 72 s of processor time instead of 115 without it.
 */
function followNothing(): void {
  const { createHook } = asyncHooks;
  asyncHooks.createHook = () => createHook({});
}

function readProcessorMs(): number {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  // After the name, which may contain blanks: utime, stime, cutime, cstime are fields 14 to 17.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = fields.slice(11, 15).map(Number);
  return ticks.reduce((sum, each) => sum + each, 0) * msPerTick;
}
