import { shapes, measureRounds } from '../stand/rounds.ts';
import { subjects } from '../core/results.ts';
import { openControl, openFakeUpstream } from '../stand/controls.ts';
import { goalSize } from '../stand/objects.ts';
import { bodyBytesOf, callerOf, openStand } from '../stand/stand.ts';
import type { Scenario } from './scenario.ts';

/** Well below what any of them can do: what is measured is the wait, not the queue. */
const openRate = { name: '16 kept, 2,000/s due', connections: 16, kind: 'keep' } as const;

export const hit: Scenario = {
  name: 'hit',
  title: 'A cached token, 250 pods, 10,000 identities, 20,000 bindings, no redirect',
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
    const upstream = await openFakeUpstream(stack);
    const all = [agent, nodeHttp, rawTcp, goHttp, upstream];
    const common = { rounds, roundMs, say };
    const kept = [shapes.one, shapes.sixteen, shapes.sixtyFour];
    const series = [
      ...(await measureRounds({ ...common, subjects: all, shapes: kept })),
      ...(await measureRounds({
        ...{ ...common, subjects: [agent, nodeHttp, goHttp] },
        shapes: [{ ...openRate, ratePerSec: 2_000 }],
      })),
    ];
    return {
      control: subjects.nodeHttp,
      series,
      notes: [
        `The body has ${bytes} bytes; the agent writes its log line for each request into a file.`,
        ...(goHttp === undefined ? ['Go is not installed: its control was left out.'] : []),
      ],
    };
  },
};
