import { subjects, type Curve, type CurveLine, type Figure } from '../core/results.ts';
import { median, slopeOf } from '../core/statistics.ts';
import { memoryOf } from '../machine/memory.ts';
import { measures } from '../report/markdown.ts';
import { openControl } from '../stand/controls.ts';
import { fillCache, timeHits } from '../stand/cached-tokens.ts';
import type { ClusterSize } from '../stand/objects.ts';
import { measureRounds, shapes } from '../stand/rounds.ts';
import { bodyBytesOf, callerOf, openStand } from '../stand/stand.ts';
import type { Context, Scenario } from './scenario.ts';

interface Step {
  readonly count: number;
  readonly size: ClusterSize;
}

const podSteps: readonly Step[] = [10, 100, 300, 1_000].map((pods) => ({
  ...{ count: pods, size: { pods, identities: 500, bindings: 1_000 } },
}));
const identitySteps: readonly Step[] = [10, 100, 1_000, 10_000, 100_000].map((identities) => ({
  count: identities,
  size: { pods: 250, identities, bindings: identities },
}));
const tokenSteps = [1, 100, 1_000, 10_000, 50_000];

export const growth: Scenario = {
  name: 'growth',
  title: 'What a hit costs, and memory, as pods, identities and tokens become more',
  isQuick: false,
  run: async (context) => {
    const pods = await measureSteps(context, 'pods', podSteps);
    const identities = await measureSteps(context, 'identities', identitySteps);
    const tokens = await measureTokens(context);
    return {
      figures: [...pods.figures, ...identities.figures, ...tokens.figures],
      curves: [...pods.curves, ...identities.curves, ...tokens.curves],
      notes: [
        'Pods and identities: CPU of the whole agent for a request over that of the bare control ' +
          'in the same rounds, 16 kept connections; one binding for each identity. Tokens: the ' +
          "agent's cache alone, filled without an upstream, since the agent keeps within what the " +
          'real services allow (20 and 40 a second).',
      ],
    };
  },
};

interface Grown {
  readonly figures: readonly Figure[];
  readonly curves: readonly Curve[];
}

async function measureSteps(
  context: Context,
  what: string,
  steps: readonly Step[],
): Promise<Grown> {
  const cost: [number, number][] = [];
  const resident: [number, number][] = [];
  const own: [number, number][] = [];
  for (const { count, size } of steps) {
    const measured = await measureStep(context, size);
    cost.push([count, measured.cpuRatio]);
    resident.push([count, measured.rssMb]);
    own.push([count, measured.privateMb]);
    context.say(`${count} ${what}: ${measured.cpuRatio.toFixed(2)} × the control`);
  }
  const perObjectKb = slopeOf(own) * 1024;
  return {
    figures: [
      { name: `cost at the most ${what}`, unit: '× that at the fewest', values: [ends(cost)] },
      { name: `private memory for each of the ${what}`, unit: 'KB', values: [perObjectKb] },
    ],
    curves: [
      curve(`CPU of a hit by ${what}`, what, '× node:http', [{ name: 'agent', points: cost }]),
      curve(`Memory by ${what}`, what, 'MB', [
        { name: 'resident', points: resident },
        { name: 'private', points: own },
      ]),
    ],
  };
}

async function measureStep({ options, executable }: Context, size: ClusterSize) {
  await using stack = new AsyncDisposableStack();
  const { agentFlags, roundMs } = options;
  const stand = stack.use(await openStand({ executable, agentFlags, size }));
  const { host, port, agent } = stand;
  const pids = [agent.pid];
  const [ours, bare] = await measureRounds({
    subjects: [
      { name: subjects.agent, host, port, pids, callers: [callerOf(stand.pods[0])] },
      await openControl(subjects.nodeHttp, await bodyBytesOf(stand), stack),
    ],
    ...{ shapes: [shapes.sixteen], rounds: 3, roundMs: Math.min(roundMs, 700) },
    say: () => undefined,
  });
  if (ours === undefined || bare === undefined) throw new TypeError('no rounds');
  const cpuRatio = median(measures.cpuMs(ours)) / median(measures.cpuMs(bare));
  return { cpuRatio, ...memoryOf(agent.pid) };
}

async function measureTokens({ say }: Context): Promise<Grown> {
  const cost: [number, number][] = [];
  const heap: [number, number][] = [];
  for (const count of tokenSteps) {
    const before = process.memoryUsage();
    const { cache, keys } = await fillCache(count);
    using _closed = cache;
    cost.push([count, timeHits(cache, keys)]);
    const after = process.memoryUsage();
    heap.push([count, (after.rss - before.rss) / 2 ** 20]);
    say(`${count} tokens: ${Math.round(cost.at(-1)?.[1] ?? 0)} ns`);
  }
  const perTokenKb = slopeOf(heap) * 1024;
  return {
    figures: [
      { name: 'cost at the most tokens', unit: '× that at the fewest', values: [ends(cost)] },
      { name: 'resident memory for each of the tokens', unit: 'KB', values: [perTokenKb] },
    ],
    curves: [
      curve('Look-up and rendering by tokens', 'tokens', 'ns', [{ name: 'cache', points: cost }]),
    ],
  };
}

/** The last over the first. */
function ends(points: readonly (readonly [number, number])[]): number {
  return (points.at(-1)?.[1] ?? NaN) / (points[0]?.[1] ?? NaN);
}

function curve(name: string, xLabel: string, yLabel: string, lines: readonly CurveLine[]): Curve {
  return { name, xLabel, yLabel, xScale: 'log', lines };
}
