/**
 * `./dev lab`: chooses where the lab runs (namespaces with root, else loopback with a notice), runs
 * scenarios and prints the report. The agent under test is the built executable.
 */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import yargs from 'yargs';
import { exitCodes, untilStopped, type Io } from '../src/cli/io.ts';
import { attachFabric, findFabricObstacle } from './fabric/fabric.ts';
import { LabError } from './fabric/lab-error.ts';
import { superviseLab } from './fabric/supervise.ts';
import { scenarios } from './scenarios/all.ts';
import { openFabricEnvironment } from './test-bed/fabric-environment.ts';
import { openLoopbackEnvironment } from './test-bed/loopback-environment.ts';
import { createReport } from './test-bed/report.ts';
import { runScenarios, type Scenario } from './test-bed/scenario.ts';
import { prepareKeep } from './test-bed/keep.ts';
import { TestBed, type Environment } from './test-bed/test-bed.ts';

const executable = fileURLToPath(new URL('../dist/nmi', import.meta.url));

/** Enough for a night. */
const maxTimes = 1_000;

const options = {
  scenario: {
    type: 'string',
    requiresArg: true,
    describe:
      'Name of a scenario, "tour", "kernel" (those that need namespaces) or "all"; several with commas.',
    default: 'tour',
  },
  redirect: {
    choices: ['auto', 'ebpf', 'iptables', 'none'],
    requiresArg: true,
    describe: 'How pods are redirected.',
    default: 'iptables',
  },
  times: {
    type: 'string',
    requiresArg: true,
    describe: `How often to run all of that, 1 to ${maxTimes}.`,
    default: '1',
  },
  output: {
    choices: ['text', 'json'],
    requiresArg: true,
    describe: 'json is one object on standard output.',
    default: 'text',
  },
  keep: { type: 'boolean', describe: 'Leave the lab running, to try it by hand.' },
  list: { type: 'boolean', describe: 'List the scenarios.' },
  loopback: { type: 'boolean', describe: 'No namespaces and no redirect, as without root.' },
  help: { type: 'boolean', alias: 'h', describe: 'Show this.' },
} as const;

type LabFlags = ReturnType<typeof parseFlags>;

export async function lab(words: readonly string[], io: Io): Promise<number> {
  return reporting(io, async () => {
    const flags = parseFlags(words);
    if (flags.help === true) {
      io.stdout(`${await createParser(words).getHelp()}\n`);
      return exitCodes.ok;
    }
    if (flags.list === true) {
      for (const { name, title } of scenarios) io.stdout(`${name.padEnd(26)} ${title}\n`);
      return exitCodes.ok;
    }
    if (!existsSync(executable)) {
      throw new LabError('AGENT_FAILED', `${executable} is not built; ./dev lab builds it`);
    }
    const obstacle = flags.loopback === true ? 'asked for by --loopback' : findFabricObstacle();
    if (obstacle === undefined) return await superviseLab({ args: words, stop: io.stop });
    io.stderr(`lab: on loopback and WITHOUT the redirect: ${obstacle}\n`);
    await using environment = await openLoopbackEnvironment([executable]);
    return await runLab(environment, { ...flags, redirect: 'none' }, undefined, io);
  });
}

/** The lab's main process, inside the azure namespace. */
export async function labInner(
  [prefix = '', ...words]: readonly string[],
  io: Io,
): Promise<number> {
  return reporting(io, async () => {
    const flags = parseFlags(words);
    const fabric = attachFabric(prefix);
    await using environment = await openFabricEnvironment(fabric, flags.redirect, [executable]);
    return await runLab(environment, flags, (space) => fabric.namespaceOf(space), io);
  });
}

async function runLab(
  environment: Environment,
  flags: LabFlags,
  namespaceOf: ((space: string) => string) | undefined,
  io: Io,
): Promise<number> {
  const report = createReport(flags.output, io.stdout);
  await using testBed = new TestBed(environment, report.line);
  const { chosen, left } = choose(flags.scenario, environment);
  const all = Array.from({ length: flags.times }, () => chosen).flat();
  const redirect = flags.redirect === 'auto' ? `auto, here ${testBed.mode}` : testBed.mode;
  report.begin(environment.kind, redirect, all.length);
  for (const scenario of left) report.skipped(scenario);
  const result = await runScenarios({
    testBed,
    scenarios: all,
    stop: io.stop,
    onStart: report.start,
    onEnd: report.end,
  });
  report.summary(result);
  if (flags.keep === true && !io.stop.aborted) {
    io.stderr(await prepareKeep(testBed, namespaceOf));
    await untilStopped(io);
  }
  return result.ok ? exitCodes.ok : exitCodes.failed;
}

function choose(names: string, environment: Environment) {
  const isNamed = (scenario: Scenario, name: string): boolean => {
    if (name === 'all') return true;
    if (name === 'kernel') return scenario.needs === 'namespaces';
    return name === 'tour' ? scenario.inTour : scenario.name === name;
  };
  const named = scenarios.filter((scenario) =>
    names.split(',').some((name) => isNamed(scenario, name)),
  );
  const isPossible = (scenario: Scenario) =>
    scenario.needs === 'any' || environment.kind === 'namespaces';
  return {
    chosen: named.filter(isPossible),
    left: named.filter((scenario) => !isPossible(scenario)),
  };
}

class UsageError extends Error {}

function createParser(words: readonly string[]) {
  return yargs([...words])
    .help(false)
    .version(false)
    .scriptName('./dev lab')
    .usage('A whole node with pods, Azure and Kubernetes on this machine, to try and to test.')
    .usage('\nUsage: $0 [flags]')
    .options(options)
    .parserConfiguration({ 'duplicate-arguments-array': false, 'boolean-negation': false })
    .strict()
    .wrap(100)
    .exitProcess(false)
    .fail((message: string) => {
      // The message of a wrong value has several lines.
      throw new UsageError(message.replaceAll(/\s*\n\s*/g, ' '));
    });
}

/** @throws UsageError */
function parseFlags(words: readonly string[]) {
  const flags = createParser(words).parseSync();
  const { scenario, times } = flags;
  const names = ['tour', 'kernel', 'all', ...scenarios.map(({ name }) => name)];
  const unknown = scenario.split(',').find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new UsageError(`--scenario has the value "${unknown}"; allowed: ${names.join(', ')}`);
  }
  if (!/^[1-9]\d{0,3}$/.test(times) || Number(times) > maxTimes) {
    throw new UsageError(
      `--times has the value "${times}"; allowed: a whole number from 1 to ${maxTimes}`,
    );
  }
  return { ...flags, times: Number(times) };
}

async function reporting(io: Io, work: () => Promise<number>): Promise<number> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UsageError) {
      io.stderr(`lab: ${error.message}; see ./dev lab --help\n`);
      return exitCodes.usage;
    }
    if (!(error instanceof LabError)) throw error;
    io.stderr(`lab: ${error.code}: ${error.message}\n`);
    return exitCodes.unavailable;
  }
}
