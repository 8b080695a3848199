import { setTimeout as delay } from 'node:timers/promises';
import { memoryOf } from '../machine/memory.ts';
import { goalSize } from '../stand/objects.ts';
import { loadOf, shapes } from '../stand/rounds.ts';
import { callerOf, openStand } from '../stand/stand.ts';
import type { Scenario } from './scenario.ts';

const samples = 5;

export const memory: Scenario = {
  name: 'memory',
  title: 'Memory of the agent with 250 pods, 10,000 identities, 20,000 bindings',
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, isQuick } = options;
    const stand = stack.use(await openStand({ executable, agentFlags, size: goalSize }));
    const { host, port, agent } = stand;
    const subject = { name: 'agent', host, port, pids: [], callers: [callerOf(stand.pods[0])] };
    const started = memoryOf(agent.pid);
    const loadMs = isQuick ? 1_000 : 5_000;
    await loadOf(subject, shapes.sixtyFour, loadMs);
    const loaded = memoryOf(agent.pid);
    const resident: number[] = [];
    const own: number[] = [];
    for (let sample = 0; sample < samples; sample++) {
      await delay(isQuick ? 500 : 3_000);
      const { rssMb, privateMb } = memoryOf(agent.pid);
      resident.push(rssMb);
      own.push(privateMb);
      say(`${rssMb.toFixed(1)} MB resident, ${privateMb.toFixed(1)} MB private`);
    }
    const figure = (name: string, ...values: readonly number[]) => ({ name, unit: 'MB', values });
    return {
      figures: [
        figure('when ready: resident', started.rssMb),
        figure('when ready: private', started.privateMb),
        figure('right after full load: resident', loaded.rssMb),
        figure('right after full load: private', loaded.privateMb),
        figure('resident', ...resident),
        figure('private', ...own),
      ],
      notes: [
        `"resident" and "private" are of the quarter of a minute after a load of ${loadMs} ms.`,
      ],
    };
  },
};
