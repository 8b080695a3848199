/** The goals, what was measured of each, and whether that is enough. Pure. */
import { findFigure, findSeries, subjects, type Results, type Series } from '../core/results.ts';
import { median, ratiosOf, spreadOf } from '../core/statistics.ts';
import { measures, renderNumber, renderSpread, table } from './markdown.ts';

interface Goal {
  readonly text: string;
  /** What the measured number must not go beyond. */
  readonly bound: number;
  readonly isLeast?: boolean;
  readonly unit: string;
  /** Undefined when the run did not measure it. */
  readonly values: (results: Results) => readonly number[] | undefined;
}

type Measure = (series: Series) => readonly number[];

function ratio(scenario: string, shape: string, measure: Measure, agent: string, control: string) {
  return (results: Results): readonly number[] | undefined => {
    const ours = findSeries(results, scenario, shape, agent);
    const other = findSeries(results, scenario, shape, control);
    return ours === undefined || other === undefined
      ? undefined
      : ratiosOf(measure(ours), measure(other));
  };
}

function figure(scenario: string, name: string) {
  return (results: Results): readonly number[] | undefined =>
    findFigure(results, scenario, name)?.values;
}

const { agent, nodeHttp, goHttp } = subjects;
const kept = ['1 kept', '16 kept', '64 kept'];
const times = '× node:http';

const goals: readonly Goal[] = [
  ...kept.map((shape) => ({
    text: `cached token, ${shape}: throughput of the control`,
    ...{ bound: 0.95, isLeast: true, unit: times },
    values: ratio('hit', shape, measures.perSec, agent, nodeHttp),
  })),
  ...kept.map((shape) => ({
    text: `the same, ${shape}: p50`,
    ...{ bound: 1.1, unit: times, values: ratio('hit', shape, measures.p50Us, agent, nodeHttp) },
  })),
  ...kept.map((shape) => ({
    text: `the same, ${shape}: p99`,
    ...{ bound: 1.1, unit: times, values: ratio('hit', shape, measures.p99Us, agent, nodeHttp) },
  })),
  ...kept.map((shape) => ({
    text: `the same, ${shape}: CPU per 1,000`,
    ...{ bound: 1.1, unit: times, values: ratio('hit', shape, measures.cpuMs, agent, nodeHttp) },
  })),
  ...kept.map((shape) => ({
    text: `the same, ${shape}: past Go's net/http`,
    ...{ bound: 1, isLeast: true, unit: '× Go net/http' },
    values: ratio('hit', shape, measures.perSec, agent, goHttp),
  })),
  ...['eBPF', 'iptables'].flatMap((redirect) => [
    {
      text: `through the real redirect (${redirect}), 16 kept: throughput`,
      ...{ bound: 0.95, isLeast: true, unit: times },
      values: ratio('redirects', '16 kept', measures.perSec, redirect, nodeHttp),
    },
    {
      text: `through the real redirect (${redirect}), a new connection each: p50`,
      ...{ bound: 1.15, unit: times },
      values: ratio('redirects', '16 new each', measures.p50Us, redirect, nodeHttp),
    },
  ]),
  ...['1 new each', '16 new each'].map((shape) => ({
    text: `a new connection for each request, ${shape}: p50`,
    ...{ bound: 1.15, unit: times, values: ratio('new', shape, measures.p50Us, agent, nodeHttp) },
  })),
  ...['IMDS', 'Entra ID'].flatMap((upstream) => [
    {
      text: `a miss, ${upstream}: added to the upstream's time at p50`,
      ...{ bound: 0.5, unit: 'ms', values: figure('miss', `${upstream}: added at p50`) },
    },
    {
      text: `a miss, ${upstream}: added at p99`,
      ...{ bound: 2, unit: 'ms', values: figure('miss', `${upstream}: added at p99`) },
    },
  ]),
  {
    text: 'cold start of the executable to the first token served',
    ...{ bound: 250, unit: 'ms', values: figure('cold-start', 'start to first token') },
  },
  {
    text: 'resident memory at 250 pods, 10,000 identities, 20,000 bindings',
    ...{ bound: 100, unit: 'MB', values: figure('memory', 'resident') },
  },
  {
    text: 'private memory there',
    ...{ bound: 60, unit: 'MB', values: figure('memory', 'private') },
  },
  {
    text: 'growth of private memory in the soak, after warm-up',
    ...{ bound: 1, unit: 'MB/h', values: figure('soak', 'private, slope after warm-up') },
  },
  ...['pods', 'identities', 'tokens'].map((what) => ({
    text: `cost of a hit at the most ${what} over that at the fewest`,
    ...{ bound: 1.15, unit: '×', values: figure('growth', `cost at the most ${what}`) },
  })),
  ...['pod', 'identity', 'binding'].map((what) => ({
    text: `index update by one event of a watch (${what}), p99`,
    ...{ bound: 50, unit: 'µs', values: figure('index-updates', `${what} event, p99`) },
  })),
];

/** The table, and in a sentence how many are met. */
export function renderGoals(results: Results, which: 'all' | 'measured'): string {
  let met = 0;
  let measured = 0;
  const rows = goals.flatMap((goal) => {
    const sign = goal.isLeast === true ? '≥' : '≤';
    const values = goal.values(results);
    const wanted = `${sign} ${goal.bound} ${goal.unit}`;
    if (values === undefined || values.length === 0) {
      return which === 'all' ? [[goal.text, wanted, 'not measured', '', '']] : [];
    }
    measured += 1;
    const middle = median(values);
    const isMet = goal.isLeast === true ? middle >= goal.bound : middle <= goal.bound;
    if (isMet) met += 1;
    const gap = Math.abs(middle - goal.bound);
    const verdict = spreadOf(values).isNoisy ? ' (noisy)' : '';
    return [
      [
        ...[goal.text, wanted, renderSpread(values).replace(' noisy', '')],
        `${isMet ? 'yes' : 'no'}${verdict}`,
        isMet ? '' : `${renderNumber(gap)} ${goal.unit.replace(/^× .*/, '×')}`,
      ],
    ];
  });
  if (rows.length === 0) return '';
  const head = ['goal', 'wanted', 'measured', 'met', 'what is left'];
  return `${met} of ${measured} goals that were measured are met.\n\n${table(head, rows)}`;
}
