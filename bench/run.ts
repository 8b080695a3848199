/**
 * The benchmark suite: `npm run bench`. Every scenario runs in its own process, one after another;
 * progress goes to stderr, tables to stdout, and the results of a whole run to bench/results.json,
 * bench/plots and bench/README.md.
 */
import { join } from 'node:path';
import { parseOptions, usage, type Options } from './core/options.ts';
import type { ScenarioResult } from './core/results.ts';
import { onCore } from './machine/cores.ts';
import { outputOf, start } from './machine/child.ts';
import { obstacleTo, takeTurn, untilQuiet } from './machine/alone.ts';
import { describeLoad, describeMachine } from './machine/describe.ts';
import { watchOthers } from './machine/others.ts';
import { renderGoals } from './report/goals.ts';
import { busiestLoads, figureTable, seriesTable, servicesOf } from './report/markdown.ts';
import { publish, republish } from './report/publish.ts';
import { scenarios } from './scenarios/all.ts';
import type { Scenario } from './scenarios/scenario.ts';

/** `./dev bench` builds it. */
const builtExecutable = join(import.meta.dirname, '../dist/nmi');

const args = process.argv.slice(2);
if (args[0] === 'report') await republish();
else process.exit(await main(args));

async function main(words: readonly string[]): Promise<number> {
  let options: Options;
  try {
    options = parseOptions(words);
  } catch (error) {
    process.stderr.write(`${String(error)}\n${usage}\n`);
    return 2;
  }
  const chosen = choose(options);
  if (typeof chosen === 'string') {
    process.stderr.write(`${chosen}\n`);
    return 2;
  }
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      stop.abort();
    });
  }
  using turn = takeTurn();
  const needsQuiet = options.isPublished && !options.isBeside;
  let obstacle = obstacleTo(describeLoad(), turn);
  if (obstacle !== undefined && needsQuiet && turn.otherPid === undefined) {
    process.stderr.write(`${obstacle}: waiting for it to fall, three minutes at most\n`);
    const wait = { load: describeLoad, limitMs: 180_000, pauseMs: 1_000, stop: stop.signal };
    await untilQuiet(wait);
    if (stop.signal.aborted) return 130;
    obstacle = obstacleTo(describeLoad(), turn);
  }
  if (obstacle !== undefined) {
    process.stderr.write(`NOT ALONE ON THE MACHINE: ${obstacle}.\n`);
    if (needsQuiet) {
      process.stderr.write('Nothing is published of that: try later, or give --beside.\n');
      return 2;
    }
  }
  const marks = obstacle === undefined ? {} : { isNotAlone: true };
  const machine = describeMachine();
  const executable = options.agent ?? builtExecutable;
  const found: ScenarioResult[] = [];
  const failed: string[] = [];
  for (const scenario of chosen) {
    process.stderr.write(`${scenario.name}: ${scenario.title}\n`);
    try {
      const others = watchOthers();
      const measured = await runScenario(scenario, executable, options, stop.signal);
      const result = { ...measured, ...marks, machine, othersCores: others() };
      found.push(result);
      process.stdout.write(`\n${render(result)}\n\n`);
    } catch (error) {
      failed.push(`${scenario.name}: ${String(error)}`);
    }
    if (stop.signal.aborted) return 130;
  }
  const results = { machine, scenarios: found };
  process.stdout.write(`${renderGoals(results, 'measured')}\n`);
  for (const line of failed) process.stderr.write(`failed: ${line}\n`);
  // A scenario that failed keeps its earlier results; it can be run and published alone.
  if (options.isPublished && found.length > 0) await publish(results);
  return failed.length === 0 ? 0 : 1;
}

function choose(options: Options): readonly Scenario[] | string {
  const { only, isQuick, against } = options;
  const stray = only.find((name) => !scenarios.some((scenario) => scenario.name === name));
  if (stray !== undefined) {
    return `no scenario is called ${stray}; there are: ${scenarios.map(({ name }) => name).join(', ')}`;
  }
  return scenarios.filter((scenario) => {
    if (only.length > 0) return only.includes(scenario.name);
    if (scenario.name === 'against') return against !== undefined;
    return scenario.isExtra !== true && (scenario.isQuick || !isQuick);
  });
}

async function runScenario(
  scenario: Scenario,
  executable: string,
  options: Options,
  stop: AbortSignal,
): Promise<ScenarioResult> {
  const program = join(import.meta.dirname, 'programs/scenario.ts');
  const words = [process.execPath, program, scenario.name, executable, JSON.stringify(options)];
  const child = start(onCore('load', words as [string, ...string[]]), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const end = (): void => void child.kill('SIGTERM');
  stop.addEventListener('abort', end);
  try {
    return JSON.parse(await outputOf(child)) as ScenarioResult;
  } finally {
    stop.removeEventListener('abort', end);
  }
}

function render(result: ScenarioResult): string {
  return [
    `${result.title} (${result.seconds} s${servicesOf(result)})`,
    ...(result.series.length === 0 ? [] : [seriesTable(result)]),
    ...(result.figures.length === 0 ? [] : [figureTable(result.figures)]),
    ...result.notes,
    busiestLoads(result),
  ].join('\n');
}
