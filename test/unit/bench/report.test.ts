/**
 * From rounds to pages: statistics, figures, goals, tables and pictures. The published pages and pictures are
 * compared with those of the stored results, so these tests have only what such results do not show.
 */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Histogram, type CompactHistogram } from '../../../bench/core/histogram.ts';
import { parseOptions } from '../../../bench/core/options.ts';
import {
  mergeResults,
  type Figure,
  type Results,
  type Round,
  type ScenarioResult,
} from '../../../bench/core/results.ts';
import * as statistics from '../../../bench/core/statistics.ts';
import { measureRounds, shapes, type Subject } from '../../../bench/fixture/rounds.ts';
import type { LoadReport } from '../../../bench/load/plan.ts';
import { renderBars, renderLines } from '../../../bench/report/charts.ts';
import { colorOf } from '../../../bench/report/colors.ts';
import { minutesOf } from '../../../bench/report/duration.ts';
import { profileHeadings, renderGoals } from '../../../bench/report/goals.ts';
import { busiestLoads, seriesTable, servicesOf } from '../../../bench/report/markdown.ts';
import { plotFiles } from '../../../bench/report/plots.ts';
import {
  plotFolder,
  readmeFile,
  readResults,
  renderReadme,
  renderResults,
  resultsPage,
  rootReadmeFile,
} from '../../../bench/report/publish.ts';
import { fillHeadline, fillReadme, fillResults } from '../../../bench/report/readme.ts';
import { linearScale, logScale } from '../../../bench/report/scale.ts';
import { slopeFigures, soakSlopes } from '../../../bench/report/soak-slopes.ts';
import { scenarios } from '../../../bench/scenarios/all.ts';
import { bytesPerDay, relayGain } from '../../../bench/scenarios/fleet-days.ts';
import { timelineCurve } from '../../../bench/scenarios/timeline.ts';
import { unreadableTexts } from '../../support/unreadable-texts.ts';

const latency = new Histogram().compact();
const machine: Results['machine'] = {
  cpu: 'c',
  cores: 2,
  memoryMb: 1,
  kernel: 'k',
  arch: 'x64',
  node: 'v',
  hasAffinity: true,
};
const nothing: ScenarioResult = {
  name: 'hit',
  title: '',
  startedAt: '',
  seconds: 1,
  commit: '',
  loadBefore: 0,
  figures: [],
  curves: [],
  notes: [],
  series: [],
};

function round(perSec: number, loadCpuShare = 0.5): Round {
  return { perSec, answers: 100, failures: 0, cpuMsPer1000: 10, loadCpuShare, latency };
}

function scenario(agent: readonly Round[], control: readonly Round[]): ScenarioResult {
  const shape = '16 kept';
  const series = [
    { subject: 'agent', shape, rounds: agent },
    { subject: 'node:http', shape, rounds: control },
  ];
  return { ...nothing, control: 'node:http', series };
}

const of = (...perSec: readonly number[]): readonly Round[] => perSec.map((each) => round(each));

