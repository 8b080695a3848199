/** One run by a seed: a cluster comes up, things happen to it, and after the last one all are served. */
import { setImmediate as turn } from 'node:timers/promises';
import { inspect } from 'node:util';
import { Chance } from './chance.ts';
import { afterImmediates } from './scheduler.ts';
import { act } from './actions.ts';
import { bounds, calmAfterMs } from './pod-client.ts';
import { planOf, type Action } from './plan.ts';
import { Workload } from './workload.ts';
import { livenessMs } from './limits.ts';
import { World, type Loaded } from './world.ts';

export interface Outcome {
  readonly seed: number;
  readonly failure: string | undefined;
  readonly hash: string;
  readonly events: number;
  readonly virtualMs: number;
  readonly answers: number;
  readonly tokens: number;
  readonly plan: readonly Action[];
  readonly story: readonly string[];
  readonly pairs: ReadonlyMap<string, number>;
}

const bootMs = 60_000;

/** @param plan default: that of the seed. */
export async function runSeed(
  loaded: Loaded,
  seed: number,
  plan: readonly Action[] = planOf(seed),
): Promise<Outcome> {
  const chance = new Chance(seed);
  const world = new World(loaded, seed, chance.pick([1, 3, 15, 60]));
  let problem: string | undefined;
  using _caught = catchAll((error) => world.break(`nobody handled: ${inspect(error)}`));
  try {
    await world.scheduler.run(
      () => live(world, plan, chance),
      () => world.check(),
      afterImmediates,
    );
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
  }
  world.end();
  await turn();
  const { count, hash, nowMs } = world.scheduler;
  const { answers, tokens, story, pairs } = world;
  return {
    seed,
    failure: problem,
    hash,
    events: count,
    virtualMs: nowMs,
    answers,
    tokens,
    plan,
    story,
    pairs,
  };
}

/** What would have ended a process of the agent. The listeners of a test runner do not get it. */
function catchAll(listener: (error: unknown) => void): Disposable {
  const events = ['unhandledRejection', 'uncaughtException'];
  const before = events.map((event) => process.rawListeners(event));
  const replace = (event: string, listeners: readonly Function[]): void => {
    process.removeAllListeners(event);
    for (const each of listeners) process.on(event, each as () => void);
  };
  for (const event of events) replace(event, [listener]);
  return {
    [Symbol.dispose]: () => {
      for (const [index, event] of events.entries()) replace(event, before[index] ?? []);
    },
  };
}

async function live(world: World, plan: readonly Action[], chance: Chance): Promise<void> {
  await world.open();
  const lifetimeMs = chance.pick([86_400_000, 330_000, 60_000, 6_000]);
  world.cloud.imds.setTokenLifetime(lifetimeMs);
  world.tell(`tokens live for ${lifetimeMs / 1_000} s`);
  const workload = new Workload(world);
  workload.begin();
  for (const node of world.nodes) node.startAgent();
  if (chance.happens(0.5)) world.conditions.start();
  await until(world, bootMs, () => missing(world, workload, 0));
  world.tell('all are served');
  const beganMs = world.nowMs;
  for (const action of plan) {
    await world.scheduler.sleep(Math.max(0, beganMs + action.atMs - world.nowMs));
    act(world, workload, action);
  }
  await recover(world, workload);
  if (chance.happens(0.15)) await revokeInCalm(world, workload, chance);
}

/** The last fault has ended: everybody is answered within the time for it, and those with a right get a token. */
async function recover(world: World, workload: Workload): Promise<void> {
  world.tell('no more is done');
  while (world.faultUntilMs > world.nowMs) {
    await world.scheduler.sleep(world.faultUntilMs - world.nowMs + 1);
  }
  // An update that is under way goes on; it ends with one pod or two.
  const calmMs = world.nowMs;
  await until(world, livenessMs, () => missing(world, workload, calmMs));
  world.tell('all are served again');
}

async function revokeInCalm(world: World, workload: Workload, chance: Chance): Promise<void> {
  const namespace = chance.pick(['one', 'two']);
  const label = chance.pick(['web', 'job']);
  const isException = chance.happens(0.5);
  if (isException) workload.setException(namespace, label);
  await world.scheduler.sleep(calmAfterMs + 1_000);
  world.tell(
    `in calm, the ${isException ? 'exception' : 'binding'} ${namespace}/${label} is deleted`,
  );
  if (isException) workload.deleteException(namespace, label);
  else workload.deleteBinding(namespace, label);
  await world.scheduler.sleep(bounds.calmMs + 4_000);
}

/** A kernel that refuses, does so at the next tries, too: these are faults that are yet to come. */
async function until(world: World, maxMs: number, problem: () => string): Promise<void> {
  let sinceMs = world.nowMs;
  while (problem() !== '') {
    sinceMs = Math.max(sinceMs, ...world.nodes.map(({ kernel }) => kernel.refusedMs));
    if (world.nowMs > sinceMs + maxMs)
      throw new Error(`${maxMs / 1_000} s were not enough: ${problem()}`);
    await world.scheduler.sleep(100);
  }
}

function missing(world: World, workload: Workload, sinceMs: number): string {
  for (const node of world.nodes) {
    const problem = node.problem();
    if (problem !== '') return problem;
  }
  for (const client of workload.clients) {
    const { uid } = client.facts;
    const servedMs = world.truth.of(uid).size > 0 ? client.servedMs : client.answeredMs;
    if (servedMs < sinceMs) return `${uid} is not served, but ${client.last}`;
  }
  return '';
}
