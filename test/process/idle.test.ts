import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ask, tokenTarget } from '../support/ask.ts';
import { wakeUpsPerSecond } from '../support/wake-ups.ts';
import { openServices } from './agent-child.ts';

describe('the idle agent process', { timeout: 120_000 }, () => {
  it('wakes less than 20 times a second', async () => {
    await using testBed = await openServices();
    const child = testBed.start();
    await testBed.untilReady();
    await ask(testBed.pod, tokenTarget);
    // Compilation and garbage collection in the background end, idle connections close.
    await delay(8_000);
    const wakeUps = await wakeUpsPerSecond(child.pid);
    assert.ok(wakeUps > 0 && wakeUps < 20, `${wakeUps} wake-ups a second`);
  });
});
