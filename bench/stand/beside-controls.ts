/** What scenarios of a cached token compare: the agent, and servers of the same bytes. */
import { subjects } from '../core/results.ts';
import { openControl } from './controls.ts';
import { goalSize } from './objects.ts';
import type { Subject } from './rounds.ts';
import { bodyBytesOf, callerOf, openStand } from './stand.ts';

export interface BesideControls {
  readonly agent: Subject;
  readonly nodeHttp: Subject | undefined;
  readonly rawTcp: Subject | undefined;
  /** Undefined where Go is not installed. */
  readonly goHttp: Subject | undefined;
  /** Of each one's body. */
  readonly bytes: number;
}

/** The agent has the token in memory, and 10,000 identities to find it among. */
export async function openBesideControls(options: {
  readonly executable: string;
  readonly agentFlags: readonly string[];
  readonly stack: AsyncDisposableStack;
}): Promise<BesideControls> {
  const { executable, agentFlags, stack } = options;
  const stand = stack.use(await openStand({ executable, agentFlags, size: goalSize }));
  const bytes = await bodyBytesOf(stand);
  const { host, port } = stand;
  return {
    agent: {
      name: subjects.agent,
      host,
      port,
      pids: [stand.agent.pid],
      callers: [callerOf(stand.pods[0])],
    },
    nodeHttp: await openControl(subjects.nodeHttp, bytes, stack),
    rawTcp: await openControl(subjects.rawTcp, bytes, stack),
    goHttp: await openControl(subjects.goHttp, bytes, stack),
    bytes,
  };
}
