/** The results of a run: plain data, written to bench/results.json and read by the reports. */
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
  /** Whether server and load each had its own core. */
  readonly hasAffinity: boolean;
}

export interface ScenarioResult {
  readonly name: string;
  readonly title: string;
  /** ISO 8601. */
  readonly startedAt: string;
  /** Commit of the sources; empty without Git, with a `+` when files differ from it. */
  readonly commit: string;
  /** Average load of the machine in the minute before; includes this suite's own load. */
  readonly loadBefore: number;
  readonly seconds: number;
  /** The machine of this scenario; absent: the machine of the whole results. */
  readonly machine?: Machine;
  /** Processors that other processes used meanwhile; absent in older results. */
  readonly othersCores?: number;
  /** Published despite an obstacle, such as another run. */
  readonly isNotAlone?: boolean;
  /** Subject that the others are compared with; absent if nothing is compared. */
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
  /** CPU time of the server for 1,000 answers; undefined if unknown. */
  readonly cpuMsPer1000: number | undefined;
  /** Share of its core that the load program used; near 1 it may have been the bottleneck. */
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
  /** What happened meanwhile. */
  readonly spans?: readonly CurveSpan[];
}

export interface CurveLine {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** From one place of the x axis to another. */
export interface CurveSpan {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

/** Names of subjects that goals and plots look up. */
export const subjects = {
  agent: 'agent',
  nodeHttp: 'node:http',
  rawTcp: 'raw TCP',
  goHttp: 'Go net/http',
  fakeImds: 'fake IMDS',
  bareProxy: 'bare proxy',
} as const;

/** The control in the agent's place, behind the same redirect. */
export function behindRedirect(way: string): string {
  return `${subjects.nodeHttp} behind ${way}`;
}

/** Requests were due at a fixed rate: throughput is not a result, and the load never sleeps. */
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
 * Scenarios of the later run replace those with the same name, in place; new ones are appended. The
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
