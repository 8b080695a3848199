/** A load program on a core of its own, and what it reports. */
import { join } from 'node:path';
import type { LoadPlan, LoadReport } from '../load/plan.ts';
import { onCore } from '../machine/cores.ts';
import { outputOf, start } from '../machine/child.ts';

export type RunLoad = (plan: LoadPlan) => Promise<LoadReport>;

export function loadCommand(plan: LoadPlan): readonly [string, ...string[]] {
  const program = join(import.meta.dirname, '../programs/load.ts');
  return onCore('load', [process.execPath, program, JSON.stringify(plan)]);
}

export async function runLoad(plan: LoadPlan): Promise<LoadReport> {
  const child = start(loadCommand(plan), { stdio: ['ignore', 'pipe', 'inherit'] });
  return parseReport(await outputOf(child));
}

/** @throws Error when a token of somebody else came: no measurement matters then. */
export function parseReport(text: string): LoadReport {
  const report = JSON.parse(text) as LoadReport;
  if (report.foreign > 0) throw new Error(`${report.foreign} tokens of another identity`);
  return report;
}
