import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';

import { freshExecutable } from '../../scripts/build.ts';
import { listFabricNamespaces } from '../../src/lab/namespaces.ts';
import type { LabResult } from '../../src/lab/scenario.ts';
import { findCgroupRoot } from '../../src/redirect/cgroup-tree.ts';
import { nativeModule } from '../../src/redirect/native.ts';
import { fabricSkip } from './support/fabric-pod.ts';

/** Longer than all scenarios take on a busy machine with two cores. */
const limitMs = 480_000;

interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The links of the machine's own namespace, which no lab may touch. */
function machineLinks(): readonly string[] {
  return readdirSync('/sys/class/net').toSorted();
}

/** Cgroups that labs made and that are still there. */
function labCgroups(): readonly string[] {
  return readdirSync(findCgroupRoot()).filter((name) => name.startsWith('nmi-lab-'));
}

/** Why eBPF cannot be tried on this machine, or `false`. */
function whyNoEbpf(): string | false {
  try {
    findCgroupRoot();
    const refused = Object.entries(nativeModule().probe()).filter(([, errno]) => errno !== 0);
    return refused.length === 0 ? false : `the kernel refuses ${refused.join(', ')}`;
  } catch (error) {
    return error instanceof Error ? error.message : 'no eBPF';
  }
}

describe('the executable, as nmi lab', () => {
  let nmi = '';
  let folder = '';

  before(async () => {
    nmi = await freshExecutable();
    folder = mkdtempSync(join(tmpdir(), 'nmi-lab-test-'));
  });

  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  function start(args: readonly string[]) {
    return spawn(nmi, ['lab', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      // Files it forgets are found in a folder of its own.
      env: { ...process.env, TMPDIR: folder },
      timeout: limitMs,
    });
  }

  /** Runs it to its end, which leaves no namespace, no link and no file. */
  async function lab(...args: readonly string[]): Promise<Run> {
    const links = machineLinks();
    const child = start(args);
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const [code] = (await once(child, 'close')) as [number | null];
    assert.deepEqual(listFabricNamespaces(`nmi-lab-${String(child.pid)}`), []);
    assert.deepEqual(machineLinks(), links);
    assert.deepEqual(readdirSync(folder), []);
    return { code, stdout, stderr };
  }

  function parse(run: Run): LabResult {
    assert.match(run.stdout, /^\{.*\}\n$/, `one JSON object and nothing else: ${run.stderr}`);
    return JSON.parse(run.stdout) as LabResult;
  }

  async function names(): Promise<readonly string[]> {
    const { stdout } = await lab('--list');
    return stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.split(' ', 1)[0] ?? '');
  }

  for (const mode of ['iptables', 'ebpf'] as const) {
    const skip = mode === 'ebpf' && fabricSkip === false ? whyNoEbpf() : fabricSkip;
    test(`every scenario holds in network namespaces, by ${mode}`, { skip }, async (t) => {
      const run = await lab('--redirect', mode, '--scenario', 'all', '--output', 'json');
      const result = parse(run);
      for (const { name, ok, detail } of result.scenarios) {
        await t.test(name, () => {
          assert.ok(ok, detail);
        });
      }
      assert.deepEqual(
        result.scenarios.map(({ name }) => name),
        await names(),
      );
      assert.equal(result.leaks, 0);
      assert.equal(result.redirect, mode);
      assert.equal(result.ok, true, 'one scenario or more does not hold');
      assert.equal(run.code, 0, run.stderr);
      assert.deepEqual(labCgroups(), [], 'cgroups stayed');
    });
  }

  test('every scenario that needs no kernel between holds on loopback, which is said', async (t) => {
    const run = await lab('--loopback', '--scenario', 'all', '--output', 'json');
    const result = parse(run);
    for (const { name, ok, detail } of result.scenarios) {
      await t.test(name, () => {
        assert.ok(ok, detail);
      });
    }
    assert.ok(result.scenarios.length > 20, 'most scenarios run on loopback too');
    assert.equal(result.leaks, 0);
    assert.equal(result.redirect, 'none');
    assert.equal(result.ok, true, 'one scenario or more does not hold');
    assert.match(run.stderr, /on loopback and WITHOUT the redirect/);
    assert.equal(run.code, 0, run.stderr);
  });

  test('without the redirect it leaks, says so and exits 1', { skip: fabricSkip }, async () => {
    const run = await lab('--redirect', 'none', '--scenario', 'leak', '--output', 'json');
    const result = parse(run);
    assert.ok(result.leaks > 0);
    assert.equal(result.ok, false);
    assert.deepEqual(
      result.scenarios.map(({ name, ok }) => ({ name, ok })),
      [{ name: 'leak', ok: false }],
    );
    assert.match(result.scenarios[0]?.detail ?? '', /leaked to pods/);
    assert.equal(run.code, 1);
  });

  test('a Ctrl-C in the middle leaves nothing', { skip: fabricSkip }, async () => {
    const child = start(['--scenario', 'tour']);
    const closed = once(child, 'close');
    const prefix = `nmi-lab-${String(child.pid)}`;
    for await (const line of createInterface({ input: child.stdout })) {
      if (!line.startsWith('    pod ')) continue;
      assert.ok(listFabricNamespaces(prefix).length > 2, 'a pod asks from a namespace of its own');
      child.kill('SIGINT');
      break;
    }
    child.stdout.resume();
    const [code] = (await closed) as [number | null];
    assert.notEqual(code, 0, 'a tour that was cut short is no success');
    assert.deepEqual(listFabricNamespaces(prefix), []);
    assert.deepEqual(readdirSync(folder), []);
  });
});
