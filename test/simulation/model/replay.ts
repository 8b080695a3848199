/**
 * Replays the traces of the model of the hand-over against the code: after each step from outside, the code on
 * the simulated machine must come to rest in a state in which the model may rest, too.
 */
import { Pod } from '../handover/pod.ts';
import { handoverPath, recoveryMs, repairMs, World } from '../handover/world.ts';
import type { Code } from '../load.ts';
import { rests, type Machine } from './explore.ts';
import type { HandoverState } from './handover.ts';

/** What the model and the code can be compared by. */
function factsOf({ path, pods }: HandoverState): string {
  const serving = pods.flatMap(({ agent }, index) => (agent === 'serves' ? [index] : []));
  const having = pods.flatMap(({ holderHas }, index) => (holderHas ? [index] : []));
  return `path ${path}, agents ${serving.join()} serve, holders ${having.join()} have the socket`;
}

/** All that may be done from outside, one step after another has come to rest. */
export function traces(
  machine: Machine<HandoverState>,
  longest: number,
): readonly (readonly string[])[] {
  const found: string[][] = [];
  const extend = (trace: string[]): void => {
    const states = rests(machine, trace);
    const names = new Set(
      states.flatMap((state) =>
        [...machine.steps(state)].filter(({ isOutside }) => isOutside).map(({ name }) => name),
      ),
    );
    if (trace.length === longest || names.size === 0) found.push(trace);
    else for (const name of names) extend([...trace, name]);
  };
  extend([]);
  return found;
}

/** @returns where the code differs from the model, or undefined. */
export async function replay(
  code: Code,
  machine: Machine<HandoverState>,
  trace: readonly string[],
  { last, seed }: { readonly last: 'at rest' | 'at once'; readonly seed: number },
): Promise<string | undefined> {
  const world = new World(code, seed, 4);
  const pods: Pod[] = [];
  const running = (): readonly Pod[] => pods.filter(({ isEnding }) => !isEnding);
  world.isAnyPodWhole = () => running().some(({ isWhole }) => isWhole);
  world.machine.files.make('/host', { number: 0, name: 'the node' }, 0o700);
  const run = async (): Promise<string | undefined> => {
    for (const [index, step] of trace.entries()) {
      await act(world, pods, step);
      if (last === 'at once' && index === trace.length - 2) {
        await world.machine.scheduler.sleep(world.machine.scheduler.random() * 2_500);
        continue;
      }
      if (!(await isAtRest(world, running))) return `${step}: it does not come to rest`;
      const actual = seen(world, pods);
      const expected = rests(machine, trace.slice(0, index + 1), last).map(factsOf);
      if (!expected.includes(actual)) {
        return `${trace.slice(0, index + 1).join(', ')}: ${actual}, not ${[...new Set(expected)].join(' or ')}`;
      }
    }
    return undefined;
  };
  return world.machine.scheduler.run(run, () => world.check());
}

async function act(world: World, pods: Pod[], step: string): Promise<void> {
  const [, kind = '', role = '', number = '0'] =
    /^(start|end|crash) ?(holder|agent)? (\d)$/.exec(step) ?? [];
  const at = Number(number);
  if (kind === 'start') {
    const pod = new Pod(world, `pod${at}`);
    pods[at] = pod;
    world.machine.files.make(`/${pod.name}`, { number: 0, name: 'the kubelet' }, 0o755);
    pod.start();
  } else if (kind === 'end') await pods[at]?.stop();
  else pods[at]?.containers[role === 'holder' ? 'holder' : 'agent'].kill();
}

/** All are ready, and what holders look at from time to time has been looked at. */
async function isAtRest(world: World, running: () => readonly Pod[]): Promise<boolean> {
  const { scheduler } = world.machine;
  await scheduler.sleep(100);
  while (!running().every(({ isReady }) => isReady)) {
    // The kubelet's pause before it starts a container again does not count.
    const isWhole = running().every((pod) => pod.isWhole);
    if (isWhole && world.sinceDisturbedMs > recoveryMs) return false;
    await scheduler.sleep(50);
  }
  await scheduler.sleep(recoveryMs);
  // The check of the redirect may just be removing what an ended pod left.
  if (!running().every(({ isReady }) => isReady)) await scheduler.sleep(repairMs);
  return running().every(({ isReady }) => isReady);
}

function seen(world: World, pods: readonly Pod[]): string {
  const { owner } = world.machine.files.find(handoverPath);
  const path = pods.findIndex(({ containers }) => containers.holder.program?.process === owner);
  const all = [...pods.entries()];
  const serving = all.filter(
    ([, { containers }]) => containers.agent.program?.isAccepting === true,
  );
  const having = all.filter(
    ([, { containers }]) => containers.holder.program?.process.listens === true,
  );
  const names = (of: typeof all): string => of.map(([index]) => index).join();
  return `path ${path}, agents ${names(serving)} serve, holders ${names(having)} have the socket`;
}
