import { setTimeout as delay } from 'node:timers/promises';
import { Histogram } from '../core/histogram.ts';
import type { CurveLine } from '../core/results.ts';
import { memoryOf } from '../machine/memory.ts';
import { goalSize } from '../fixture/objects.ts';
import { runLoad } from '../fixture/run-load.ts';
import { callerOf, openFixture } from '../fixture/fixture.ts';
import { changePods } from './churn.ts';
import type { Scenario } from './scenario.ts';

const ratePerSec = 500;

export const soak: Scenario = {
  name: 'soak',
  title: `${ratePerSec} requests and one pod event a second for as long as it is told`,
  isQuick: false,
  isExtra: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, soakMinutes } = options;
    const fixture = stack.use(await openFixture({ executable, agentFlags, size: goalSize }));
    const { host, port, agent, around } = fixture;
    using _changes = changePods(around.kube, 1);
    const measuredMs = soakMinutes * 60_000;
    const loading = runLoad({
      host,
      port,
      connections: 16,
      kind: 'keep',
      ratePerSec,
      serverPids: [agent.pid],
      callers: [callerOf(fixture.pods[0])],
      warmUpMs: 0,
      measuredMs,
      isSleepy: true,
    });
    const resident: [number, number][] = [];
    const own: [number, number][] = [];
    const everyMs = Math.max(1_000, measuredMs / 240);
    const startedAtMs = performance.now();
    for (let atMs = everyMs; atMs <= measuredMs; atMs += everyMs) {
      await delay(Math.max(0, startedAtMs + atMs - performance.now()));
      const { rssMb, privateMb } = memoryOf(agent.pid);
      resident.push([atMs / 60_000, rssMb]);
      own.push([atMs / 60_000, privateMb]);
      say(`${(atMs / 60_000).toFixed(1)} min: ${rssMb.toFixed(1)} MB, ${privateMb.toFixed(1)} own`);
    }
    const report = await loading;
    const latency = Histogram.from(report.latency);
    const figure = (name: string, unit: string, value: number) => ({ name, unit, values: [value] });
    const lines: readonly CurveLine[] = [
      { name: 'resident', points: resident },
      { name: 'private', points: own },
    ];
    return {
      figures: [
        figure('minutes', '', soakMinutes),
        figure('right answers', '', report.answers),
        figure('failures', '', report.failures),
        figure('p50', 'µs', latency.percentileUs(0.5)),
        figure('p99', 'µs', latency.percentileUs(0.99)),
        figure('p99.9', 'µs', latency.percentileUs(0.999)),
        figure('CPU for 1,000', 'ms', report.cpuMsPer1000 ?? NaN),
      ],
      curves: [{ name: 'Memory over time', xLabel: 'min', yLabel: 'MB', xScale: 'linear', lines }],
      notes: [
        "Latency has the lateness of the load program's timer in it, a millisecond and more: here it " +
          'leaves its core to others.',
      ],
    };
  },
};
