/** Shared by the suites of all kernels: which kernels, why not, and how a check is evaluated. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { before, describe, it } from 'node:test';
import { join } from 'node:path';
import type { LabResult } from '../../../../lab/test-bed/scenario.ts';
import type { Architecture } from '../../../../scripts/image/builder.ts';
import { isWithin, sizeOfThisRun } from '../../../runner/kinds.ts';
import { repositoryRoot } from '../../../conventions/tree.ts';
import { kernelSources, prepareKernel, type Kernel, type KernelName } from './debian-kernels.ts';
import { runInMachine, whyNoMachine, type GuestRun, type MachineOptions } from './machine.ts';

const isLong = isWithin('long', sizeOfThisRun());

export const kernelNames: readonly KernelName[] = isLong
  ? kernelSources.map(({ name }) => name)
  : ['5.10', 'newest'];

/** An idle machine needs a quarter of it. The short form must end before the limit of its file. */
const limitMs = isLong ? 3_400_000 : 900_000;

/** The kernel, or why it cannot be tested here. The reason is also printed on standard error. */
export function findKernel(
  name: KernelName,
  architecture: Architecture = 'amd64',
): Kernel | string {
  const obstacle = whyNoMachine(architecture) || whyNotKernel(name, architecture);
  if (obstacle === false) return prepareKernel(name, architecture);
  process.stderr.write(`Linux ${name} of ${architecture} is NOT TESTED: ${obstacle}\n`);
  return obstacle;
}

function whyNotKernel(name: KernelName, architecture: Architecture): string | false {
  try {
    prepareKernel(name, architecture);
    return false;
  } catch (error) {
    return error instanceof Error ? error.message : 'its package cannot be had';
  }
}

/**
 * The tests of one run on a kernel, skipped by name where there is none. What `plan` returns runs before them: a script,
 * or what else the machine needs for it.
 */
export function describeOnKernel(
  name: KernelName,
  title: string,
  plan: (kernel: Kernel) => Plan | Promise<Plan>,
  tests: (run: () => GuestRun) => void,
  architecture: Architecture = 'amd64',
): void {
  const kernel = findKernel(name, architecture);
  const version = typeof kernel === 'string' ? name : `${name} (${kernel.version})`;
  describe(
    `${title} on Linux ${version}`,
    { skip: typeof kernel === 'string' ? kernel : false },
    () => {
      let run: GuestRun | undefined;
      before(async () => {
        assert.ok(typeof kernel !== 'string');
        const { script, ...options } = await plan(kernel);
        run = await runWhole(kernel, script, options);
      });
      tests(() => {
        assert.ok(run !== undefined);
        return run;
      });
    },
  );
}

type Plan = { readonly script: string } & Omit<MachineOptions, 'limitMs'>;

/** The lab's tour in one mode, as `lab/main.ts` printed it: its exit code counts what does not hold, a test its names. */
export function itPassesTheTour(run: () => GuestRun, check: string, mode: string): void {
  it(`passes every scenario of the tour with ${mode}, without a leak`, async (t) => {
    const printed = outputOf(run(), check);
    const line = printed.split('\n').find((each) => each.startsWith('{'));
    assert.ok(line !== undefined, printed);
    const { scenarios, leaks, redirect } = JSON.parse(line) as LabResult;
    assert.equal(redirect, mode);
    assert.equal(leaks, 0);
    assert.ok(scenarios.length >= 12, printed);
    for (const { name, ok, detail } of scenarios) {
      await t.test(name, () => {
        assert.ok(ok, detail);
      });
    }
  });
}

/** The finished run of a script; the caller evaluates the result of each check. */
async function runWhole(
  kernel: Kernel,
  script: string,
  options: Omit<MachineOptions, 'limitMs'> = {},
): Promise<GuestRun> {
  const run = await runInMachine(kernel, script, { limitMs, ...options });
  assert.notEqual(run.code, undefined, `the machine ended early\n${run.output}\n${run.console}`);
  return run;
}

export function outputOf(run: GuestRun, name: string): string {
  const check = run.checks.get(name);
  assert.ok(check !== undefined, `${name} was not run\n${run.output}\n${run.console}`);
  assert.equal(check.code, 0, `${name}\n${check.output}`);
  return check.output;
}

/** The files of the image in a folder that is visible in the guest too. */
export function makeImageRoot(folder: string): void {
  const script = join(repositoryRoot, 'deploy/image-root.sh');
  const { status, stderr } = spawnSync(script, [folder, join(repositoryRoot, 'dist')], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
}