describe('statistics', () => {
  const { median, nearestRank, ratiosOf, slopeErrorOf, slopeOf, spreadOf } = statistics;
  it('summarize what was measured, and only that', () => {
    const line = [[0, 1], [1, 3], [2, 5]] as const; // prettier-ignore
    // Residuals 0.1, -0.2, 0.1: the sum of squares 0.06 over 1 and over 2.
    const error = slopeErrorOf([[0, 0.1], [1, 0.8], [2, 2.1]]); // prettier-ignore
    for (const [actual, expected] of [
      [median([3, 1, 2]), 2],
      [median([4, 1, 2, 3]), 2.5],
      [median([3, NaN, 1]), 2],
      [median([NaN]), NaN],
      [spreadOf([1, 1.1, 0.9]), { median: 1, min: 0.9, max: 1.1, isNoisy: false }],
      [spreadOf([1, NaN, 1]), { median: 1, min: 1, max: 1, isNoisy: false }],
      [spreadOf([1, 1.3, 0.8]).isNoisy, true],
      [ratiosOf([1, 4, 9], [2, 2]), [0.5, 2]],
      [ratiosOf([1, NaN, 6, 4], [2, 2, NaN, 2]), [0.5, 2]],
      [nearestRank([-3, -1, -2], 0.99), -1],
      [nearestRank([], 0.5), NaN],
      [slopeOf(line), 2],
      [slopeOf([[1, 1]]), NaN],
      [slopeErrorOf(line), 0],
      [error.toFixed(9), Math.sqrt(0.06 / 2).toFixed(9)],
    ] as const) {
      assert.deepEqual(actual, expected);
    }
  });

  /** Tenths of a microsecond, small and large values equally often. */
  const ticks = fc.array(
    fc
      .tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 0, max: 30 }))
      .map(([share, exponent]) => Math.floor(share * 2 ** exponent)),
    { minLength: 1, maxLength: 400 },
  );
  function record(all: readonly number[]): Histogram {
    const histogram = new Histogram();
    for (const tick of all) histogram.recordMs(tick / 10_000);
    return histogram;
  }

  it('have percentiles of latencies within 1/128 of the exact ones, also of parts that were stored', () => {
    fc.assert(
      fc.property(ticks, ticks, (some, others) => {
        const parts = [some, others].map(
          (part) => JSON.parse(JSON.stringify(record(part).compact())) as CompactHistogram,
        );
        const sum = Histogram.sum(parts);
        const all = [...some, ...others].toSorted((a, b) => a - b);
        for (const share of [0, 0.25, 0.5, 0.9, 0.99, 0.999, 1]) {
          const exact = all[Math.max(1, Math.ceil(share * all.length)) - 1] ?? 0;
          const found = sum.percentileUs(share) * 10;
          assert.ok(Math.abs(found - exact) <= exact / 128 + 1e-6, `${share}: ${found}, ${exact}`);
        }
        const ends = [sum.minUs * 10, sum.maxUs * 10].map(Math.round);
        assert.deepEqual([sum.count, ...ends], [all.length, all[0], all.at(-1)]);
      }),
    );
    const outside = record([-5, 2 ** 40]);
    assert.ok(outside.percentileUs(0) === 0 && outside.percentileUs(1) > 2e8);
  });
});

describe('rounds', () => {
  const report: LoadReport = {
    perSec: 1,
    answers: 60,
    failures: 0,
    foreign: 0,
    firstFailure: undefined,
    latency,
    cpuMsPer1000: 1,
    cpuWindowMs: 1,
    loadCpuShare: 0.1,
    measuredFromWallMs: 1.7e12,
    timeline: [
      { atMs: 0, answers: 50, failures: 0, p50Us: 1, maxUs: 1 },
      { atMs: 100, answers: 10, failures: 20, p50Us: 1, maxUs: 1 },
    ],
  };
  const nowhere = { host: '', port: 0, pids: [], callers: [] };
  const subject = (name: string, runLoad: NonNullable<Subject['runLoad']>): Subject => ({
    name,
    runLoad,
    ...nowhere,
  });
  const common = { shapes: [shapes.one], say: () => undefined };

  it('go from the first subject to the last, then back, after all have warmed up', async () => {
    let asked = '';
    const subjects = ['a', 'b', 'c'].map((name) =>
      subject(name, () => {
        asked += name;
        return Promise.resolve(report);
      }),
    );
    const series = await measureRounds({ ...common, rounds: 3, roundMs: 1, subjects });
    assert.equal(asked, 'abcabccbaabc');
    assert.deepEqual(
      series.map(({ rounds }) => rounds.length),
      [3, 3, 3],
    );
  });

  it('have no processor time that is of a window other than that of the answers', async () => {
    const windows = [350, 320, 314, 386, 384, 700];
    const one = subject('a', ({ measuredMs }) => {
      // The warm-up is longer.
      const cpuWindowMs = measuredMs === 350 ? (windows.shift() ?? 0) : 0;
      return Promise.resolve({ ...report, cpuWindowMs });
    });
    const rounds = { ...common, rounds: 6, roundMs: 350 };
    const [series] = await measureRounds({ ...rounds, subjects: [one] });
    const cpu = series?.rounds.map(({ cpuMsPer1000 }) => cpuMsPer1000);
    assert.deepEqual(cpu, [1, 1, undefined, undefined, 1, undefined]);
  });

  it('have a curve over time that is level for each piece, and the event where it was', () => {
    const event = { name: 'away', from: 1.7e12 + 50, to: 1.7e12 + 150 };
    const { lines, spans } = timelineCurve(report, 100, event);
    assert.deepEqual(spans, [{ name: 'away', from: 0.05, to: 0.15 }]);
    assert.deepEqual(
      lines.map(({ points }) => points.map((point) => point.join())),
      [
        ['0,500', '0.1,500', '0.1,100', '0.2,100'],
        ['0,0', '0.1,0', '0.1,200', '0.2,200'],
      ],
    );
  });
});

