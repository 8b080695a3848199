/** The generated parts of bench/README.md, bench/results.md and README.md. Pure. */
import { isDeepStrictEqual } from 'node:util';
import type { Machine, Results, ScenarioResult } from '../core/results.ts';
import { noiseBound } from '../core/statistics.ts';
import { minutesOf } from './duration.ts';
import { renderGoals } from './goals.ts';
import { renderHeadline } from './headline.ts';
import { busiestLoads, figureTable, seriesTable, servicesOf } from './markdown.ts';
import { plotsOf } from './plots.ts';
import { slopeFigures, slopeNote } from './soak-slopes.ts';

/** bench/README.md: the goals. @throws Error without the markers. */
export function fillReadme(readme: string, results: Results): string {
  const parts = [renderMachine(results), renderGoals(results, 'all')];
  return fill(readme, 'goals', parts.join('\n\n'));
}

/** bench/results.md: each scenario. @throws Error without the markers. */
export function fillResults(page: string, results: Results): string {
  const scenarios = results.scenarios.map((each) => renderScenario(each, results.machine));
  return fill(page, 'results', [renderMachine(results), ...scenarios].join('\n\n'));
}

/** The README of the project. @throws Error without the markers. */
export function fillHeadline(readme: string, results: Results): string {
  const again = `\`./dev bench\` measures them again in about ${minutesOf(results)} minutes, but for the watches: \`./dev bench fleet\`.`;
  return fill(readme, 'speed', `${renderHeadline(results)}\n\n${again}`);
}

function fill(readme: string, name: string, generated: string): string {
  const [begin, end] = [`<!-- generated: ${name} -->`, `<!-- end: ${name} -->`];
  const [from, to] = [readme.indexOf(begin), readme.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`a README lacks the markers of its ${name}`);
  return `${readme.slice(0, from + begin.length)}\n\n${generated}\n\n${readme.slice(to)}`;
}

function describe({ cpu, cores, memoryMb, kernel, arch, node, hasAffinity }: Machine): string {
  return (
    `Node ${node}, Linux ${kernel} ${arch}, ${cores} × ${cpu}, ${memoryMb} MB; server and ` +
    `load ${hasAffinity ? 'on a core each' : 'NOT on cores of their own'}`
  );
}

function renderMachine(results: Results): string {
  return (
    `${describe(results.machine)}. A run of all but soak and fleet took ${minutesOf(results)} minutes. Medians of the rounds, with the range in ` +
    `brackets; "noisy" where the range is more than ${noiseBound * 100} % of the median.`
  );
}

/** @param common The machine described above; scenarios that ran on it omit the description. */
function renderScenario(scenario: ScenarioResult, common: Machine): string {
  const { name, title, startedAt, seconds, commit, loadBefore, series, figures, notes } = scenario;
  const { machine = common } = scenario;
  const elsewhere = isDeepStrictEqual(machine, common) ? '' : `On another: ${describe(machine)}.`;
  const slopes = slopeFigures(scenario);
  const all = [...figures, ...slopes];
  return [
    `## ${name}`,
    `${title}. Commit ${commit}, ${startedAt.slice(0, 16).replace('T', ' ')} UTC, ${seconds} s; load of ` +
      `the machine before it ${loadBefore}${servicesOf(scenario)}.`,
    elsewhere,
    ...(series.length === 0 ? [] : [seriesTable(scenario)]),
    ...(all.length === 0 ? [] : [figureTable(all)]),
    ...plotsOf(scenario).map((plot) => `![${plot.title}](plots/${plot.file})`),
    ...notes,
    slopes.length === 0 ? '' : slopeNote,
    busiestLoads(scenario),
  ]
    .filter((part) => part !== '')
    .join('\n\n');
}
