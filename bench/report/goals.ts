/** The goals, their measured values, and whether they are met. Pure. */
import {
  behindRedirect,
  findFigure,
  findSeries,
  subjects,
  type Results,
  type Series,
} from '../core/results.ts';
import { median, ratiosOf, spreadOf } from '../core/statistics.ts';
import { soakSlopes } from './soak-slopes.ts';
import { measures, renderNumber, renderSpread, table } from './markdown.ts';

interface Goal {
  readonly text: string;
  /** Limit for every measured number. */
  readonly bound: number;
  readonly isLeast?: boolean;
  readonly unit: string;
  /** For each part, such as a number of connections, its rounds; undefined: not measured. */
  readonly parts: (results: Results) => readonly (readonly number[] | undefined)[];
  /** Heading of PROFILE.md that explains the remaining cost. */
  readonly profile: string;
  /** A control's value in the same unit: shown beside the goal, not part of it. */
  readonly beside?: { readonly name: string; readonly parts: Goal['parts'] };
}

type Measure = (series: Series) => readonly number[];

interface Compared {
  readonly scenario: string;
  readonly shapes: readonly string[];
  readonly measure: Measure;
  readonly subject: string;
  readonly control: string;
}

function ratios({ scenario, shapes, measure, subject, control }: Compared): Goal['parts'] {
  return (results) =>
    shapes.map((shape) => {
      const ours = findSeries(results, scenario, shape, subject);
      const other = findSeries(results, scenario, shape, control);
      if (ours === undefined || other === undefined) return undefined;
      return ratiosOf(measure(ours), measure(other));
    });
}

function figures(scenario: string, ...names: readonly string[]): Goal['parts'] {
  return (results) => names.map((name) => findFigure(results, scenario, name)?.values);
}

const { agent, nodeHttp, goHttp, bareProxy } = subjects;
const kept = ['1 kept', '16 kept', '64 kept'];
const times = '× node:http';

const paths = [
  { path: 'eBPF', scenario: 'redirects', subject: 'eBPF' },
  { path: 'iptables', scenario: 'redirects', subject: 'iptables' },
  { path: 'no redirect', scenario: 'hit', subject: agent },
];

const cachedToken: readonly Goal[] = paths.flatMap(({ path, scenario, subject }) => {
  const against = { scenario, subject, control: nodeHttp, shapes: kept };
  const name = `cached token, ${path}, 1 / 16 / 64 connections`;
  const goal = (what: string, bound: number, measure: Measure) => ({
    text: `${name}: ${what}`,
    bound,
    unit: times,
    parts: ratios({ ...against, measure }),
    profile: 'A cached token',
  });
  return [
    { ...goal('throughput', 0.95, measures.perSec), isLeast: true },
    goal('p50', 1.1, measures.p50Us),
    goal('p99', 1.1, measures.p99Us),
    goal('CPU per 1,000', 1.1, measures.cpuMs),
  ];
});

const newConnection: readonly Goal[] = paths.flatMap(({ path, scenario, subject }) => {
  const hasRedirect = scenario !== 'hit';
  const against = {
    scenario: hasRedirect ? scenario : 'new',
    subject,
    control: hasRedirect ? behindRedirect(path) : nodeHttp,
    shapes: ['1 new each', '16 new each'],
  };
  const name = `a new connection for each request, ${path}, 1 / 16 at once`;
  const goal = (what: string, bound: number, measure: Measure) => ({
    text: `${name}: ${what}`,
    bound,
    unit: hasRedirect ? `${times} behind it` : times,
    parts: ratios({ ...against, measure }),
    profile: 'A new connection',
  });
  return [
    // Behind a redirect, a pod connects at a fixed rate, below that at which it is limited.
    ...(hasRedirect ? [] : [{ ...goal('throughput', 0.87, measures.perSec), isLeast: true }]),
    goal('p50', 1.25, measures.p50Us),
    goal('p99', 1.15, measures.p99Us),
    goal('CPU per 1,000', 1.25, measures.cpuMs),
  ];
});

const byProxy = ` by a ${bareProxy}`;

function added(by: string, share: 'p50' | 'p99'): Goal['parts'] {
  return figures('miss', ...['IMDS', 'Entra ID'].map((name) => `${name}: added${by} at ${share}`));
}

