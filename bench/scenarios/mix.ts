import { subjects } from '../core/results.ts';
import { goalSize } from '../stand/objects.ts';
import { measureRounds, shapes, type Subject } from '../stand/rounds.ts';
import { callerOf, openStand } from '../stand/stand.ts';
import type { Scenario } from './scenario.ts';

const onePod = 'one pod';

export const mix: Scenario = {
  name: 'mix',
  title: 'Two pods that take turns, beside one that asks alone',
  isQuick: false,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, roundMs } = options;
    const stand = stack.use(
      await openStand({ executable, agentFlags, size: goalSize, askingPods: 2 }),
    );
    const { host, port, pods } = stand;
    const common = { host, port, pids: [stand.agent.pid] };
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
