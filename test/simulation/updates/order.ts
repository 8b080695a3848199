/** One order by seed of starts, ends and crashes of up to three pods of a simulated node. */
import { Chance } from '../chance.ts';
import { agentIp } from '../kernel.ts';
import type { WholeCode } from '../load.ts';
import { afterImmediates } from '../scheduler.ts';
import { Pod, roles, type Defect } from './pod.ts';
import { recoveryMs, World } from './world.ts';

export interface Outcome {
  readonly seed: number;
  readonly failure: string | undefined;
  readonly longestSilenceMs: number;
  readonly events: number;
  readonly virtualMs: number;
  /** Of all events. */
  readonly hash: string;
  readonly story: readonly string[];
}

const maxPods = 3;
const gentleSteps = { start: 1, update: 3, undo: 2, release: 1.5, stop: 2, stall: 1 };
const steps = { ...gentleSteps, kill: 1.5, crash: 3, killContainers: 4, crashLoop: 1.5, term: 1.5 };
type Step = keyof typeof steps;

export async function runOrder(code: WholeCode, seed: number): Promise<Outcome> {
  const chance = new Chance(seed);
  const paceMs = chance.pick([1, 4, 30, 200]);
  const world = new World(code, seed, paceMs);
  world.tell(`events are late by up to ${paceMs} ms`);
  let failure: string | undefined;
  try {
    const order = new Order(world, chance);
    await world.machine.scheduler.run(
      () => order.run(),
      () => world.check(),
      afterImmediates,
    );
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  }
  const { count: events, hash, nowMs: virtualMs } = world.machine.scheduler;
  for (const pod of world.everyPod) pod.kill();
  const { longestSilenceMs, story } = world;
  return { seed, failure, longestSilenceMs, events, virtualMs, hash, story };
}

class Order {
  readonly #world: World;
  readonly #chance: Chance;
  #made = 0;

  constructor(world: World, chance: Chance) {
    this.#world = world;
    this.#chance = chance;
  }

  async run(): Promise<void> {
    const world = this.#world;
    const isGentle = this.#chance.happens(0.4);
    world.machine.files.make('/host', { number: 0, name: 'the node' }, 0o700);
    this.#start();
    if (isGentle) {
      await this.#untilReady(recoveryMs * 2);
      world.mustAnswer = true;
      world.isGentle = true;
    }
    for (let left = this.#chance.between(3, 11); left > 0; left -= 1) {
      await this.#pause();
      await this.#step(this.#chance.name<Step>(isGentle ? { ...none, ...gentleSteps } : steps));
    }
    await this.#calm();
    await this.#untilReady(recoveryMs - world.sinceDisturbedMs);
    await this.#pause();
    // An installation from before may still change its mind.
    await world.machine.scheduler.sleep(3_000);
    await this.#untilReady(recoveryMs);
    await this.#lastUpdate();
  }

  async #step(step: Step): Promise<void> {
    const { pods, isGentle } = this.#world;
    const pod = this.#chance.pick([...pods]);
    const isSpare = isGentle ? this.#hasOtherReady(pod) : pods.size > 1;
    const role = this.#chance.pick(roles);
    const hit = this.#chance.pick([['redirect'], ['agent'], roles] as const);
    if (step === 'stop' && isSpare) this.#stop(pod);
    else if (step === 'kill' && isSpare) {
      pods.delete(pod);
      pod.kill();
    } else if (step === 'crashLoop') {
      for (let kills = this.#chance.between(2, 4); kills > 0; kills -= 1) {
        if (await this.#until(() => pod.containers[role].isRunning, 3_000))
          pod.containers[role].kill(false);
      }
    } else if (step === 'term') {
      this.#world.disturb(`SIGTERM ${pod.containers[role].name}`);
      pod.containers[role].stop();
    } else if (step === 'crash' || step === 'killContainers') {
      for (const each of hit) pod.containers[each].kill(step === 'crash');
    } else if (step === 'stall') this.#stall(pod);
    else if (pods.size < maxPods) await this.#surge(step);
  }

