/**
 * Runs the tests: `node test/runner/run.ts [--all|--long] [KIND|FILE|FOLDER...]`. Without one it
 * checks the sources first, and runs every file of that size (`kinds.ts`); a file by itself
 * runs as in `--all`. The last things printed are the summary of Node's test runner, and a line of what was
 * skipped and why. With CI=true a run fails if it skipped what `skips.ts` does not list.
 */
import { globSync } from 'node:fs';
import { constants } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { sweepDeadFabrics } from '../../lab/fabric/namespaces.ts';
import { freshExecutable } from '../../scripts/build.ts';
import { checkSources } from '../../scripts/check.ts';
import { sweepDeadNamespaces } from '../kernel/redirect/namespaces.ts';
import { testCache } from '../support/test-cache.ts';
import { ProgramBuilds } from './builds.ts';
import { isWithin, kindOf, kinds, needsOf, type Size } from './kinds.ts';
import { endProcesses, markChildren } from './processes.ts';
import { runSuite } from './suite.ts';

const root = join(import.meta.dirname, '../..');

/** A run has to end within 90 minutes where `.ci/run` runs; the tests on a node take ten. */
const programsMs = 65 * 60_000;
const timeoutMs = 20 * 60_000;
/** Of a virtual machine that goes through every kernel. */
const longTimeoutMs = 3 * 60 * 60_000;
const graceMs = 5_000;

interface Wanted {
  readonly size: Size;
  readonly files: readonly string[];
  readonly isWhole: boolean;
}

process.exitCode = await main(process.argv.slice(2));

async function main(words: readonly string[]): Promise<number> {
  const wanted = select(words);
  if (typeof wanted === 'string') {
    process.stderr.write(`${wanted}\n`);
    return 1;
  }
  const { size, files, isWhole } = wanted;
  process.env['TEST_SIZE'] = size;
  process.env['TEST_CACHE'] = testCache;
  delete process.env['NMI_TEST_CACHE'];
  markChildren();
  const stop = endOnSignals();
  const builds = new ProgramBuilds(files.flatMap((file) => needsOf(file, size, root)));
  const lateness = isWhole && size === 'all' ? programsMs : 2 ** 31 - 1;
  // The build uses one processor, and is not needed by any check.
  const [isClean] = await Promise.all([isWhole ? checkSources() : true, freshExecutable()]);
  if (!isClean)
    process.stderr.write('the sources did not pass the checks above; no test was run\n');
  const isPassed =
    isClean &&
    (await runSuite({
      root,
      files,
      size,
      builds,
      lateness: delay(lateness, undefined, { ref: false }),
      timeoutMs: size === 'long' ? longTimeoutMs : timeoutMs,
      mustRunAll: process.env['CI'] === 'true',
      stop,
      output: process.stdout,
      log: (line) => process.stderr.write(`${line}\n`),
    }));
  await endProcesses(0);
  return isPassed ? 0 : 1;
}

/** A message if there is nothing to run. */
function select(words: readonly string[]): Wanted | string {
  const flags = words.filter((word) => word.startsWith('-'));
  const named = words.filter((word) => !word.startsWith('-'));
  const unknown = flags.find((flag) => flag !== '--all' && flag !== '--long');
  if (unknown !== undefined) return `unknown flag: ${unknown}; there are --all and --long`;
  const all = globSync('test/**/*.test.ts', { cwd: root }).sort();
  if (named.length === 0) {
    let size: Size = flags.includes('--all') ? 'all' : 'test';
    if (flags.includes('--long')) size = 'long';
    // The checks before the run include the conventions.
    const files = all.filter(
      (file) => isWithin(kindOf(file).size, size) && !file.startsWith('test/conventions/'),
    );
    return { size, files, isWhole: true };
  }
  const missing = named.find((word) => filesNamed(word, all).length === 0);
  if (missing !== undefined) return `there is no such test: ${missing}`;
  const files = [...new Set(named.flatMap((word) => filesNamed(word, all)))];
  const isLong = flags.includes('--long') || files.some((file) => kindOf(file).size === 'long');
  return { size: isLong ? 'long' : 'all', files, isWhole: false };
}

/** Of a kind, one file, or those below a folder. `unit` are all that may run beside others. */
function filesNamed(word: string, all: readonly string[]): readonly string[] {
  if (kinds.some(({ name }) => name === word)) {
    const names = word === 'unit' ? ['unit', 'conformance'] : [word];
    return all.filter((file) => names.includes(kindOf(file).name));
  }
  const path = relative(root, resolve(word));
  return all.filter((file) => file === path || file.startsWith(`${path}/`));
}

/** Aborts at a signal; this process ends when all others of the run have ended. */
function endOnSignals(): AbortSignal {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      process.stderr.write(`the run was ended by ${signal}\n`);
      stop.abort();
      void endProcesses(graceMs)
        // A test process that is ended by a signal leaves the namespaces that it made.
        .then(() => sweepDeadFabrics())
        .then(() => sweepDeadNamespaces())
        .finally(() => process.exit(128 + constants.signals[signal]));
    });
  }
  return stop.signal;
}
