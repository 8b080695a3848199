import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { wakeUpsPerSecond } from '../support/wake-ups.ts';
import { openServices } from './agent-child.ts';

describe('the idle agent process', { timeout: 600_000 }, () => {
  it('wakes less than four times a second', async () => {
    await using testBed = await openServices();
    const child = testBed.start();
    await testBed.untilReady();
    await ask(testBed.pod, tokenTarget);
    // Compilation and garbage collection in the background end, idle connections close: within
    // seconds, unless the machine is busy.
    const assertIdle = async (): Promise<void> => {
      const wakeUps = await wakeUpsPerSecond(child.pid);
      assert.ok(wakeUps > 0 && wakeUps < 4, `${wakeUps} wake-ups a second`);
    };
    await eventually(assertIdle, 60_000);
    await assertIdle();
  });
});