  /** A new pod beside the old ones, and what comes of it. */
  async #surge(step: Step): Promise<void> {
    const { pods } = this.#world;
    const old = this.#chance.pick([...pods]);
    const defects: readonly Defect[] = ['cannot start', 'silent API server', 'slow'];
    const next = this.#start(step === 'release' ? this.#chance.pick(defects) : undefined);
    if (step === 'start') return;
    const longestMs = { undo: 5_000, release: 180_000 }[step as string];
    const maxMs = longestMs === undefined ? recoveryMs : this.#chance.between(0, longestMs);
    const isReady = await this.#until(() => next.isReady, maxMs);
    if (step === 'undo' || (step === 'release' && !isReady)) {
      if (!this.#world.isGentle || this.#hasOtherReady(next)) this.#stop(next);
    } else if (isReady && pods.has(old)) this.#stop(old);
  }

  #hasOtherReady(pod: Pod): boolean {
    return [...this.#world.pods].some((other) => other !== pod && other.isReady);
  }

  #start(defect?: Defect): Pod {
    const world = this.#world;
    const version = this.#chance.pick([1, 1, 2, 3, 3]);
    const pod = new Pod(world, `pod${(this.#made += 1)}`, version, defect);
    world.machine.files.make(`/${pod.name}`, { number: 0, name: 'the kubelet' }, 0o755);
    world.kernel.addPod(pod.name, '');
    world.add(pod);
    world.disturb(`start ${pod.name} of version ${version} ${defect ?? ''}`);
    for (const role of roles) pod.containers[role].startAfter(this.#chance.between(0, 1_000));
    return pod;
  }

  #stop(pod: Pod): void {
    const { pods, ending } = this.#world;
    if (!pods.delete(pod)) return;
    const work = pod.stop().finally(() => ending.delete(work));
    ending.add(work);
  }

  /** A busy machine does not run one of its processes. */
  #stall(pod: Pod): void {
    const { process, name } = pod.containers[this.#chance.pick(roles)];
    const forMs = this.#chance.between(50, 800);
    this.#world.tell(`${name} does not run for ${forMs} ms`);
    if (process !== undefined) process.stalledUntilMs = this.#world.nowMs + forMs;
  }

  async #calm(): Promise<void> {
    while (!this.#world.isCalm) await this.#world.machine.scheduler.sleep(50);
  }

  async #untilReady(maxMs: number): Promise<void> {
    const world = this.#world;
    if (!(await this.#until(() => world.unreadiness() === '', Math.max(0, maxMs))))
      world.fail(world.unreadiness());
  }

  /** It refuses no connection, and afterwards the redirect is that of the last pod. */
  async #lastUpdate(): Promise<void> {
    const world = this.#world;
    const { pods, machine, kernel } = world;
    world.mustAnswer = true;
    world.tell('last update');
    const kept = [...pods].find(({ isReady }) => isReady);
    for (const pod of [...pods]) if (pod !== kept) this.#stop(pod);
    await this.#calm();
    const last = this.#start();
    await this.#until(() => last.isReady, recoveryMs);
    if (!last.isReady) world.fail(`${last.name} is not ready: ${last.problem ?? ''}`);
    if (kept !== undefined) this.#stop(kept);
    await this.#calm();
    await machine.scheduler.sleep(12_000);
    const cgroup = kernel.cgroupOf(last.name) ?? 0n;
    if (kernel.version !== last.version) world.fail(`programs of version ${kernel.version}`);
    // The id of the one before stays in its note.
    if (!kernel.exempt.has(cgroup) || kernel.exempt.size > 2)
      world.fail(`exempt are ${[...kernel.exempt].join()}, not ${cgroup}`);
    const note = machine.shared.read(`/host/${kernel.port}.json`) ?? '';
    if (!note.includes(`"${last.name}"`)) world.fail(`the redirect points at ${note}`);
    if (!machine.isListening(agentIp, kernel.port)) world.fail('nobody listens');
  }

  async #until(isTrue: () => boolean, maxMs: number): Promise<boolean> {
    const endMs = this.#world.nowMs + maxMs;
    while (!isTrue()) {
      if (this.#world.nowMs > endMs) return false;
      await this.#world.machine.scheduler.sleep(20);
    }
    return true;
  }

  async #pause(): Promise<void> {
    const longestMs = this.#chance.pick([0, 30, 300, 1_500, 1_500, 5_000, 20_000]);
    await this.#world.machine.scheduler.sleep(this.#chance.between(0, longestMs + 1));
  }
}

const none = { kill: 0, crash: 0, killContainers: 0, crashLoop: 0, term: 0 };
