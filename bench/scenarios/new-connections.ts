import { subjects } from '../core/results.ts';
import { openControl } from '../stand/controls.ts';
import { goalSize } from '../stand/objects.ts';
import { measureRounds, shapes } from '../stand/rounds.ts';
import { bodyBytesOf, callerOf, openStand } from '../stand/stand.ts';
import type { Scenario } from './scenario.ts';

export const newConnections: Scenario = {
  name: 'new',
  title: 'A cached token, a new connection for each request, as many SDKs do it',
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, roundMs } = options;
    const stand = stack.use(await openStand({ executable, agentFlags, size: goalSize }));
    const bytes = await bodyBytesOf(stand);
    const { host, port } = stand;
    const agent = {
      ...{ name: subjects.agent, host, port, pids: [stand.agent.pid] },
      callers: [callerOf(stand.pods[0])],
    };
    const nodeHttp = await openControl(subjects.nodeHttp, bytes, stack);
    const rawTcp = await openControl(subjects.rawTcp, bytes, stack);
    const goHttp = await openControl(subjects.goHttp, bytes, stack);
    return {
      control: subjects.nodeHttp,
      series: await measureRounds({
        ...{ rounds, roundMs, say, subjects: [agent, nodeHttp, rawTcp, goHttp] },
        shapes: [{ ...shapes.fresh, name: '1 new each', connections: 1 }, shapes.fresh],
      }),
    };
  },
};
