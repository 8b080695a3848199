import { findFabricObstacle } from '../../lab/fabric/fabric.ts';
import { subjects } from '../core/results.ts';
import { openFabricNode } from '../fixture/fabric-node.ts';
import { measureRounds, shapes } from '../fixture/rounds.ts';
import type { Scenario } from './scenario.ts';

export const against: Scenario = {
  name: 'against',
  title: 'Another implementation, on a node of its own, beside the agent with iptables on another',
  isQuick: false,
  isExtra: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, roundMs, against: rival } = options;
    if (rival === undefined) throw new TypeError('it takes --against NAME=COMMAND');
    const obstacle = findFabricObstacle();
    if (obstacle !== undefined) return { notes: [`Left out: ${obstacle}.`] };
    const common = { redirect: 'iptables', executable, agentFlags } as const;
    const ours = await openFabricNode('ours', { ...common, rival: undefined }, stack);
    const other = await openFabricNode('other', { ...common, rival }, stack);
    return {
      control: rival.name,
      series: await measureRounds({
        rounds,
        roundMs,
        say,
        shapes: [shapes.one, shapes.sixteen, shapes.sixtyFour, shapes.pacedFresh],
        subjects: [
          other.subject(rival.name),
          ours.subject(subjects.agent),
          ours.control(subjects.nodeHttp),
        ],
      }),
    };
  },
};
