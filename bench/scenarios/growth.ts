import { subjects } from '../core/results.ts';
import { median, ratiosOf } from '../core/statistics.ts';
import { memoryOf } from '../machine/memory.ts';
import { measures } from '../report/markdown.ts';
import { openControl } from '../fixture/controls.ts';
import type { ClusterSize } from '../fixture/objects.ts';
import type { Caller } from '../load/plan.ts';
import { measureRounds, shapes } from '../fixture/rounds.ts';
import { runLoad } from '../fixture/run-load.ts';
import { addSecretIdentity } from '../fixture/secret-identity.ts';
import { bodyBytesOf, callerOf, openFixture, tokenPath, type Fixture } from '../fixture/fixture.ts';
import { measureCache } from './growth-of-cache.ts';
import { curve, ends, perObject, type Grown } from './grown.ts';
import type { Context, Scenario } from './scenario.ts';

interface Step {
  readonly count: number;
  readonly size: ClusterSize;
}

const podSteps: readonly Step[] = [10, 100, 300, 1_000].map((pods) => ({
  count: pods,
  size: { pods, identities: 500, bindings: 1_000 },
}));
const identitySteps: readonly Step[] = [10, 100, 1_000, 10_000, 100_000].map((identities) => ({
  count: identities,
  size: { pods: 250, identities, bindings: identities },
}));
/** More would take long to fetch: the agent respects the rate limits of the real services. */
const tokenSteps = [1, 30, 500];
/** The agent caches 200 tokens per identity: a cycle through more never gets a cache hit. */
const tokensOfOne = 125;

export const growth: Scenario = {
  name: 'growth',
  title: 'What a hit costs, and memory, as pods, identities and tokens become more',
  isQuick: false,
  run: async (context) => {
    const pods = await measureSteps(context, 'pods', podSteps);
    const identities = await measureSteps(context, 'identities', identitySteps);
    const all = [pods, identities, await measureTokens(context), await measureCache(context)];
    return {
      figures: all.flatMap(({ figures }) => figures),
      curves: all.flatMap(({ curves }) => curves),
      notes: [
        'CPU of the whole agent for a request over that of the bare control in the same rounds, 16 ' +
          'kept connections; one binding for each identity. With many tokens each connection asks ' +
          `for all those of one identity in turn, ${tokensOfOne} at most. The agent fetches 20 and 40 tokens a second at most, as the ` +
          "real services allow, so the curve up to 50,000 is of the agent's cache in a process of " +
          'its own: what it takes longer there is added to a hit, of which it is a small part. Memory ' +
          'is of the moment after the load, as "right after full load" of the scenario memory.',
      ],
    };
  },
};

async function measureSteps(
  context: Context,
  what: string,
  steps: readonly Step[],
): Promise<Grown> {
  const cost: (readonly number[])[] = [];
  const points: [number, number][] = [];
  const resident: [number, number][] = [];
  const own: [number, number][] = [];
  for (const { count, size } of steps) {
    const measured = await measureStep(context, size);
    cost.push(measured.cpuRatios);
    points.push([count, median(measured.cpuRatios)]);
    resident.push([count, measured.rssMb]);
    own.push([count, measured.privateMb]);
    context.say(`${count} ${what}: ${median(measured.cpuRatios).toFixed(2)} × the control`);
  }
  return {
    figures: [
      { name: `cost at the most ${what}`, unit: '× that at the fewest', values: ends(cost) },
      ...perObject(`private memory for each of the ${what}`, own),
    ],
    curves: [
      curve(`CPU of a hit by ${what}`, what, '× node:http', [{ name: 'agent', points }]),
      curve(`Memory by ${what}`, what, 'MB', [
        { name: 'resident', points: resident },
        { name: 'private', points: own },
      ]),
    ],
  };
}

async function measureStep(context: Context, size: ClusterSize): Promise<Measured> {
  await using stack = new AsyncDisposableStack();
  const { agentFlags } = context.options;
  const { executable } = context;
  const fixture = stack.use(await openFixture({ executable, agentFlags, size }));
  return await measureHits(context, fixture, [callerOf(fixture.pods[0])], stack);
}

interface Measured {
  /** Ratio of the agent's CPU time to the control's, by round. */
  readonly cpuRatios: readonly number[];
  readonly rssMb: number;
  readonly privateMb: number;
}

async function measureHits(
  { options }: Context,
  fixture: Fixture,
  callers: readonly Caller[],
  stack: AsyncDisposableStack,
): Promise<Measured> {
  const { host, port, agent } = fixture;
  const [ours, bare] = await measureRounds({
    subjects: [
      { name: subjects.agent, host, port, pids: [agent.pid], callers },
      await openControl(subjects.nodeHttp, await bodyBytesOf(fixture), stack),
    ],
    shapes: [shapes.sixteen],
    rounds: 3,
    roundMs: Math.min(options.roundMs, 700),
    say: () => undefined,
  });
  if (ours === undefined || bare === undefined) throw new TypeError('no rounds');
  const cpuRatios = ratiosOf(measures.cpuMs(ours), measures.cpuMs(bare));
  return { cpuRatios, ...memoryOf(agent.pid) };
}

/** Through the agent, each connection cycles through all tokens of one identity. */
async function measureTokens(context: Context): Promise<Grown> {
  await using stack = new AsyncDisposableStack();
  const { executable, options } = context;
  const { agentFlags } = options;
  const size = { pods: 250, identities: 500, bindings: 1_000 };
  const fixture = stack.use(await openFixture({ executable, agentFlags, size }));
  const { entra } = fixture.around;
  const cost: (readonly number[])[] = [];
  const points: [number, number][] = [];
  for (const count of tokenSteps) {
    const identities = Math.ceil(count / tokensOfOne);
    const callers = Array.from({ length: identities }, (_, index): Caller => {
      const { clientId, name } = addSecretIdentity(fixture.around, `tokens-${count}-${index}`);
      const target = `${tokenPath}&resource=https://r-{n}.example&client_id=${clientId}`;
      const expect = { kind: 'identity', name } as const;
      return { ...callerOf(fixture.pods[0], target), count: count / identities, expect };
    });
    for (const caller of callers) await fetchAll(fixture, caller);
    const fetched = entra.requests().length;
    const measured = await measureHits(context, fixture, callers, stack);
    if (entra.requests().length > fetched) throw new Error('not all tokens were in memory');
    cost.push(measured.cpuRatios);
    points.push([count, median(measured.cpuRatios)]);
    context.say(`${count} tokens: ${median(measured.cpuRatios).toFixed(2)} × the control`);
  }
  return {
    figures: [
      { name: 'cost at the most tokens', unit: '× that at the fewest', values: ends(cost) },
    ],
    curves: [curve('CPU of a hit by tokens', 'tokens', '× node:http', [{ name: 'agent', points }])],
  };
}

/** Requests each token once, no faster than the agent may fetch them. */
async function fetchAll({ host, port }: Fixture, caller: Caller): Promise<void> {
  const ratePerSec = 30;
  const filled = await runLoad({
    host,
    port,
    connections: 1,
    kind: 'keep',
    ratePerSec,
    callers: [caller],
    warmUpMs: 0,
    measuredMs: (((caller.count ?? 1) + 2) / ratePerSec) * 1000,
    serverPids: [],
  });
  if (filled.failures > 0) throw new Error(filled.firstFailure ?? 'a token is missing');
}
