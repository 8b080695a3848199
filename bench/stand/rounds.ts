/**
 * Rounds of all subjects in turn, each other round from the last to the first, so that what disturbs
 * the machine disturbs all of them and none has its place to thank; the ratio within a round is what
 * counts.
 */
import type { Round, Series } from '../core/results.ts';
import type { Caller, LoadPlan, LoadReport } from '../load/plan.ts';
import { runLoad, type RunLoad } from './run-load.ts';

export interface Subject {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly pids: readonly number[];
  readonly callers: readonly Caller[];
  /** Default: from this machine's own network. */
  readonly runLoad?: RunLoad;
}

export interface Shape {
  readonly name: string;
  readonly connections: number;
  readonly kind: LoadPlan['kind'];
  readonly ratePerSec?: number;
  readonly style?: LoadPlan['style'];
}

export const shapes = {
  one: { name: '1 kept', connections: 1, kind: 'keep' },
  sixteen: { name: '16 kept', connections: 16, kind: 'keep' },
  sixtyFour: { name: '64 kept', connections: 64, kind: 'keep' },
  oneFresh: { name: '1 new each', connections: 1, kind: 'new' },
  fresh: { name: '16 new each', connections: 16, kind: 'new' },
} as const satisfies Record<string, Shape>;

export interface RoundsOptions {
  readonly subjects: readonly (Subject | undefined)[];
  readonly shapes: readonly Shape[];
  readonly rounds: number;
  readonly roundMs: number;
  readonly say: (line: string) => void;
}

const warmUpMs = 200;

/** @throws Error when an answer is missing or wrong. */
export async function measureRounds(options: RoundsOptions): Promise<readonly Series[]> {
  const subjects = options.subjects.filter((subject) => subject !== undefined);
  const series: Series[] = [];
  for (const shape of options.shapes) {
    // Not counted: a process that serves for weeks is not measured while its code is being compiled.
    for (const subject of subjects) await loadOf(subject, shape, 2 * options.roundMs);
    const rounds = subjects.map((): Round[] => []);
    for (let round = 0; round < options.rounds; round++) {
      for (const [index, subject] of inTurn([...subjects.entries()], round)) {
        const report = await loadOf(subject, shape, options.roundMs);
        if (report.failures > 0) {
          const what = `${report.failures} failures, the first: ${report.firstFailure ?? ''}`;
          throw new Error(`${subject.name}, ${shape.name}: ${what}`);
        }
        rounds[index]?.push(roundOf(report));
        const perSec = Math.round(report.perSec);
        options.say(`${shape.name} ${round + 1}/${options.rounds} ${subject.name}: ${perSec}/s`);
      }
    }
    for (const [index, subject] of subjects.entries()) {
      series.push({ subject: subject.name, shape: shape.name, rounds: rounds[index] ?? [] });
    }
  }
  return series;
}

/** There and back again: every second round begins with who was last. */
export function inTurn<T>(ones: readonly T[], round: number): readonly T[] {
  return round % 2 === 0 ? ones : ones.toReversed();
}

export function loadOf(subject: Subject, shape: Shape, measuredMs: number): Promise<LoadReport> {
  const { host, port, callers, pids } = subject;
  const { connections, kind, ratePerSec, style } = shape;
  return (subject.runLoad ?? runLoad)({
    host,
    port,
    callers,
    connections,
    kind,
    warmUpMs,
    measuredMs,
    serverPids: pids,
    ...(ratePerSec === undefined ? {} : { ratePerSec }),
    ...(style === undefined ? {} : { style }),
  });
}

function roundOf(report: LoadReport): Round {
  const { perSec, answers, failures, cpuMsPer1000, loadCpuShare, latency } = report;
  return { perSec, answers, failures, cpuMsPer1000, loadCpuShare, latency };
}
