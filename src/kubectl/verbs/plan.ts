/**
 * The changes that a verb plans: objects of our kinds, changes of objects with other owners,
 * deletions, and lines for `az`. They are printed as YAML with the rest as comments, so that the
 * output can be piped to kubectl; with flags, the plugin makes them itself.
 */
import type { Options } from 'yargs';
import { renderAz, runAz, type AzLine } from '../azure/az.ts';
import { renderReport, renderYaml, shellWord, toLine } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import { usageError, type ExitCode } from '../base/plugin-error.ts';
import type { VerbContext } from './context.ts';
import { switchFlag } from './verb.ts';

export interface Plan {
  readonly objects: readonly object[];
  /** Words after `kubectl`: changes of objects that have other owners too. */
  readonly changes: readonly (readonly string[])[];
  /** Words after `kubectl`. */
  readonly deletions: readonly (readonly string[])[];
  readonly az: readonly AzLine[];
  readonly notes: readonly string[];
}

export interface PlanFlags {
  readonly apply: boolean;
  readonly run: boolean;
}

export const planFlags = {
  apply: switchFlag('Change the objects in the cluster instead of printing them.'),
  run: switchFlag('Run the az lines as the user that az is logged in as.'),
} as const satisfies Readonly<Record<string, Options>>;

export const emptyPlan: Plan = { objects: [], changes: [], deletions: [], az: [], notes: [] };

/** Azure changes come before the objects that need them, but after deletions of objects. */
export async function carryOut(
  context: VerbContext,
  plan: Plan,
  { apply, run }: PlanFlags,
): Promise<ExitCode> {
  const { io, kubectl, output } = context;
  const report = progressOf(context);
  if (run && plan.deletions.length === 0) await runAll(context, plan.az);
  if (apply) {
    if (plan.objects.length > 0) {
      const text = await kubectl.expect(
        'apply the objects',
        ['apply', '--filename=-'],
        renderYaml(plan.objects),
      );
      report(text);
    }
    for (const words of [...plan.changes, ...plan.deletions])
      report(await kubectl.expect(words.join(' '), words));
  }
  if (run && plan.deletions.length > 0) await runAll(context, plan.az);
  const isDone = { objects: apply, az: run };
  if (output !== 'text') {
    const value = {
      objects: plan.objects,
      kubectl: [...plan.changes, ...plan.deletions],
      az: plan.az,
      notes: plan.notes,
      done: isDone,
    };
    io.stdout(renderReport(output, value, () => []));
    return exitCodes.ok;
  }
  const comments = [
    ...plan.notes,
    ...(apply ? [] : plan.deletions.map(renderKubectl)),
    ...(run ? [] : plan.az.map(renderAz)),
    ...(apply ? [] : plan.changes.map(renderKubectl)),
  ];
  const yaml = apply || plan.objects.length === 0 ? '' : renderYaml(plan.objects);
  io.stdout(`${yaml}${comments.map((line) => `# ${toLine(line)}\n`).join('')}`);
  return exitCodes.ok;
}

function renderKubectl(words: readonly string[]): string {
  return ['kubectl', ...words].map(shellWord).join(' ');
}

/** Standard output of other formats must contain only the document. */
function progressOf({ io, output }: VerbContext): (text: string) => void {
  return output === 'text' ? io.stdout : io.stderr;
}

async function runAll(context: VerbContext, lines: readonly AzLine[]): Promise<void> {
  for (const line of lines) {
    progressOf(context)(`# ${toLine(renderAz(line))}\n`);
    await runAz(context.io, line);
  }
}

/** @throws PluginError for a text that cannot be the name of an object. */
export function checkName(name: string): string {
  if (/^[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$/.test(name)) return name;
  throw usageError(
    `"${name}" cannot be the name of an object`,
    'Use lower case letters, digits, hyphens and dots.',
  );
}
