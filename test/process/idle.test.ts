/**
 * What an idle agent costs its node, as the number of times that the kernel wakes one of its
 * threads. A busy machine does not add to it.
 */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ask, tokenTarget } from '../support/ask.ts';
import { openServices } from './agent-child.ts';

const watchedS = 5;
const mostPerSecond = 20;

async function wakeUpsOf(pid: number): Promise<number> {
  const tasks = await readdir(`/proc/${pid}/task`);
  const statuses = await Promise.all(
    tasks.map((task) => readFile(`/proc/${pid}/task/${task}/status`, 'utf8').catch(() => '')),
  );
  return statuses
    .map((status) => Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1] ?? 0))
    .reduce((sum, count) => sum + count, 0);
}

describe('the idle agent process', { timeout: 120_000 }, () => {
  it('is awakened less than 20 times a second', async () => {
    await using testBed = await openServices();
    const child = testBed.start();
    await testBed.untilReady();
    await ask(testBed.pod, tokenTarget);
    // Compilation and garbage collection in the background end, idle connections close.
    await delay(8_000);
    const before = await wakeUpsOf(child.pid);
    await delay(watchedS * 1_000);
    const perSecond = ((await wakeUpsOf(child.pid)) - before) / watchedS;
    assert.ok(perSecond > 0, 'the process runs');
    assert.ok(perSecond < mostPerSecond, `${perSecond} wake-ups a second`);
  });
});