describe('the command line', () => {
  it('publishes a complete run, and neither a partial nor a quick one', () => {
    for (const [words, isPublished] of [
      [[], true],
      [['hit'], false],
      [['--quick'], false],
      [['hit', '--publish'], true],
    ] as const) {
      assert.equal(parseOptions(words).isPublished, isPublished);
    }
  });

  it('has scenarios, arguments after -- for the agent, and a rival as a name and a command', () => {
    const words = ['hit', '--against', 'old = /bin/nmi --v=1', '--', '--log-level=warn', 'hit'];
    const { only, agentFlags, against } = parseOptions(words);
    assert.deepEqual([only, agentFlags], [['hit'], ['--log-level=warn', 'hit']]);
    assert.deepEqual(against, { name: 'old', command: '/bin/nmi --v=1' });
    assert.throws(() => parseOptions(['--against', 'old']), /NAME=COMMAND/);
    assert.throws(() => parseOptions(['--rounds', '0']), /whole number/);
  });
});

describe('the figures of a scenario', () => {
  it('are for a soak its growth from several minutes on, each with its error', () => {
    const soak = (memoryAt: (minute: number) => number): ScenarioResult => {
      const points = Array.from({ length: 240 }, (_, index): [number, number] => [
        (index + 1) / 4,
        memoryAt((index + 1) / 4),
      ]);
      const lines = [{ name: 'private', points }];
      const axes = { xLabel: '', yLabel: '', xScale: 'linear' } as const;
      const curves = [{ name: 'Memory over time', ...axes, lines }];
      return { ...nothing, name: 'soak', seconds: 3600, curves };
    };
    // Ten megabytes in the first quarter, nothing after it.
    const early = soak((minute) => 60 + Math.min(10, (minute * 10) / 15));
    const slopes = soakSlopes(early, 'private');
    assert.deepEqual(
      slopes.map(({ fromMinute }) => fromMinute),
      [0, 5, 15, 30],
    );
    const [all, , third] = slopes;
    assert.ok((all?.mbPerHour ?? 0) > 5 && (all?.error ?? 0) > 0);
    assert.ok(Math.abs(third?.mbPerHour ?? NaN) < 0.01);
    const figures = slopeFigures(soak((minute) => minute / 60));
    assert.ok(Math.abs((figures[0]?.values[0] ?? NaN) - 1) < 1e-9);
    assert.deepEqual(slopeFigures({ ...early, curves: [] }), []);
  });

  it('are for a fleet the bytes of a day: of each change, and with a relay a share', () => {
    const costs = { podBytes: 1_000, changeBytes: 10, statusBytes: 20 };
    const day = { ...costs, reopenBytes: 5, idleBytes: 400, reopens: 20 };
    const level = { name: 'usual', pods: 7, objects: 100 };
    assert.equal(bytesPerDay(level, day), 400 + 100 + 7_000 + 3_000);
    assert.equal(bytesPerDay({ ...level, pods: 0, objects: 0 }, day), 500);
    assert.equal(bytesPerDay(level, day, 'no pods'), 400 + 3_000);
    assert.equal(relayGain(level, day, 100), 10_500 / (7_100 + 34));
    assert.equal(relayGain(level, day, 1), 1);
  });
});

