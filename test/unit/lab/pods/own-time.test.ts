import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { OwnTime } from '../../../../lab/pods/own-time.ts';

describe('the time that a test had', () => {
  it('counts waits, and work that blocks this process', async () => {
    const startMs = performance.now();
    using time = new OwnTime();
    // A longer one may be counted only in part.
    for (let wait = 0; wait < 20; wait++) await delay(10);
    const [waitedMs, allMs] = [time.nowMs(), performance.now() - startMs];
    assert.ok(waitedMs > 150 && waitedMs <= allMs, `${waitedMs} ms of ${allMs}`);
    const before = process.threadCpuUsage();
    for (let usedUs = 0; usedUs < 200_000;) usedUs = process.threadCpuUsage(before).user;
    assert.ok(time.nowMs() >= waitedMs + 200);
  });

  it('does not count that the machine stands still', () => {
    using time = new OwnTime();
    standStill(500);
    assert.ok(time.nowMs() < 250);
  });

  it('ends a wait when that much has passed', async () => {
    using time = new OwnTime();
    const { promise, resolve } = Promise.withResolvers<undefined>();
    time.after(100, () => {
      resolve(undefined);
    });
    standStill(500);
    await promise;
    assert.ok(time.nowMs() >= 100);
    time.after(50, () => assert.fail('cancelled'))();
    await delay(100);
  });
});

function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
