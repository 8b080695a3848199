import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { OwnTime } from '../../../lab/pods/own-time.ts';

describe('the time that a test had', () => {
  it('counts waits', async () => {
    const startMs = performance.now();
    using time = new OwnTime();
    // A longer one may be counted only in part.
    for (let wait = 0; wait < 20; wait++) await delay(10);
    const [ownMs, allMs] = [time.nowMs(), performance.now() - startMs];
    assert.ok(ownMs > 150 && ownMs <= allMs, `${ownMs} ms of ${allMs}`);
  });

  it('counts work that blocks this process', () => {
    using time = new OwnTime();
    const before = process.threadCpuUsage();
    const usedMs = () => {
      const { user, system } = process.threadCpuUsage(before);
      return (user + system) / 1_000;
    };
    while (usedMs() < 200);
    assert.ok(time.nowMs() >= 200);
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
