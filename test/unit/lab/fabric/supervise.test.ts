import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';

import { findProcesses, listFabricNamespaces } from '../../../../lab/fabric/namespaces.ts';
import { fabricSkip, supportCommand } from '../../../kernel/lab/support/fabric-pod.ts';

interface Run {
  readonly outer: ChildProcess;
  readonly prefix: string;
  readonly innerPid: number;
}

async function startOuter(behaviour: string): Promise<Run> {
  const [program, script] = supportCommand('lab-outer.ts');
  const outer = spawn(program, [script, behaviour], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: outer.stdout });
  const [line] = (await once(lines, 'line')) as [string];
  const [prefix = '', innerPid] = line.split(' ');
  assert.match(prefix, /^nmi-lab-\d+$/);
  return { outer, prefix, innerPid: Number(innerPid) };
}

async function endOf(run: Run): Promise<number | null> {
  const [code] = (await once(run.outer, 'close')) as [number | null];
  assert.deepEqual(listFabricNamespaces(run.prefix), []);
  assert.throws(() => process.kill(run.innerPid, 0), { code: 'ESRCH' });
  return code;
}

describe('supervised lab', { skip: fabricSkip }, () => {
  test('the inner process runs where the metadata address is local; its exit code is returned', async () => {
    const run = await startOuter('exit');
    assert.equal(await endOf(run), 3);
  });

  test('an inner process that is killed leaves nothing', async () => {
    const run = await startOuter('wait');
    assert.ok(findProcesses(listFabricNamespaces(run.prefix)).includes(run.innerPid));
    process.kill(run.innerPid, 'SIGKILL');
    assert.equal(await endOf(run), 128 + 9);
  });

  test('a stop reaches the inner process as SIGTERM', async () => {
    const run = await startOuter('wait');
    run.outer.kill('SIGINT');
    assert.equal(await endOf(run), 0);
  });

  test('an inner process that ignores the stop is killed after the grace', async () => {
    const run = await startOuter('deaf');
    run.outer.kill('SIGINT');
    assert.equal(await endOf(run), 128 + 9);
  });
});
