/**
 * The load in a separate process, so that it can have its own core: `node bench/programs/load.ts
 * PLAN` prints a report, both as JSON.
 */
import { drive } from '../load/drivers.ts';
import type { LoadPlan, LoadReport } from '../load/plan.ts';
import { Tally } from '../load/tally.ts';
import { cpuMsOf } from '../machine/cpu-time.ts';

const plan = JSON.parse(process.argv[2] ?? '{}') as LoadPlan;
const startMs = performance.now();
const fromMs = plan.kind === 'burst' ? startMs : startMs + plan.warmUpMs;
const untilMs = fromMs + plan.measuredMs;
const tally = new Tally(fromMs, untilMs, plan.timelineMs);

interface Usage {
  readonly atMs: number;
  readonly serverMs: number | undefined;
  readonly ownUs: number;
}

function usage(): Usage {
  const { user, system } = process.cpuUsage();
  return { atMs: performance.now(), serverMs: cpuMsOf(plan.serverPids), ownUs: user + system };
}

let begin = usage();
let end: Usage | undefined;
setTimeout(() => (begin = usage()), fromMs - startMs);
const ending = setTimeout(() => (end = usage()), untilMs - startMs);
await drive(plan, tally, { startMs: fromMs, untilMs });
clearTimeout(ending);
end ??= usage();

const answers = tally.latency.count;
const serverMs =
  begin.serverMs === undefined || end.serverMs === undefined
    ? undefined
    : end.serverMs - begin.serverMs;
const elapsedMs = end.atMs - begin.atMs;
const report: LoadReport = {
  measuredFromWallMs: performance.timeOrigin + fromMs,
  perSec: (answers / plan.measuredMs) * 1000,
  answers,
  failures: tally.failures,
  foreign: tally.foreign,
  firstFailure: tally.firstFailure,
  cpuMsPer1000: serverMs === undefined || answers === 0 ? undefined : (serverMs / answers) * 1000,
  cpuWindowMs: elapsedMs,
  loadCpuShare: (end.ownUs - begin.ownUs) / 1000 / elapsedMs,
  latency: tally.latency.compact(),
  timeline: tally.timeline(),
};
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
