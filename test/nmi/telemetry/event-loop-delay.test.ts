import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Clock } from '../../../src/base/time/clock.ts';
import { exportEventLoopDelay } from '../../../src/nmi/telemetry/event-loop-delay.ts';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { HandClock } from '../../support/hand-clock.ts';

function open() {
  const hand = new HandClock();
  const late = { ms: 0 };
  const slow: Clock = {
    wallMs: () => hand.wallMs(),
    monotonicMs: () => hand.monotonicMs(),
    schedule: (delayMs, work) => hand.schedule(delayMs + late.ms, work),
  };
  const metrics = createMetrics();
  const clock = exportEventLoopDelay(metrics, slow);
  const scrape = async (): Promise<readonly number[]> => {
    const page = await metrics.render();
    return ['p50', 'p99', 'max'].map((stat) => {
      const line = new RegExp(`^nmi_event_loop_delay_seconds\\{stat="${stat}"\\} (.*)$`, 'm');
      return Number(line.exec(page)?.[1]);
    });
  };
  return { hand, late, clock, scrape };
}

describe('the delay of the event loop', () => {
  it('is the lateness of timers since the last scrape', async () => {
    const { hand, late, clock, scrape } = open();
    let runs = 0;
    for (let count = 0; count < 98; count++) clock.schedule(1_000, () => runs++);
    late.ms = 500;
    for (let count = 0; count < 2; count++) clock.schedule(1_000, () => runs++);
    hand.advance(1_499);
    assert.equal(runs, 98);
    hand.advance(1);
    assert.equal(runs, 100);
    const [p50 = NaN, p99 = NaN, max = NaN] = await scrape();
    assert.ok(p50 < 0.001, `${p50}`);
    assert.ok(Math.abs(p99 - 0.5) < 0.01, `${p99}`);
    assert.ok(Math.abs(max - 0.5) < 0.01, `${max}`);
    assert.deepEqual(await scrape(), [0, 0, 0], 'nothing was late since');
  });

  it('arms no timer, and lets timers be disarmed', () => {
    const { hand, clock } = open();
    assert.deepEqual(hand.armed, []);
    const disarm = clock.schedule(10, () => assert.fail('disarmed'));
    disarm();
    hand.advance(100);
    assert.equal(clock.monotonicMs(), 100);
    assert.equal(clock.wallMs(), hand.wallMs());
  });

  it('counts a timer that is early, or late beyond all measure, within its range', async () => {
    const { hand, late, clock, scrape } = open();
    late.ms = -5;
    clock.schedule(10, () => undefined);
    hand.advance(10);
    assert.ok(Number((await scrape())[2]) < 0.001);
    late.ms = 100 * 3_600_000;
    clock.schedule(10, () => undefined);
    hand.advance(101 * 3_600_000);
    assert.ok(Math.abs(Number((await scrape())[2]) - 3_600) < 40);
  });
});
