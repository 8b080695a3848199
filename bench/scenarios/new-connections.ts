import { subjects } from '../core/results.ts';
import { openBesideControls } from '../fixture/beside-controls.ts';
import { measureRounds, shapes } from '../fixture/rounds.ts';
import type { Scenario } from './scenario.ts';

export const newConnections: Scenario = {
  name: 'new',
  title: 'A cached token, a new connection for each request, as many SDKs do it',
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, roundMs } = options;
    const opened = await openBesideControls({ executable, agentFlags, stack });
    const { agent, nodeHttp, rawTcp, goHttp } = opened;
    return {
      control: subjects.nodeHttp,
      series: await measureRounds({
        rounds,
        roundMs,
        say,
        subjects: [agent, nodeHttp, rawTcp, goHttp],
        shapes: [shapes.oneFresh, shapes.fresh],
      }),
    };
  },
};
