/**
 * Runs the tests: `node test/runner/run.ts [--all|--long] [KIND|FILE|FOLDER...]`. Without one it
 * checks the sources first, and runs every file of that size (`testing/kinds.ts`); a file by itself
 * runs as in `--all`. `--times` only prints what the files of the last run took. The last things
 * printed are the summary of Node's test runner, and a line of what was skipped and why. With CI=true a run fails
 * if it skipped what `skips.ts` does not list.
 */
import { globSync } from 'node:fs';
import { constants } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { sweepDeadFabrics } from '../../lab/fabric/namespaces.ts';
import { sweepDeadNamespaces } from '../redirect/namespaces.ts';
import { testCache } from '../support/test-cache.ts';
import { freshExecutable } from '../../scripts/build.ts';
import { checkSources } from '../../scripts/check.ts';
import { ProgramBuilds } from './builds.ts';
import { isWithin, kindOf, kinds, type Size } from './kinds.ts';
import { endProcesses, markOf, markVariable } from './processes.ts';
import { planJobs, runSuite } from './suite.ts';
import { keepTimes, readTimes, renderTimes } from './times.ts';

const root = join(import.meta.dirname, '../..');
const startMs = performance.now();

/** A run has to end within 90 minutes where `.ci/run` runs; the tests on a node take ten. */
const nodeProgramsMs = 65 * 60_000;

/** They are sooner ready in processes of their own. */
const fewFiles = 30;

interface Wanted {
  readonly size: Size;
  readonly files: readonly string[];
  readonly isWhole: boolean;
  readonly sharesProcesses: boolean;
}

process.exitCode = await main(process.argv.slice(2));

async function main(words: readonly string[]): Promise<number> {
  if (words.includes('--times')) {
    process.stdout.write(renderTimes(readTimes().last));
    return 0;
  }
  const wanted = select(words);
  if (typeof wanted === 'string') {
    process.stderr.write(`${wanted}\n`);
    return 1;
  }
  return runWanted(wanted);
}

async function runWanted({ size, files, isWhole, sharesProcesses }: Wanted): Promise<number> {
  process.env['TEST_SIZE'] = size;
  process.env['TEST_CACHE'] = testCache;
  delete process.env['NMI_TEST_CACHE'];
  // All processes of the run are found by it.
  process.env[markVariable] = markOf('');
  const stop = endOnSignals();
  const { known } = readTimes();
  const needs = planJobs({ root, files, size, sharesProcesses, known }).flatMap((job) => job.needs);
  using builds = new ProgramBuilds([...new Set(needs)]);
  // The build uses one processor, and is not needed by any check.
  const [isClean] = await Promise.all([isWhole ? checkSources() : true, freshExecutable()]);
  if (!isClean) {
    process.stderr.write('the sources did not pass the checks above; no test was run\n');
    return 1;
  }
  const { isPassed, times } = await runSuite({
    root,
    files,
    size,
    sharesProcesses,
    known,
    builds,
    patienceMs: (programs) =>
      isWhole && size === 'all' && programs.includes('node')
        ? startMs + nodeProgramsMs - performance.now()
        : Infinity,
    mustRunAll: process.env['CI'] === 'true',
    stop,
    output: process.stdout,
    log: (line) => process.stderr.write(`${line}\n`),
  });
  if (!stop.aborted) keepTimes(times);
  return isPassed ? 0 : 1;
}

/** A message if there is nothing to run. */
function select(words: readonly string[]): Wanted | string {
  const flags = words.filter((word) => word.startsWith('-'));
  const named = words.filter((word) => !word.startsWith('-'));
  const unknown = flags.find((flag) => flag !== '--all' && flag !== '--long');
  if (unknown !== undefined) return `unknown flag: ${unknown}; there are --all, --long and --times`;
  const all = globSync('test/**/*.test.ts', { cwd: root }).sort();
  let size: Size = flags.includes('--all') ? 'all' : 'test';
  if (flags.includes('--long')) size = 'long';
  if (named.length === 0) {
    // The checks before the run include these.
    const files = all.filter(
      (file) => isWithin(kindOf(file).size, size) && !file.startsWith('test/conventions/'),
    );
    return { size, files, isWhole: true, sharesProcesses: true };
  }
  const files = named.flatMap((word) => filesNamed(word, all));
  const missing = named.find((word) => filesNamed(word, all).length === 0);
  if (missing !== undefined) return `there is no such test: ${missing}`;
  const isLong = size === 'long' || files.some((file) => kindOf(file).size === 'long');
  return {
    size: isLong ? 'long' : 'all',
    files: [...new Set(files)],
    isWhole: false,
    sharesProcesses: files.length > fewFiles,
  };
}

/** Of a kind, one file, or those below a folder. `unit` are all that may run beside others. */
function filesNamed(word: string, all: readonly string[]): readonly string[] {
  if (kinds.some(({ name }) => name === word)) {
    return all.filter((file) => {
      const { name } = kindOf(file);
      return name === word || (word === 'unit' && name === 'conformance');
    });
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
      void endProcesses()
        // A test process that is ended by a signal leaves the namespaces that it made.
        .then(() => sweepDeadFabrics())
        .then(() => sweepDeadNamespaces())
        .finally(() => process.exit(128 + constants.signals[signal]));
    });
  }
  return stop.signal;
}
