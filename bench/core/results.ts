/** What a run leaves behind: plain data, written to bench/results.json and read by the reports. */
import type { CompactHistogram } from './histogram.ts';

export interface Results {
  readonly machine: Machine;
  readonly scenarios: readonly ScenarioResult[];
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryMb: number;
  readonly kernel: string;
  readonly arch: string;
  readonly node: string;
  /** Whether server and load had a core each. */
  readonly hasAffinity: boolean;
}

export interface ScenarioResult {
  readonly name: string;
  readonly title: string;
  /** ISO 8601. */
  readonly startedAt: string;
  /** Of the sources; empty without Git, and with a `+` when files differ from it. */
  readonly commit: string;
  /** Average load of the machine in the minute before; this suite's own is in it. */
  readonly loadBefore: number;
  readonly seconds: number;
  /** What it ran on; absent: that of the results. */
  readonly machine?: Machine;
  /** Processors that others used meanwhile; absent in results of before this was counted. */
  readonly othersCores?: number;
  /** Published although something spoke against it, such as another run. */
  readonly isNotAlone?: boolean;
  /** What the others are compared with; absent where nothing is. */
  readonly control?: string;
  readonly series: readonly Series[];
  readonly figures: readonly Figure[];
  readonly curves: readonly Curve[];
  readonly notes: readonly string[];
}

/** One subject under one shape of load. */
export interface Series {
  readonly subject: string;
  readonly shape: string;
  readonly rounds: readonly Round[];
}

export interface Round {
  readonly perSec: number;
  readonly answers: number;
  readonly failures: number;
  /** CPU time of the server for 1,000 answers; undefined where nobody could tell. */
  readonly cpuMsPer1000: number | undefined;
  /** Share of its core that the load program used; near 1 it may be what was measured. */
  readonly loadCpuShare: number;
  readonly latency: CompactHistogram;
}

/** One number, measured once or several times. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly values: readonly number[];
}

export interface Curve {
  readonly name: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xScale: 'linear' | 'log';
  readonly lines: readonly CurveLine[];
}

export interface CurveLine {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** Names of subjects that goals and plots look for. */
export const subjects = {
  agent: 'agent',
  nodeHttp: 'node:http',
  rawTcp: 'raw TCP',
  goHttp: 'Go net/http',
  fakeImds: 'fake IMDS',
  bareProxy: 'bare proxy',
} as const;

/** Requests were due at a rate of their own: no answer is faster for it, and the load never sleeps. */
export function isPaced(shape: string): boolean {
  return shape.endsWith('/s due');
}

export function findSeries(
  results: Results,
  scenario: string,
  shape: string,
  subject: string,
): Series | undefined {
  return results.scenarios
    .find(({ name }) => name === scenario)
    ?.series.find((each) => each.shape === shape && each.subject === subject);
}

export function findFigure(results: Results, scenario: string, name: string): Figure | undefined {
  return results.scenarios
    .find((each) => each.name === scenario)
    ?.figures.find((figure) => figure.name === name);
}

/**
 * Scenarios of the later run in place of theirs of the same name; where they were, or at the end. The
 * others keep the machine that they ran on.
 */
export function mergeResults(former: Results, later: Results): Results {
  const isLater = new Map(later.scenarios.map((scenario) => [scenario.name, scenario]));
  const known = new Set(former.scenarios.map(({ name }) => name));
  const { machine } = former;
  return {
    machine: later.machine,
    scenarios: [
      ...former.scenarios.map((scenario) => isLater.get(scenario.name) ?? { machine, ...scenario }),
      ...later.scenarios.filter(({ name }) => !known.has(name)),
    ],
  };
}
