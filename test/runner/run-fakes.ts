/**
 * A run of the files of a folder, as by `test/runner/run.ts`, for the tests of the runner: prints its
 * times at the end, as JSON on standard error.
 */
import { globSync } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { endProcesses, markOf, markVariable } from './processes.ts';
import { runSuite } from './suite.ts';

const [root = '', timeoutMs = '', buildMs = '0', patienceMs = '0'] = process.argv.slice(2);
process.env[markVariable] = markOf('');
const stop = new AbortController();
process.once('SIGTERM', () => {
  stop.abort();
  void endProcesses(1_000).finally(() => process.exit(128 + constants.signals.SIGTERM));
});
const isBuilt = (): boolean => performance.now() >= Number(buildMs);
const { isPassed, times } = await runSuite({
  root,
  files: globSync('**/*.test.ts', { cwd: root }).sort(),
  size: 'all',
  sharesProcesses: true,
  known: {},
  builds: {
    isThere: isBuilt,
    change: async () => {
      await delay(50);
    },
    skipped: ['SKIPPED: all tests on a fake: it is missing'],
    failed: [],
  },
  patienceMs: () => Number(patienceMs) - performance.now(),
  timeoutMs: Number(timeoutMs),
  mustRunAll: process.env['TEST_MUST_RUN_ALL'] === 'true',
  stop: stop.signal,
  output: process.stdout,
  log: (line) => process.stdout.write(`${line}\n`),
});
process.stderr.write(JSON.stringify(times));
process.exitCode = isPassed ? 0 : 1;