describe('the goals', () => {
  it('are met or missed by so much, and may be noisy', () => {
    for (const [agent, row] of [
      [of(100, 99, 98), /\| 0\.99 \(0\.98–1\) \| yes \|/],
      [of(50, 50, 50), /\| no \| \[0\.45 ×\]\(PROFILE\.md#a-cached-token\) \|/],
      [of(50, 100, 150), /yes \(noisy\)/],
    ] as const) {
      const results = { machine, scenarios: [scenario(agent, of(100, 100, 100))] };
      const rows = renderGoals(results, 'measured').split('\n');
      assert.match(rows.find((each) => each.includes('connections: throughput')) ?? '', row);
    }
  });

  it('are of a miss what the agent adds beyond a bare proxy, and not measured without one', () => {
    const ms = (name: string, ...values: readonly number[]): Figure => ({
      name,
      unit: 'ms',
      values,
    });
    const render = (...figures: readonly Figure[]) =>
      renderGoals({ machine, scenarios: [{ ...nothing, name: 'miss', figures }] }, 'measured');
    const agent = [ms('IMDS: added at p50', 0.6, 0.7, 0.9), ms('Entra ID: added at p50', 9.4)];
    const fast = [ms('IMDS: added at p50', 0.5), ms('Entra ID: added at p50', 9.2)];
    const proxy = [
      ms('IMDS: added by a bare proxy at p50', 0.3, 0.4, 0.5),
      ms('Entra ID: added by a bare proxy at p50', 9),
    ];
    const both = /\| 0\.3 \(0\.3–0\.4\) \/ 0\.4; the bare proxy .*: 0\.4 \(0\.3–0\.5\) \/ 9 +\|/;
    assert.match(render(...agent, ...proxy), both);
    assert.match(render(...agent, ...proxy), /\| no +\| \[0\.1 ms\]\(PROFILE\.md#a-miss\)/);
    assert.match(render(...fast, ...proxy), /^1 of 1 goals/);
    assert.equal(render(...agent), '');
  });
});

describe('a report', () => {
  it('shows ratios round by round, and warns of a busy load program and of others beside it', () => {
    assert.match(seriesTable(scenario(of(50, 60), of(100, 100))), /\| 0\.55 \(0\.5–0\.6\) \|/);
    const busy = (agent: number, control: number) =>
      busiestLoads(scenario([round(1, agent)], [round(1, control)]));
    assert.equal(busy(0.79, 0.79), '');
    assert.match(busy(0.81, 0.5), /80 % of its core.*: agent at 16 kept\.$/);
    assert.match(busy(0.5, 0.81), /control is one of them \(16 kept\)/);
    assert.equal(servicesOf(nothing), '');
    const beside = servicesOf({ ...nothing, isNotAlone: true, othersCores: 0.7 });
    assert.match(beside, /others used 0\.7 processors meanwhile; \*\*NOT ALONE/);
  });

  it('keeps an earlier run’s results of other scenarios', () => {
    const [former, later] = [scenario(of(1), of(1)), scenario(of(2), of(2))];
    const soak = { ...former, name: 'soak' };
    const other = { ...machine, kernel: 'another' };
    const merged = mergeResults(
      { machine, scenarios: [former, soak] },
      { machine: other, scenarios: [later] },
    );
    assert.deepEqual(merged, { machine: other, scenarios: [later, { ...soak, machine }] });
    const again = mergeResults(merged, { machine, scenarios: [] });
    assert.deepEqual(again.scenarios[0], { ...later, machine: other });
    const told = fillResults('<!-- generated: results --><!-- end: results -->', merged);
    assert.match(told.split('On another: ')[1] ?? '', /^Node v, Linux k x64/);
    for (const fill of [fillReadme, fillResults]) assert.throws(() => fill('', merged), /markers/);
  });
});

describe('a picture', () => {
  it('has round marks, escapes every name, and leaves out what was not measured', () => {
    assert.deepEqual(linearScale(37, 100, 0).ticks, [0, 10, 20, 30, 40]);
    assert.deepEqual(logScale(20, 3000, 0, 300).ticks, [10, 100, 1000, 10_000]);
    const bars = [
      { name: '<x>', values: [10] },
      { name: 'none', values: [undefined] },
    ];
    const svg = renderBars({ title: 'a < b & "c"', yLabel: 'y', groups: ['g'], bars });
    assert.ok(svg.includes('a &lt; b &amp; &quot;c&quot;') && svg.includes('&lt;x&gt;'));
    assert.ok(!svg.includes('<x>') && !svg.includes('NaN'));
    // Background, two of the legend, one bar.
    assert.equal(svg.match(/<rect /g)?.length, 4);
  });

  it('has an axis of time as long as its data, and shades what happened meanwhile', () => {
    const axes = { xLabel: 's', yLabel: 'y', xScale: 'linear', yScale: 'linear' } as const;
    const lines = [{ name: 'agent', points: [[0, 1], [11.75, 5]] as const }]; // prettier-ignore
    const spans = [{ name: 'IMDS is away', from: 2.35, to: 4.7 }];
    const svg = renderLines({ title: 't', ...axes, lines, spans });
    assert.match(svg, /<polyline points="64\.0,[\d.]+ 690\.0,/);
    assert.ok(svg.includes('<rect x="189.2" y="56" width="125.2" height="276"'));
  });
});

describe('the published benchmark', async () => {
  const results = await readResults();
  const read = (file: string): Promise<string> => readFile(file, 'utf8');

  it('has the tables and the headline of its results (npm run bench report writes them)', async () => {
    const [readme, page, root] = await Promise.all(
      [readmeFile, resultsPage, rootReadmeFile].map(read),
    );
    assert.ok(readme !== undefined && page !== undefined && root !== undefined);
    assert.equal(await renderReadme(readme, results), readme);
    assert.equal(await renderResults(page, results), page);
    assert.equal(fillHeadline(root, results), root);
  });

  it('has every scenario, and the time of all, except those that run only when named', () => {
    const usual = scenarios.filter(({ isExtra }) => isExtra !== true).map(({ name }) => name);
    const published = results.scenarios.map(({ name }) => name);
    assert.deepEqual(new Set(usual).difference(new Set(published)), new Set());
    const minuteEach = scenarios.map(({ name }) => ({ ...nothing, name, seconds: 60 }));
    assert.equal(minutesOf({ ...results, scenarios: minuteEach }), usual.length);
  });

  it('links each goal to an existing section of PROFILE.md', async () => {
    const profile = await read(join(plotFolder, '../PROFILE.md'));
    const headings = [...profile.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading);
    for (const heading of profileHeadings) assert.ok(headings.includes(heading), heading);
  });

  it('has the pictures of its results and no others, whose every text can be read', async () => {
    const plots = plotFiles(results);
    assert.deepEqual((await readdir(plotFolder)).sort(), plots.map(({ file }) => file).sort());
    for (const { file, svg } of plots) {
      assert.equal(await read(join(plotFolder, file)), svg, file);
      assert.deepEqual(unreadableTexts(svg), [], file);
    }
  });

  it('draws a series in one color in every picture, and those of a picture in several', () => {
    for (const { name, series, curves } of results.scenarios) {
      const subjects = [...new Set(series.map(({ subject }) => subject))];
      for (const names of [
        subjects,
        ...curves.map(({ lines }) => lines.map((line) => line.name)),
      ]) {
        const colors = new Set([...names, 'unknown'].map(colorOf));
        assert.equal(colors.size, names.length + 1, names.join(', '));
      }
      // When they were.
      if (name !== 'outage' && name !== 'restart') continue;
      assert.ok(curves.every(({ spans }) => spans?.length === 1));
    }
  });
});
