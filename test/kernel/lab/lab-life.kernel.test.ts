/** `./dev lab` as a person uses it: its output, its end, and that it leaves nothing. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { before, describe, it } from 'node:test';
import { isAlive } from '../../../lab/fabric/process-alive.ts';
import { parseNamespaceName } from '../../../lab/fabric/names.ts';
import { findProcesses, listFabricNamespaces } from '../../../lab/fabric/namespaces.ts';
import { labCommand } from '../../../lab/fabric/lab-command.ts';
import type { LabResult } from '../../../lab/test-bed/scenario.ts';
import { freshExecutable } from '../../../scripts/build.ts';
import { fabricSkip } from './support/fabric-pod.ts';

const limitMs = 60_000;

interface Lab {
  readonly child: ChildProcess;
  readonly prefix: string;
  stdout(): string;
  stderr(): string;
  /** Resolves when either output has matched. */
  untilPrinted(text: RegExp): Promise<void>;
  /** Its exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
}

function startLab(...words: readonly string[]): Lab {
  const [program, ...leading] = labCommand;
  const child = spawn(program, [...leading, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: limitMs,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // `exit`, not `close`: after a SIGKILL its processes keep the output open a little longer.
  const ended = once(child, 'exit').then(
    ([code, signal]) => (signal ?? code) as number | NodeJS.Signals | null,
  );
  return {
    child,
    prefix: `nmi-lab-${String(child.pid)}`,
    stdout: () => stdout,
    stderr: () => stderr,
    untilPrinted: async (text) => {
      const gone = ended.then(() => assert.fail(`the lab ended: ${stdout}${stderr}`));
      gone.catch(() => undefined);
      while (!text.test(stdout + stderr)) {
        const more = Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data')]);
        await Promise.race([more, gone]);
      }
    },
    ended,
  };
}

function assertGone(prefix: string, pids: readonly number[]): void {
  assert.ok(parseNamespaceName(`${prefix}-node`) !== undefined, 'the prefix is not a lab’s');
  assert.deepEqual(listFabricNamespaces(prefix), []);
  for (const pid of pids) {
    // A zombie has ended: the machine's init decides when it is reaped.
    assert.ok(!isAlive(pid), `process ${pid} is still there`);
  }
}

describe('./dev lab', { skip: fabricSkip, timeout: 4 * limitMs }, () => {
  before(freshExecutable);

  it('prints one object with --output json, leaks without the redirect, and leaves nothing', async () => {
    for (const [flags, redirect, ok] of [
      [[], 'iptables', true],
      [['--redirect=none'], 'none', false],
    ] as const) {
      const lab = startLab('--scenario=leak', '--output=json', ...flags);
      assert.equal(await lab.ended, ok ? 0 : 1, lab.stderr());
      const { scenarios, leaks, ...rest } = JSON.parse(lab.stdout()) as LabResult;
      assert.deepEqual(rest, { ok, redirect });
      assert.deepEqual([leaks > 0, scenarios.length], [!ok, 1]);
      assertGone(lab.prefix, []);
    }
  });

  it('stays with --keep, each command that it suggests works, and Ctrl-C ends it', async () => {
    const lab = startLab('--scenario=leak', '--keep');
    await lab.untilPrinted(/Change the cluster[^\n]*\n[^\n]+\n/);
    const pids = findProcesses(listFabricNamespaces(lab.prefix));
    // The lab itself, the agent and three pods.
    assert.ok(pids.length >= 5, `${pids.length} processes`);
    const lines = lab.stderr().match(/^  ip netns exec .*$/gm) ?? [];
    assert.equal(lines.length, 8);
    const answers = lines.map((line) => {
      const { status, stdout, stderr } = spawnSync('sh', ['-c', line], { encoding: 'utf8' });
      assert.equal(status, 0, `${line}: ${stderr}`);
      return stdout;
    });
    const [one = '', two = '', plain = '', rules, routing, ready, metrics] = answers;
    for (const answer of [one, two]) assert.match(answer, /"access_token":"[\w-]+\./);
    assert.match(plain, /Identity not found: pod default\/plain/);
    assert.match(rules ?? '', /-j DNAT --to-destination 169\.254\.25\.79:2579/);
    assert.match(routing ?? '', /^80:.*prohibit/m);
    assert.match(ready ?? '', /"ready":true/);
    assert.match(metrics ?? '', /^nmi_requests_total\{/m);
    // The last suggested command deleted the binding of pod one.
    const again = spawnSync('sh', ['-c', lines[0] ?? ''], { encoding: 'utf8' });
    assert.match(again.stdout, /Identity not found/);
    lab.child.kill('SIGINT');
    assert.equal(await lab.ended, 0);
    assertGone(lab.prefix, pids);
  });

  it('ends at once on Ctrl-C during a scenario and leaves nothing', async () => {
    const lab = startLab('--scenario=two-at-once');
    await lab.untilPrinted(/▶ two-at-once/);
    const startMs = performance.now();
    lab.child.kill('SIGINT');
    assert.equal(await lab.ended, 1);
    assert.ok(performance.now() - startMs < 8_000, 'it continued with the scenario');
    assertGone(lab.prefix, []);
  });

  it('leaves no process when it is killed, and the next one removes the rest', async () => {
    const foldersBefore = new Set(listLabFolders());
    const lab = startLab('--scenario=leak', '--keep');
    await lab.untilPrinted(/The lab stays up/);
    const folders = listLabFolders().filter((name) => !foldersBefore.has(name));
    assert.equal(folders.length, 1);
    const pids = findProcesses(listFabricNamespaces(lab.prefix));
    assert.ok(pids.length >= 5, `${pids.length} processes`);
    lab.child.kill('SIGKILL');
    assert.equal(await lab.ended, 'SIGKILL');
    assert.notDeepEqual(listFabricNamespaces(lab.prefix), [], 'nothing was left to remove');
    const next = startLab('--scenario=leak', '--output=json');
    assert.equal(await next.ended, 0, next.stderr());
    assertGone(lab.prefix, pids);
    assertGone(next.prefix, []);
    assert.deepEqual(
      listLabFolders().filter((name) => folders.includes(name)),
      [],
    );
  });
});

/** The folders with a kubeconfig that running and killed labs have. */
function listLabFolders(): readonly string[] {
  return readdirSync(tmpdir()).filter((name) => /^nmi-lab-\d+-\w{6}$/.test(name));
}
