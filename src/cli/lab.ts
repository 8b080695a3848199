/**
 * `nmi lab`: chooses where the lab runs (namespaces with root, else loopback, said aloud), runs
 * scenarios and reports. The hidden verbs are the lab's own processes.
 */
import { attachFabric, findFabricObstacle } from '../../lab/fabric/fabric.ts';
import { openFabricGround } from '../../lab/world/fabric-ground.ts';
import { LabError } from '../../lab/fabric/lab-error.ts';
import { openLoopbackGround } from '../../lab/world/loopback-ground.ts';
import { runPodAgent } from '../../lab/pods/pod-agent.ts';
import { createReport } from '../../lab/world/report.ts';
import { runScenarios, type Scenario } from '../../lab/world/scenario.ts';
import { scenarios } from '../../lab/scenarios/all.ts';
import { prepareStay } from '../../lab/world/stay.ts';
import { superviseLab } from '../../lab/fabric/supervise.ts';
import { World, type Ground } from '../../lab/world/world.ts';
import type { Words } from './flags.ts';
import { exitCodes, untilStopped, type Outside } from './outside.ts';

interface LabFlags {
  readonly scenario: string;
  readonly redirect: string;
  /** One whole round after the other. */
  readonly times: number;
  readonly output: 'text' | 'json';
  readonly keep: boolean;
  readonly list: boolean;
  readonly loopback: boolean;
}

/** Enough for a night. */
const maxTimes = 1_000;

export async function lab(words: Words, outside: Outside): Promise<number> {
  const flags = parseFlags(words);
  if (typeof flags === 'string') {
    outside.stderr(`nmi lab: ${flags}\n`);
    return exitCodes.usage;
  }
  if (flags.list) {
    for (const { name, title } of scenarios) outside.stdout(`${name.padEnd(26)} ${title}\n`);
    return exitCodes.ok;
  }
  const obstacle = flags.loopback ? 'asked for by --loopback' : findFabricObstacle();
  try {
    if (obstacle === undefined) {
      return await superviseLab({ args: innerArgs(flags), stop: outside.stop });
    }
    outside.stderr(`nmi lab: on loopback and WITHOUT the redirect: ${obstacle}\n`);
    await using ground = await openLoopbackGround();
    return await runLab(ground, { ...flags, redirect: 'none' }, undefined, outside);
  } catch (error) {
    return failed(error, outside);
  }
}

/** The lab's main process, inside the azure namespace. */
export async function labInner(words: Words, outside: Outside): Promise<number> {
  const { fabric: prefix = '', ...rest } = words.flags;
  const flags = parseFlags({ flags: rest, rest: words.rest });
  if (typeof flags === 'string') {
    outside.stderr(`nmi lab-inner: ${flags}\n`);
    return exitCodes.usage;
  }
  try {
    const fabric = attachFabric(prefix);
    await using ground = await openFabricGround(fabric, flags.redirect);
    return await runLab(ground, flags, (space) => fabric.namespaceOf(space), outside);
  } catch (error) {
    return failed(error, outside);
  }
}

/** The client inside a pod. */
export async function labPod(): Promise<number> {
  await runPodAgent(process.stdin, process.stdout);
  return exitCodes.ok;
}

async function runLab(
  ground: Ground,
  flags: LabFlags,
  namespaceOf: ((space: string) => string) | undefined,
  outside: Outside,
): Promise<number> {
  const report = createReport(flags.output, outside.stdout);
  await using world = new World(ground, report.line);
  const { chosen, left } = choose(flags.scenario, ground);
  const all = Array.from({ length: flags.times }, () => chosen).flat();
  report.begin(ground.kind, flags.redirect, all.length);
  for (const scenario of left) report.skipped(scenario);
  const result = await runScenarios({
    world,
    redirect: flags.redirect,
    scenarios: all,
    stop: outside.stop,
    onStart: report.start,
    onEnd: report.end,
  });
  report.summary(result);
  if (flags.keep && !outside.stop.aborted) {
    outside.stderr(await prepareStay(world, namespaceOf));
    await untilStopped(outside);
  }
  return result.ok ? exitCodes.ok : exitCodes.failed;
}

function choose(name: string, ground: Ground) {
  const named = scenarios.filter((scenario) => {
    if (name === 'all') return true;
    return name === 'tour' ? scenario.inTour : scenario.name === name;
  });
  const isPossible = (scenario: Scenario) =>
    scenario.needs === 'any' || ground.kind === 'namespaces';
  return {
    chosen: named.filter(isPossible),
    left: named.filter((scenario) => !isPossible(scenario)),
  };
}

function parseFlags(words: Words): LabFlags | string {
  const known = new Set(['scenario', 'redirect', 'times', 'output', 'keep', 'list', 'loopback']);
  const { flags } = words;
  const stray = Object.keys(flags).find((flag) => !known.has(flag));
  if (stray !== undefined) return `unknown flag --${stray}; see nmi lab --help`;
  const [strayWord] = words.rest;
  if (strayWord !== undefined) return `unknown word "${strayWord}"; see nmi lab --help`;
  const { scenario = 'tour', redirect = 'iptables', times = '1', output = 'text' } = flags;
  const names = ['tour', 'all', ...scenarios.map(({ name }) => name)];
  if (!names.includes(scenario)) {
    return `--scenario has the value "${scenario}"; allowed: ${names.join(', ')}`;
  }
  if (redirect !== 'ebpf' && redirect !== 'iptables' && redirect !== 'none') {
    return `--redirect has the value "${redirect}"; allowed: ebpf, iptables, none`;
  }
  if (!/^[1-9]\d{0,3}$/.test(times) || Number(times) > maxTimes) {
    return `--times has the value "${times}"; allowed: a whole number from 1 to ${maxTimes}`;
  }
  if (output !== 'text' && output !== 'json') {
    return `--output has the value "${output}"; allowed: text, json`;
  }
  const isOn = (flag: string) => flags[flag] === 'true';
  return {
    scenario,
    redirect,
    times: Number(times),
    output,
    keep: isOn('keep'),
    list: isOn('list'),
    loopback: isOn('loopback'),
  };
}

function innerArgs(flags: LabFlags): readonly string[] {
  return [
    `--scenario=${flags.scenario}`,
    `--redirect=${flags.redirect}`,
    `--times=${flags.times}`,
    `--output=${flags.output}`,
    ...(flags.keep ? ['--keep'] : []),
  ];
}

function failed(error: unknown, outside: Outside): number {
  if (!(error instanceof LabError)) throw error;
  outside.stderr(`nmi lab: ${error.code}: ${error.message}\n`);
  return exitCodes.unavailable;
}
