import { shapes, measureRounds } from '../fixture/rounds.ts';
import { subjects } from '../core/results.ts';
import { openBesideControls } from '../fixture/beside-controls.ts';
import { openFakeUpstream } from '../fixture/controls.ts';
import type { Scenario } from './scenario.ts';

/** Well below the capacity of every subject: this measures latency without queueing. */
const openRate = { name: '16 kept, 2,000/s due', connections: 16, kind: 'keep' } as const;

export const hit: Scenario = {
  name: 'hit',
  title: 'A cached token, 250 pods, 10,000 identities, 20,000 bindings, no redirect',
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, roundMs } = options;
    const opened = await openBesideControls({ executable, agentFlags, stack });
    const { agent, nodeHttp, rawTcp, goHttp, bytes } = opened;
    const upstream = await openFakeUpstream(stack);
    const servers = [agent, nodeHttp, rawTcp, goHttp];
    const common = { rounds, roundMs, say };
    const sixteen = shapes.sixteen;
    const series = [
      ...(await measureRounds({ ...common, subjects: servers, shapes: [shapes.one] })),
      ...(await measureRounds({ ...common, subjects: [...servers, upstream], shapes: [sixteen] })),
      ...(await measureRounds({ ...common, subjects: servers, shapes: [shapes.sixtyFour] })),
      ...(await measureRounds({
        ...common,
        subjects: [agent, nodeHttp],
        shapes: [
          { ...sixteen, name: '16 kept, same bytes', style: 'same' },
          { ...sixteen, name: '16 kept, unusual', style: 'unusual' },
        ],
      })),
      ...(await measureRounds({
        ...common,
        subjects: [agent, nodeHttp, goHttp],
        shapes: [{ ...openRate, ratePerSec: 2_000 }],
      })),
    ];
    return {
      control: subjects.nodeHttp,
      series,
      notes: [
        `The body has ${bytes} bytes; the agent writes its log line for each request into a file.`,
        '"Same bytes" are those of the other rows without a new request id each time. An "unusual" ' +
          'request has `TE: trailers` besides, which the agent leaves to `node:http`: it shows ' +
          'what its own reading of usual requests wins.',
        ...(goHttp === undefined ? ['Go is not installed: its control was left out.'] : []),
      ],
    };
  },
};