const goals: readonly Goal[] = [
  ...cachedToken,
  ...paths.map(({ path, scenario, subject }) => ({
    text: `cached token, ${path}, 1 / 16 / 64 connections: past Go`,
    profile: 'A cached token',
    bound: 1,
    isLeast: true,
    unit: `× ${goHttp}`,
    parts: ratios({
      scenario,
      shapes: kept,
      measure: measures.perSec,
      subject,
      control: goHttp,
    }),
  })),
  ...newConnection,
  {
    text: `a miss, IMDS / Entra ID: added to the time of a ${bareProxy} at p50`,
    bound: 0.3,
    unit: 'ms',
    parts: (results) => {
      const proxy = added(byProxy, 'p50')(results);
      return added(
        '',
        'p50',
      )(results).map((ours, at) => {
        const other = proxy[at];
        return other && ours?.map((ms, round) => ms - (other[round] ?? NaN));
      });
    },
    profile: 'A miss',
    beside: { name: `the ${bareProxy} to the upstream's`, parts: added(byProxy, 'p50') },
  },
  {
    text: "a miss, IMDS / Entra ID: added to the upstream's time at p99",
    bound: 2,
    unit: 'ms',
    parts: added('', 'p99'),
    profile: 'A miss',
    beside: { name: bareProxy, parts: added(byProxy, 'p99') },
  },
  ...[
    { identities: '500', figure: 'start to first token', bound: 200 },
    { identities: '10,000', figure: 'start to first token, 10,000 identities', bound: 350 },
  ].map(({ identities, figure, bound }) => ({
    text: `start of the executable to the first token served, ${identities} identities`,
    profile: 'A start',
    bound,
    unit: 'ms',
    parts: figures('cold-start', figure),
    beside: {
      name: 'a bare Node',
      parts: figures('cold-start', 'a bare Node to its first answer'),
    },
  })),
  {
    text: 'resident memory with 250 pods, 10,000 identities, 20,000 bindings, 15 / 75 s after full load',
    profile: 'Memory',
    bound: 100,
    unit: 'MB',
    parts: figures('memory', '15 s after it: resident', '75 s after it: resident'),
  },
  {
    text: 'private memory there',
    profile: 'Memory',
    bound: 60,
    unit: 'MB',
    parts: figures('memory', '15 s after it: private', '75 s after it: private'),
  },
  ...[
    { text: 'wake-ups', bound: 3, unit: '/s', what: 'wake-ups' },
    { text: 'processor, with tools', bound: 0.3, unit: 'ms/s', what: 'processor' },
    { text: 'private memory', bound: 50, unit: 'MB', what: 'private' },
    { text: 'proportional memory', bound: 105, unit: 'MB', what: 'proportional' },
  ].map(({ text, bound, unit, what }) => ({
    text: `both containers together, idle, eBPF / iptables: ${text}`,
    profile: 'An idle node',
    bound,
    unit,
    parts: figures(
      'idle',
      ...['eBPF', 'iptables'].map((mode) => `${mode}, both containers: ${what}`),
    ),
    beside: { name: goHttp, parts: figures('idle', `${goHttp}: ${what}`) },
  })),
  {
    text: 'growth of private memory in the soak, without its first 0 / 1/12 / 1/4 / 1/2',
    profile: 'Memory',
    bound: 1,
    unit: 'MB/h',
    parts: ({ scenarios }) =>
      scenarios
        .filter(({ name }) => name === 'soak')
        .flatMap((soak) => soakSlopes(soak, 'private').map(({ mbPerHour }) => [mbPerHour])),
  },
  {
    text: 'cost of a hit at 1,000 pods / 100,000 identities / 500 tokens over that at 10 / 10 / 1',
    profile: 'Many tokens, one connection',
    bound: 1.15,
    unit: '×',
    parts: figures(
      'growth',
      ...['pods', 'identities', 'tokens'].map((what) => `cost at the most ${what}`),
    ),
  },
  {
    text: 'look-up and rendering in the cache alone at 50,000 tokens over that at 1',
    profile: 'Many tokens, one connection',
    bound: 1.15,
    unit: '×',
    parts: figures('growth', 'the cache alone: look-up and rendering at the most tokens'),
  },
  ...[
    { size: '', prefix: '' },
    { size: ' with 1,000 pods, 100,000 identities, 200,000 bindings', prefix: 'large: ' },
  ].map(({ size, prefix }) => ({
    text: `index update by an event of a pod / identity / binding${size}, p99`,
    profile: 'A watch event',
    bound: 50,
    unit: 'µs',
    parts: figures(
      'index-updates',
      ...['pod', 'identity', 'binding'].map((what) => `${prefix}${what} event, p99`),
    ),
  })),
];

/** Headings of PROFILE.md that goals link to. */
export const profileHeadings = [...new Set(goals.map(({ profile }) => profile))];

/** The table, and a sentence with the number of met goals. */
export function renderGoals(results: Results, which: 'all' | 'measured'): string {
  let met = 0;
  let measured = 0;
  const rows = goals.flatMap((goal) => {
    const wanted = `${goal.isLeast === true ? '≥' : '≤'} ${goal.bound} ${goal.unit}`;
    const parts = measuredOf(goal.parts, results);
    if (parts.length === 0) {
      return which === 'all' ? [[goal.text, wanted, 'not measured', '', '']] : [];
    }
    measured += 1;
    const gap = Math.max(...parts.map((part) => gapOf(goal, median(part))));
    if (gap <= 0) met += 1;
    const noise = parts.some((part) => spreadOf(part).isNoisy) ? ' (noisy)' : '';
    const values = renderParts(parts) + renderBeside(goal, results);
    const beyond = `${renderNumber(gap)} ${goal.unit.replace(/^× .*/, '×')}`;
    const left = `[${beyond}](PROFILE.md#${anchorOf(goal.profile)})`;
    return [
      [goal.text, wanted, values, `${gap <= 0 ? 'yes' : 'no'}${noise}`, gap <= 0 ? '' : left],
    ];
  });
  if (rows.length === 0) return '';
  const head = ['goal', 'wanted', 'measured', 'met', 'what is left'];
  return `${met} of ${measured} goals that were measured are met.\n\n${table(head, rows)}`;
}

/** GitHub's anchor of a heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^a-z0-9 -]/g, '')
    .replaceAll(' ', '-');
}

function measuredOf(parts: Goal['parts'], results: Results): readonly (readonly number[])[] {
  return parts(results).filter((part) => part !== undefined);
}

function renderParts(parts: readonly (readonly number[])[]): string {
  return parts.map((part) => renderSpread(part).replace(' noisy', '')).join(' / ');
}

function renderBeside({ beside }: Goal, results: Results): string {
  if (beside === undefined) return '';
  const parts = measuredOf(beside.parts, results);
  return parts.length === 0 ? '' : `; ${beside.name}: ${renderParts(parts)}`;
}

/** Distance beyond the bound; not above zero when the goal is met. */
function gapOf({ bound, isLeast }: Goal, value: number): number {
  return isLeast === true ? bound - value : value - bound;
}
