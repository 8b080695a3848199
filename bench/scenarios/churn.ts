import type { FakeKube } from '../../lab/fakes/kube/fake-kube.ts';
import { subjects } from '../core/results.ts';
import { createOtherPod, goalSize } from '../fixture/objects.ts';
import { measureRounds, shapes, type Subject } from '../fixture/rounds.ts';
import { runLoad } from '../fixture/run-load.ts';
import { callerOf, openFixture } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';

const quiet = 'nothing changes';
const eventsPerSec = 50;

export const churn: Scenario = {
  name: 'churn',
  title: `A cached token while ${eventsPerSec} pods a second change, beside the same in peace`,
  isQuick: false,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, roundMs } = options;
    const fixture = stack.use(await openFixture({ executable, agentFlags, size: goalSize }));
    const { host, port, around } = fixture;
    const callers = [callerOf(fixture.pods[0])];
    const common = { host, port, pids: [fixture.agent.pid], callers };
    const all: readonly Subject[] = [
      { ...common, name: quiet },
      {
        ...common,
        name: subjects.agent,
        runLoad: async (plan) => {
          using _changes = changePods(around.kube, eventsPerSec);
          return await runLoad(plan);
        },
      },
    ];
    return {
      control: quiet,
      series: await measureRounds({
        rounds,
        roundMs,
        say,
        subjects: all,
        shapes: [shapes.one, shapes.sixteen],
      }),
    };
  },
};

/** Changes the label of one pod after another, until disposed. */
export function changePods(kube: FakeKube, perSec: number): Disposable {
  let life = 0;
  let index = 0;
  const timer = setInterval(() => {
    index = (index + 1) % 200;
    if (index === 0) life += 1;
    kube.apply(createOtherPod(index, life + 1));
  }, 1000 / perSec);
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
    },
  };
}
