/** Pictures and tables: they contain the given values, whatever the names are. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Histogram } from '../../bench/core/histogram.ts';
import {
  behindRedirect,
  mergeResults,
  subjects,
  type Results,
  type Round,
  type ScenarioResult,
} from '../../bench/core/results.ts';
import { renderBars, renderLines } from '../../bench/report/charts.ts';
import { colorOf } from '../../bench/report/colors.ts';
import { renderGoals } from '../../bench/report/goals.ts';
import {
  busiestLoads,
  renderSpread,
  seriesTable,
  servicesOf,
} from '../../bench/report/markdown.ts';
import { plotsOf } from '../../bench/report/plots.ts';
import { fillReadme, fillResults } from '../../bench/report/readme.ts';
import { unreadableTexts } from '../support/unreadable-texts.ts';
import { label, linearScale, logScale } from '../../bench/report/scale.ts';

function round(perSec: number): Round {
  const histogram = new Histogram();
  for (let index = 1; index <= 100; index++) histogram.recordMs(index / 10);
  return {
    perSec,
    answers: 100,
    failures: 0,
    cpuMsPer1000: 10,
    loadCpuShare: 0.5,
    latency: histogram.compact(),
  };
}

function scenario(agent: readonly number[], control: readonly number[]): ScenarioResult {
  const shape = '16 kept';
  return {
    name: 'hit',
    title: 'A & B',
    startedAt: '2026-01-01T00:00:00Z',
    seconds: 1,
    commit: 'abc',
    loadBefore: 0,
    control: 'node:http',
    figures: [],
    curves: [],
    notes: [],
    series: [
      { subject: 'agent', shape, rounds: agent.map(round) },
      { subject: 'node:http', shape, rounds: control.map(round) },
    ],
  };
}

const machine: Results['machine'] = {
  cpu: 'c',
  cores: 2,
  memoryMb: 1,
  kernel: 'k',
  arch: 'x64',
  node: 'v',
  hasAffinity: true,
};

describe('a scale', () => {
  it('covers all values, with round marks', () => {
    const linear = linearScale(37, 100, 0);
    assert.deepEqual(linear.ticks, [0, 10, 20, 30, 40]);
    assert.equal(linear.place(0), 100);
    assert.equal(linear.place(40), 0);
    const log = logScale(20, 3000, 0, 300);
    assert.deepEqual(log.ticks, [10, 100, 1000, 10_000]);
    assert.equal(log.place(100), 100);
  });

  it('has readable marks', () => {
    assert.deepEqual([0.05, 5, 1200, 20_000, 3e6].map(label), [
      ...['0.05', '5', '1,200', '20k', '3M'],
    ]);
  });
});

describe('a picture', () => {
  it('has a bar for every value and escapes every name', () => {
    const svg = renderBars({
      title: 'a < b & "c"',
      yLabel: 'y',
      groups: ['g'],
      bars: [
        { name: '<x>', values: [10] },
        { name: 'none', values: [undefined] },
      ],
    });
    assert.ok(svg.startsWith('<svg '));
    assert.ok(svg.includes('a &lt; b &amp; &quot;c&quot;') && svg.includes('&lt;x&gt;'));
    assert.ok(!svg.includes('<x>') && !svg.includes('NaN'));
    // Background, two of the legend, one bar.
    assert.equal(svg.match(/<rect /g)?.length, 4);
  });

  it('has a line for every row of points', () => {
    const svg = renderLines({
      title: 't',
      xLabel: 'x',
      yLabel: 'y',
      xScale: 'log',
      yScale: 'linear',
      lines: [
        { name: 'a', points: [[1, 1], [10, 5]] }, // prettier-ignore
        { name: 'b', points: [[1, 0], [100, 2]] }, // prettier-ignore
      ],
    });
    assert.equal(svg.match(/<polyline /g)?.length, 2);
    assert.ok(!svg.includes('NaN'));
  });

  it('has every number of many bars where no other bar and no other number is', () => {
    const groups = ['1 kept', '16 kept', '64 kept', '16 kept, same bytes', '16 kept, unusual'];
    const of = (perSec: number) => groups.map((_, group) => perSec + 10 * group);
    const bars = [
      { name: 'agent', values: of(9_950) },
      { name: 'node:http', values: of(10_100) },
      { name: 'raw TCP', values: of(166_000) },
      { name: 'Go net/http', values: of(69_900) },
      { name: 'fake IMDS', values: of(9_970) },
    ];
    const title = 'What the programs cost connections to other addresses, and a look-up the agent';
    assert.deepEqual(unreadableTexts(renderBars({ title, yLabel: 'y', groups, bars })), []);
  });

  it('has an axis of time as long as its data, and shades what happened meanwhile', () => {
    const svg = renderLines({
      title: 't',
      xLabel: 's',
      yLabel: 'y',
      xScale: 'linear',
      yScale: 'linear',
      lines: [{ name: 'agent', points: [[0, 1], [11.75, 5]] }], // prettier-ignore
      spans: [{ name: 'IMDS is away', from: 2.35, to: 4.7 }],
    });
    assert.match(svg, /<polyline points="64\.0,[\d.]+ 690\.0,/);
    assert.ok(svg.includes('<rect x="189.2" y="56" width="125.2" height="276"'));
    assert.ok(svg.includes('>IMDS is away<'));
    assert.deepEqual(unreadableTexts(svg), []);
  });

  it('has every subject but the controls behind a redirect', () => {
    const { series, ...rest } = scenario([1], [1]);
    const behind = series.map((each) => ({ ...each, subject: behindRedirect('eBPF') }));
    const drawn = plotsOf({ ...rest, series: [...series, ...behind] });
    assert.deepEqual(drawn, plotsOf({ ...rest, series }));
  });

  it('has a color of its own for each subject of the redirects', () => {
    const ways = ['no redirect', 'iptables', 'eBPF'];
    const behind = ['iptables', 'eBPF'].map(behindRedirect);
    const colors = [subjects.nodeHttp, subjects.goHttp, ...ways, ...behind, 'unknown'].map(colorOf);
    assert.equal(new Set(colors).size, colors.length);
  });

  it('is drawn of throughput and latency for every comparison', () => {
    const files = plotsOf(scenario([1], [1])).map(({ file }) => file);
    assert.deepEqual(files, ['hit-throughput.svg', 'hit-latency-16-kept.svg']);
  });
});

describe('a report', () => {
  it('shows for a goal whether it is met, by how much it is missed, and whether it is noisy', () => {
    const render = (agent: readonly number[], control: readonly number[]) =>
      renderGoals({ machine, scenarios: [scenario(agent, control)] }, 'measured');
    const line = (text: string) =>
      text.split('\n').find((each) => each.includes('connections: throughput')) ?? '';
    assert.match(line(render([100, 99, 98], [100, 100, 100])), /\| 0\.99 \(0\.98–1\) \| yes \|/);
    assert.match(
      line(render([50, 50, 50], [100, 100, 100])),
      /\| no \| \[0\.45 ×\]\(PROFILE\.md#a-cached-token\) \|/,
    );
    assert.match(line(render([50, 100, 150], [100, 100, 100])), /yes \(noisy\)/);
  });

  it('shows ratios round by round beside the control', () => {
    const table = seriesTable(scenario([50, 60], [100, 100]));
    assert.match(table, /\| 0\.55 \(0\.5–0\.6\) \|/);
    assert.match(table, /\| p99 µs \| p99\.9 µs \|.*\| p99 ratio \| p99\.9 ratio \|/);
    assert.equal(renderSpread([1, 2, 3]), '2 (1–3) noisy');
  });

  it('warns if the load program was busy, and if it limited a control', () => {
    const busy = (shares: readonly [agent: number, control: number]): ScenarioResult => {
      const of = scenario([1], [1]);
      return {
        ...of,
        series: of.series.map((each, index) => ({
          ...each,
          rounds: each.rounds.map((one) => ({ ...one, loadCpuShare: shares[index] ?? 0 })),
        })),
      };
    };
    assert.equal(busiestLoads(busy([0.79, 0.79])), '');
    assert.match(busiestLoads(busy([0.81, 0.5])), /80 % of its core.*: agent at 16 kept\.$/);
    assert.match(busiestLoads(busy([0.5, 0.81])), /control is one of them \(16 kept\)/);
  });

  it('warns of a run that was not alone, with the CPU time of others', () => {
    const one = scenario([1], [1]);
    const beside = { ...one, isNotAlone: true, othersCores: 0.7 };
    assert.equal(servicesOf(one), '');
    assert.match(servicesOf(beside), /others used 0\.7 processors meanwhile; \*\*NOT ALONE/);
  });

  it('has goals of p50, p99 and CPU for new connections, and of throughput where their rate is free', () => {
    const all = renderGoals({ machine, scenarios: [] }, 'all').split('\n');
    const rows = all.filter((line) => line.includes('a new connection for each request'));
    assert.equal(rows.length, 3 * 3 + 1);
    assert.deepEqual(
      rows
        .filter((line) => line.includes('throughput'))
        .map((line) => line.includes('no redirect')),
      [true],
    );
    assert.equal(all.filter((line) => line.includes('past Go')).length, 3);
  });

  it('keeps an earlier run’s results of other scenarios', () => {
    const [former, later] = [scenario([1], [1]), scenario([2], [2])];
    const soak = { ...former, name: 'soak' };
    const other = { ...machine, kernel: 'another' };
    const merged = mergeResults(
      { machine, scenarios: [former, soak] },
      { machine: other, scenarios: [later] },
    );
    assert.deepEqual(merged, { machine: other, scenarios: [later, { ...soak, machine }] });
    const again = mergeResults(merged, { machine, scenarios: [] });
    assert.deepEqual(again.scenarios, [
      { ...later, machine: other },
      { ...soak, machine },
    ]);
    const markers = '<!-- generated: results --><!-- end: results -->';
    const told = fillResults(markers, merged).split('On another: ');
    assert.equal(told.length, 2);
    assert.match(told[1] ?? '', /^Node v, Linux k x64/);
  });

  it('is written between the markers of its page and leaves the rest alone', async () => {
    const read = (name: string) => readFile(join(import.meta.dirname, '../../bench', name), 'utf8');
    const one = { machine, scenarios: [scenario([1], [1])] };
    const page = await read('results.md');
    const filled = fillResults(page, one);
    assert.ok(filled.startsWith(page.slice(0, page.indexOf('<!-- generated: results -->'))));
    assert.ok(filled.includes('](plots/hit-throughput.svg)'));
    assert.equal(fillResults(filled, one), filled);
    const readme = await read('README.md');
    assert.ok(fillReadme(readme, one).includes('| goal'));
    for (const fill of [fillReadme, fillResults]) {
      assert.throws(() => fill('', { machine, scenarios: [] }), /markers/);
    }
  });
});
