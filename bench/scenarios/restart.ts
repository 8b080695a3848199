import { setTimeout as delay } from 'node:timers/promises';
import { goalSize } from '../fixture/objects.ts';
import { runLoad } from '../fixture/run-load.ts';
import { callerOf, openFixture } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';
import { timelineCurve, timelineFigures } from './timeline.ts';

const pieceMs = 100;

export const restart: Scenario = {
  name: 'restart',
  title:
    'The agent is stopped and started again under 500 requests a second, a new connection each',
  isQuick: false,
  run: async ({ options, executable, stack }) => {
    const { agentFlags } = options;
    const fixture = stack.use(await openFixture({ executable, agentFlags, size: goalSize }));
    const { host, port, agent } = fixture;
    const loading = runLoad({
      host,
      port,
      connections: 32,
      kind: 'new',
      ratePerSec: 500,
      callers: [callerOf(fixture.pods[0])],
      serverPids: [],
      warmUpMs: 500,
      measuredMs: 8_000,
      timelineMs: pieceMs,
    });
    await delay(3_000);
    const from = Date.now();
    const stoppedAtMs = performance.now();
    await agent.stop();
    const goneMs = performance.now() - stoppedAtMs;
    await agent.start();
    const readyMs = performance.now() - stoppedAtMs;
    const event = { name: 'from SIGTERM to ready again', from, to: from + readyMs };
    const report = await loading;
    return {
      figures: [
        { name: 'from SIGTERM to its end', unit: 'ms', values: [goneMs] },
        { name: event.name, unit: 'ms', values: [readyMs] },
        ...timelineFigures(report, pieceMs),
      ],
      curves: [timelineCurve(report, pieceMs, event)],
      notes: [
        'On a node the redirect stays while the agent is away: connections are refused, and an SDK ' +
          'asks again.',
      ],
    };
  },
};
