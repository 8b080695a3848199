/** A benchmark detects whether it has the machine to itself. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { obstacleTo, takeTurn, untilQuiet } from '../../bench/machine/alone.ts';
import { watchOthers } from '../../bench/machine/others.ts';

const folder = mkdtempSync(join(tmpdir(), 'nmi-alone-'));
after(() => {
  rmSync(folder, { recursive: true });
});

describe('a run', () => {
  it('locks the machine when no other run has it, and releases it', () => {
    const file = join(folder, 'free');
    const first = takeTurn(file);
    assert.equal(first.otherPid, undefined);
    assert.equal(takeTurn(file).otherPid, process.pid);
    first[Symbol.dispose]();
    assert.ok(!existsSync(file));
  });

  it('takes the lock of a run that has ended, or with a pid that was reused', () => {
    for (const text of [`${process.pid} 1`, '4194304 1', '', 'x']) {
      const file = join(folder, 'left');
      writeFileSync(file, text);
      using turn = takeTurn(file);
      assert.equal(turn.otherPid, undefined, text);
    }
  });

  it('must not be published beside another, nor while the machine is busy', () => {
    const turn = { otherPid: undefined, [Symbol.dispose]: () => undefined };
    assert.equal(obstacleTo(0.5, turn), undefined);
    assert.match(obstacleTo(0.6, turn) ?? '', /load of the machine is 0\.6/);
    assert.match(obstacleTo(0, { ...turn, otherPid: 7 }) ?? '', /another run .*pid 7/);
  });

  it('waits for the load to fall, but not without limit', async () => {
    const loads = [2, 1, 0.6, 0.5, 0.4];
    let asked = 0;
    const common = { pauseMs: 1, stop: new AbortController().signal };
    await untilQuiet({ ...common, load: () => loads[asked++] ?? 9, limitMs: 60_000 });
    assert.equal(asked, 4);
    await untilQuiet({ ...common, load: () => 9, limitMs: 20 });
    const stopped = { ...common, stop: AbortSignal.abort() };
    await untilQuiet({ ...stopped, load: () => 9, limitMs: 60_000 });
  });

  it('counts the CPU time of other processes, without that of its own ended children', async () => {
    const spin = 'for (const end = Date.now() + 600; Date.now() < end;);';
    // Other processes can use at most all processors minus the child's share.
    const atMs = performance.now();
    const beside = watchOthers();
    const childMs = Number(
      execFileSync(process.execPath, ['-e', `${spin} console.log(process.cpuUsage().user / 1000)`]),
    );
    const others = beside();
    // Over more than the time that the others are counted in.
    const share = childMs / (performance.now() - atMs);
    assert.ok(others <= cpus().length - share + 0.05, `${others} beside ${share}`);
    // A grandchild that outlives its parent is no longer a child here: it counts like other
    // processes.
    const besideOrphan = watchOthers();
    const orphan = `require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(spin)}], { detached: true, stdio: 'ignore' }).unref()`;
    await once(spawn(process.execPath, ['-e', orphan], { stdio: 'ignore' }), 'exit');
    await new Promise((resolve) => setTimeout(resolve, 700));
    const used = besideOrphan();
    assert.ok(used > 0.2, `${used}`);
  });
});
