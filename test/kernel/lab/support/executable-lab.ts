/** `./dev lab` with a fresh executable, run to its end in a separate folder. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { freshExecutable } from '../../../../scripts/build.ts';
import { labCommand, type Command } from '../../../../lab/fabric/lab-command.ts';
import { listFabricNamespaces } from '../../../../lab/fabric/namespaces.ts';
import type { LabResult } from '../../../../lab/test-bed/scenario.ts';
import { isWithin, sizeOfThisRun } from '../../../runner/kinds.ts';
import { findCgroupRoot } from '../../../../src/redirect/cgroup/cgroup-tree.ts';

/** Longer than all scenarios take on a busy machine with two cores. */
const limitMs = 900_000;

export interface LabRun {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** They measure, and run without others. */
const measuring = ['attacks', 'connect-storm', 'busy-connections', 'miss-storm', 'probe-storm'];

/** They measure what the agent does after it knows the caller; `attacks` shows for both modes that it does. */
const sameInBothModes = ['busy-connections', 'miss-storm'];

/** In an ordinary run, what does not depend on the redirect is measured by eBPF alone. */
export function measuredBy(redirect: 'ebpf' | 'iptables'): readonly string[] {
  if (redirect === 'ebpf' || isLongRun()) return measuring;
  return measuring.filter((name) => !sameInBothModes.includes(name));
}

/** These run without others; the long loop of `rules-flushed` is for long runs. */
export function isInOrdinaryRun(scenario: string): boolean {
  return !measuring.includes(scenario) && (isLongRun() || scenario !== 'rules-flushed-long');
}

function isLongRun(): boolean {
  return isWithin('long', sizeOfThisRun());
}

export interface ExecutableLab extends Disposable {
  /** Runs it to its end, which leaves no namespace, no link, no cgroup and no file. */
  run(...args: readonly string[]): Promise<LabRun>;
}

/** @param command starts the lab. */
export async function openExecutableLab(command: Command = labCommand): Promise<ExecutableLab> {
  await freshExecutable();
  const [program, ...leading] = command;
  const folder = mkdtempSync(join(tmpdir(), 'nmi-lab-test-'));
  // An unprivileged agent must have access to the files of the lab.
  chmodSync(folder, 0o711);
  const run = async (...args: readonly string[]): Promise<LabRun> => {
    const links = machineLinks();
    const child = spawn(program, [...leading, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: folder },
      timeout: limitMs,
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const [code] = (await once(child, 'close')) as [number | null];
    assert.deepEqual(listFabricNamespaces(`nmi-lab-${String(child.pid)}`), []);
    assert.deepEqual(machineLinks(), links);
    assert.deepEqual(cgroupsOf(child.pid), []);
    assert.deepEqual(readdirSync(folder), []);
    return { code, stdout, stderr };
  };
  return { run, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

/**
 * Every scenario holds, a test for each, and no token leaks.
 * @param how without a redirect, on loopback.
 * @param names with every repeat, in order.
 */
export async function holdScenarios(
  t: TestContext,
  lab: ExecutableLab,
  { redirect, times = 1 }: { readonly redirect: string; readonly times?: number },
  names: readonly string[],
): Promise<LabRun> {
  const mode = redirect === 'none' ? ['--loopback'] : ['--redirect', redirect];
  const chosen = ['--scenario', [...new Set(names)].join(), '--times', String(times)];
  const run = await lab.run(...mode, ...chosen, '--output', 'json');
  assert.match(run.stdout, /^\{.*\}\n$/, `one JSON object and nothing else: ${run.stderr}`);
  const result = JSON.parse(run.stdout) as LabResult;
  for (const { name, ok, detail } of result.scenarios) {
    await t.test(name, (each) => {
      each.diagnostic(detail);
      assert.ok(ok, detail);
    });
  }
  assert.deepEqual(
    result.scenarios.map(({ name }) => name),
    names,
  );
  const { ok, leaks } = result;
  assert.deepEqual([ok, leaks, result.redirect, run.code], [true, 0, redirect, 0], run.stderr);
  return run;
}

/** The links of the machine's own namespace, which no lab may touch. */
function machineLinks(): readonly string[] {
  return readdirSync('/sys/class/net').toSorted();
}

/** Cgroups that this lab made and that still exist. */
function cgroupsOf(pid: number | undefined): readonly string[] {
  try {
    return readdirSync(findCgroupRoot()).filter((name) => name === `nmi-lab-${pid ?? 0}`);
  } catch {
    // Without a cgroup2 tree there are none.
    return [];
  }
}
