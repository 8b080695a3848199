import type { Figure } from '../core/results.ts';
import { Histogram } from '../core/histogram.ts';
import { goalSize } from '../fixture/objects.ts';
import { runLoad } from '../fixture/run-load.ts';
import { callerOf, openFixture } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';

const lifetimeMs = 3_000;
const ratePerSec = 500;

export const expiry: Scenario = {
  name: 'expiry',
  title: `Tokens that live ${lifetimeMs / 1000} s under ${ratePerSec} requests a second`,
  isQuick: false,
  run: async ({ options, executable, stack }) => {
    const { agentFlags } = options;
    const fixture = stack.use(await openFixture({ executable, agentFlags, size: goalSize }));
    const { host, port, agent, around } = fixture;
    around.imds.setTokenLifetime(lifetimeMs);
    await around.imds.setFaults({ delayMs: 20, paths: 'token' });
    around.imds.clear();
    const report = await runLoad({
      host,
      port,
      connections: 16,
      kind: 'keep',
      ratePerSec,
      callers: [callerOf(fixture.pods[0])],
      warmUpMs: 1_000,
      measuredMs: 12_000,
      serverPids: [agent.pid],
      timelineMs: 250,
    });
    const upstream = around.imds.requests().length;
    const latency = Histogram.from(report.latency);
    const figure = (name: string, unit: string, value: number): Figure => ({
      name,
      unit,
      values: [value],
    });
    return {
      figures: [
        figure('answers', '', report.answers),
        figure('failures', '', report.failures),
        figure('p50', 'µs', latency.percentileUs(0.5)),
        figure('p99', 'µs', latency.percentileUs(0.99)),
        figure('slowest', 'µs', latency.maxUs),
        figure('requests upstream', '', upstream),
      ],
      curves: [
        {
          name: 'Slowest answer over time',
          xLabel: 's',
          yLabel: 'ms',
          xScale: 'linear',
          lines: [
            {
              name: 'slowest in 250 ms',
              points: report.timeline.map(({ atMs, maxUs }) => [atMs / 1000, maxUs / 1000]),
            },
          ],
        },
      ],
      ...(report.firstFailure === undefined
        ? {}
        : { notes: [`First failure: ${report.firstFailure}`] }),
    };
  },
};
