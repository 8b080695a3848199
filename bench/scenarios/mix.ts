import { subjects } from '../core/results.ts';
import { goalSize } from '../fixture/objects.ts';
import { measureRounds, shapes, type Subject } from '../fixture/rounds.ts';
import { callerOf, openFixture } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';

const onePod = 'one pod';

export const mix: Scenario = {
  name: 'mix',
  title: 'Two pods that take turns, beside one that asks alone',
  isQuick: false,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, roundMs } = options;
    const fixture = stack.use(
      await openFixture({ executable, agentFlags, size: goalSize, askingPods: 2 }),
    );
    const { host, port, pods } = fixture;
    const common = { host, port, pids: [fixture.agent.pid] };
    const all: readonly Subject[] = [
      { ...common, name: onePod, callers: [callerOf(pods[0])] },
      { ...common, name: subjects.agent, callers: pods.map((pod) => callerOf(pod)) },
    ];
    return {
      control: onePod,
      series: await measureRounds({
        rounds,
        roundMs,
        say,
        subjects: all,
        shapes: [shapes.sixteen, shapes.fresh],
      }),
    };
  },
};
