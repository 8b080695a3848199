import { Histogram } from '../core/histogram.ts';
import type { LoadReport } from '../load/plan.ts';
import type { Figure } from '../core/results.ts';
import { goalSize } from '../fixture/objects.ts';
import { runLoad } from '../fixture/run-load.ts';
import { callerOf, openFixture, tokenPath } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';

export const throttled: Scenario = {
  name: 'throttled',
  title: 'The upstream answers 429: who has a token in memory, who has none, and what it is asked',
  isQuick: false,
  run: async ({ options, executable, stack }) => {
    const { agentFlags } = options;
    const fixture = stack.use(
      await openFixture({ executable, agentFlags, size: goalSize, askingPods: 2 }),
    );
    const { host, port, around, agent, pods } = fixture;
    const common = { host, port, kind: 'keep', serverPids: [agent.pid] } as const;
    const held = { ...common, connections: 4, ratePerSec: 500, callers: [callerOf(pods[0])] };
    await runLoad({ ...held, warmUpMs: 0, measuredMs: 500 });
    await around.imds.setFaults({ fail: { status: 429, retryAfterSec: 2 }, paths: 'token' });
    around.imds.clear();
    const measuredMs = 5_000;
    const missing = callerOf(pods[1], `${tokenPath}&resource=https://new-{n}.example`);
    const [hits, misses] = await Promise.all([
      runLoad({ ...held, warmUpMs: 300, measuredMs }),
      runLoad({
        ...common,
        connections: 8,
        ratePerSec: 100,
        warmUpMs: 300,
        measuredMs,
        callers: [{ ...missing, count: 10, expect: { kind: 'status', statuses: [429] } }],
      }),
    ]);
    return {
      figures: [
        ...figuresOf('token in memory', hits),
        ...figuresOf('no token, ten resources', misses),
        { name: 'requests upstream in 5 s', unit: '', values: [around.imds.requests().length] },
      ],
      notes: [hits, misses].flatMap(({ firstFailure }) =>
        firstFailure === undefined ? [] : [`First failure: ${firstFailure}`],
      ),
    };
  },
};

function figuresOf(name: string, report: LoadReport): readonly Figure[] {
  const latency = Histogram.from(report.latency);
  const figure = (what: string, unit: string, value: number) => ({
    name: `${name}: ${what}`,
    unit,
    values: [value],
  });
  return [
    figure('right answers', '', report.answers),
    figure('other answers', '', report.failures),
    figure('p50', 'µs', latency.percentileUs(0.5)),
    figure('p99', 'µs', latency.percentileUs(0.99)),
  ];
}
