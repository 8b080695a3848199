/** The plots of a result: file name and SVG text. Pure. */
import { Histogram } from '../core/histogram.ts';
import {
  behindRedirect,
  isPaced,
  type Results,
  type ScenarioResult,
  type Series,
} from '../core/results.ts';
import { median } from '../core/statistics.ts';
import { renderBars, renderLines } from './charts.ts';
import { measures } from './markdown.ts';

export interface Plot {
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

export function plotsOf(scenario: ScenarioResult): readonly Plot[] {
  // Seven names do not fit above a picture, and those behind a redirect are for the goals.
  const series = scenario.series.filter(({ subject }) => !subject.startsWith(behindRedirect('')));
  return [
    ...seriesPlots({ ...scenario, series }),
    ...scenario.curves.map((curve) => curvePlot(scenario, curve)),
  ];
}

export function plotFiles(results: Results): readonly Plot[] {
  return results.scenarios.flatMap(plotsOf);
}

function seriesPlots(scenario: ScenarioResult): readonly Plot[] {
  const { series, name, title } = scenario;
  if (series.length < 2) return [];
  const groups = distinct(series.map(({ shape }) => shape));
  const names = distinct(series.map(({ subject }) => subject));
  const find = (subject: string, shape: string) =>
    series.find((each) => each.subject === subject && each.shape === shape);
  // At a fixed rate all have the same throughput, or fail.
  const free = groups.filter((shape) => !isPaced(shape));
  const bars = names.map((subject) => ({
    name: subject,
    values: free.map((shape) => {
      const found = find(subject, shape);
      return found === undefined ? undefined : median(measures.perSec(found));
    }),
  }));
  const throughput = {
    file: `${name}-throughput.svg`,
    title: `${title}: answers a second`,
    svg: renderBars({ title, yLabel: 'answers/s', groups: free, bars }),
  };
  return [throughput, ...groups.map((shape) => latencyPlot(scenario, shape))];
}

/** Latency by percentile, on a scale where each additional nine has the same width. */
function latencyPlot(scenario: ScenarioResult, shape: string): Plot {
  const lines = scenario.series
    .filter((each) => each.shape === shape)
    .map((each) => ({ name: each.subject, points: percentilesOf(each) }));
  const title = `Latency by percentile, ${shape}`;
  return {
    file: `${scenario.name}-latency-${slug(shape)}.svg`,
    title: `${scenario.title}: ${title.toLowerCase()}`,
    svg: renderLines({
      title,
      xLabel: 'percentile',
      yLabel: 'µs',
      xScale: 'log',
      yScale: 'log',
      lines,
      xTick: (value) => `${Number((100 - 100 / value).toPrecision(6))} %`,
    }),
  };
}

function percentilesOf(series: Series): readonly (readonly [number, number])[] {
  const whole = Histogram.sum(series.rounds.map(({ latency }) => latency));
  const points: [number, number][] = [];
  // One in `oneIn` is slower; fewer than ten samples are not significant.
  for (let oneIn = 1; oneIn <= whole.count / 10 && oneIn <= 1e4; oneIn *= 1.3) {
    points.push([oneIn, whole.percentileUs(1 - 1 / oneIn)]);
  }
  return points;
}

function curvePlot(scenario: ScenarioResult, curve: ScenarioResult['curves'][number]): Plot {
  return {
    file: `${scenario.name}-${slug(curve.name)}.svg`,
    title: `${scenario.title}: ${curve.name}`,
    svg: renderLines({ ...curve, title: curve.name, yScale: 'linear' }),
  };
}

function distinct(names: readonly string[]): readonly string[] {
  return [...new Set(names)];
}

function slug(name: string): string {
  return name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '');
}
