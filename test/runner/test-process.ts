/**
 * Loaded before every test file that `test/runner/run.ts` runs. One that nothing may run beside in the kernel waits
 * here for its turn, which other runs on this machine may have. A process that something keeps running after
 * its tests is ended, and its output names what kept it.
 */
import asyncHooks from 'node:async_hooks';
import { isMainThread } from 'node:worker_threads';
import { laneOf } from './kinds.ts';
import { takeTurn } from './processes.ts';

/** A run of every test once waited twenty minutes for a process whose tests had all passed. */
const lingerMs = 20_000;
/** After SIGTERM, which Node's runner sends at its time-out, and which a file may ignore. */
const graceMs = 10_000;

const file = process.argv[1] ?? '';
// A forked program gets the same options.
if (isMainThread && file.endsWith('.test.ts')) {
  if (file.includes('/test/simulation/')) followNothing();
  const timeoutMs = Number(process.env['TEST_TIMEOUT_MS'] ?? Infinity);
  if (timeoutMs < Infinity) {
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), timeoutMs + graceMs).unref();
  }
  // The runner's own tests run files that are exclusive only by their names.
  const turn = process.env['TEST_TURN'] ?? 'entra-pod-identity-kernel-tests';
  if (laneOf(file) !== 'shared') await takeTurn(turn);
  const { after } = await import('node:test');
  after(() => {
    setTimeout(() => {
      const kept = process.getActiveResourcesInfo().join(', ');
      process.stderr.write(`WARNING: ${file} is ended after its tests; still open: ${kept}\n`);
      process.exit();
    }, lingerMs).unref();
  });
}

/**
 * Node's test runner follows each promise and callback, to name the test of an error that nobody handles. A simulation
 * reports such errors itself, and needs 72 s of processor time instead of 115 without it.
 */
function followNothing(): void {
  const { createHook } = asyncHooks;
  asyncHooks.createHook = () => createHook({});
}
