/** One order by seed of starts, ends and crashes of up to three pods of a simulated node. */
import { Chance } from '../../process/chaos/chance.ts';
import type { Code } from '../load.ts';
import type { Defect } from './programs.ts';
import { Pod, roles, type Container, type Role } from './pod.ts';
import { address, handoverPath, recoveryMs, repairMs, World, type Figures } from './world.ts';

export interface Outcome extends Figures {
  readonly seed: number;
  readonly failure: string | undefined;
  /** From the last disturbance until all pods were ready. */
  readonly recoveryMs: number;
  readonly events: number;
  readonly virtualMs: number;
  /** Of all events. */
  readonly hash: string;
  readonly story: readonly string[];
}

const maxPods = 3;
/** A pod that was started just now is not available yet. */
const usualStartMs = 30_000;
const usual = {
  start: 3,
  update: 1.5,
  undo: 1.5,
  release: 0.5,
  stop: 2,
  kill: 1.5,
  crash: 2,
  killContainers: 4,
  crashLoop: 1.5,
  terminate: 1.5,
  stall: 1,
};

/** How often a step of each kind comes. */
export type Weights = Partial<typeof usual>;

export async function runOrder(code: Code, seed: number, weights: Weights = {}): Promise<Outcome> {
  const chance = new Chance(seed);
  const paceMs = chance.pick([1, 4, 30, 200]);
  const world = new World(code, seed, paceMs);
  world.tell(`events are late by up to ${paceMs} ms`);
  const order = new Order(world, chance, { ...usual, ...weights }, chance.happens(0.25));
  let problem: string | undefined;
  try {
    await world.machine.scheduler.run(
      () => order.run(),
      () => world.check(),
    );
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
  }
  const { count, hash, nowMs } = world.machine.scheduler;
  return {
    ...world.figures,
    seed,
    failure: problem,
    recoveryMs: order.recoveryMs,
    events: count,
    virtualMs: nowMs,
    hash,
    story: world.story,
  };
}

class Order {
  readonly #world: World;
  readonly #chance: Chance;
  readonly #weights: typeof usual;
  /** Nothing is killed, and no pod is ended before another one is ready. */
  readonly #isGentle: boolean;
  readonly #pods = new Set<Pod>();
  readonly #work = new Set<Promise<void>>();
  #made = 0;
  recoveryMs = 0;

  constructor(world: World, chance: Chance, weights: typeof usual, isGentle: boolean) {
    this.#world = world;
    this.#chance = chance;
    this.#weights = weights;
    this.#isGentle = isGentle;
    world.isAnyPodWhole = () => this.#sound().some(({ isWhole }) => isWhole);
    world.isCalm = () => this.#isCalm();
    world.unreadiness = () => this.#unreadiness(({ unreadyMs }) => unreadyMs > repairMs);
    world.lostReadiness = () => this.#lostReadiness();
  }

  async run(): Promise<void> {
    const { files, addresses } = this.#world.machine;
    // Else the first holder brings it up, as after a reboot.
    if (this.#chance.happens(0.7)) addresses.add(address.ip);
    files.make('/host', { number: 0, name: 'the node' }, 0o700);
    this.#start();
    if (this.#isGentle) {
      await this.#untilReady(recoveryMs * 2);
      this.#world.mustAnswer = true;
    }
    const steps = this.#chance.between(3, 11);
    for (let step = 0; step < steps; step += 1) {
      await this.#pause();
      if (this.#isGentle) await this.#gentleStep();
      else await this.#step();
    }
    await this.#recover();
    await this.#pause();
    await this.#update();
  }

  async #step(): Promise<void> {
    const pod = this.#chance.pick([...this.#pods]);
    const several = this.#pods.size > 1;
    const kind = this.#chance.name(this.#weights);
    if (kind === 'start' && this.#pods.size < maxPods) this.#start();
    else if (kind === 'update' && this.#pods.size < maxPods) await this.#updateOne();
    else if (kind === 'undo' && this.#pods.size < maxPods) await this.#undo();
    else if (kind === 'release' && this.#pods.size < maxPods) await this.#release();
    else if (kind === 'stop' && several) this.#stop(pod);
    else if (kind === 'kill' && several) this.#kill(pod);
    else if (kind === 'stall') this.#stall(pod);
    else if (kind === 'crashLoop') await this.#crashLoop(pod.containers[this.#chance.pick(roles)]);
    else if (kind === 'terminate') pod.containers[this.#chance.pick(roles)].terminate();
    else if (kind === 'crash') for (const role of this.#hit()) pod.containers[role].crash();
    else for (const role of this.#hit()) pod.containers[role].kill();
  }

  async #gentleStep(): Promise<void> {
    const usually = { start: 2, update: 2, undo: 2, release: 1, stop: 2, stall: 1 };
    const kind = this.#chance.name(usually);
    const pod = this.#chance.pick([...this.#pods]);
    const isSpare = [...this.#pods].some((other) => other !== pod && other.isReady);
    if (kind === 'start' && this.#pods.size < maxPods) this.#start();
    else if (kind === 'update' && this.#pods.size < maxPods) await this.#updateOne();
    else if (kind === 'undo' && this.#pods.size < maxPods) await this.#undo();
    else if (kind === 'release' && this.#pods.size < maxPods) await this.#release();
    else if (kind === 'stop' && isSpare) this.#stop(pod);
    else this.#stall(pod);
  }

  #hit(): readonly Role[] {
    return this.#chance.pick([['holder'], ['agent'], roles] as const);
  }

  #start(defect?: Defect): Pod {
    const version = this.#chance.pick([1, 1, 2]);
    const pod = new Pod(this.#world, `pod${(this.#made += 1)}`, version, defect);
    this.#world.machine.files.make(`/${pod.name}`, { number: 0, name: 'the kubelet' }, 0o755);
    this.#pods.add(pod);
    pod.start();
    return pod;
  }

  #stop(pod: Pod): void {
    this.#pods.delete(pod);
    const work = pod.stop().finally(() => this.#work.delete(work));
    this.#work.add(work);
  }

  #kill(pod: Pod): void {
    this.#pods.delete(pod);
    pod.kill();
  }

  /** Of one of its processes, by a busy machine. */
  #stall(pod: Pod): void {
    const process = pod.containers[this.#chance.pick(roles)].program?.process;
    if (process === undefined) return;
    const forMs = this.#chance.between(50, 800);
    this.#world.tell(`${process.name} does not run for ${forMs} ms`);
    process.stalledUntilMs = this.#world.nowMs + forMs;
  }

  /** Readiness first, then the end of an old pod. */
  async #updateOne(): Promise<void> {
    const old = this.#chance.pick([...this.#pods]);
    const next = this.#start();
    const isOver = await this.#until(() => next.isReady || !this.#pods.has(old), recoveryMs);
    if (isOver && this.#pods.has(old)) this.#stop(old);
  }

  /** A new pod that is ended again, ready or not. */
  async #undo(): Promise<void> {
    const next = this.#start();
    await this.#until(() => next.isReady, this.#chance.between(0, 5_000));
    if (this.#pods.has(next)) this.#stop(next);
  }

  /** A new pod that is not ready for long, or never. Kubernetes ends an old pod that is not available beside it. */
  async #release(): Promise<void> {
    const defects: readonly Defect[] = ['cannot start', 'silent API server'];
    const old = [...this.#pods];
    const next = this.#start(this.#chance.pick(this.#isGentle ? [...defects, 'slow'] : defects));
    const isOver = (): boolean => {
      for (const pod of old) {
        const isSpent = this.#isGentle && this.#pods.has(pod) && !pod.isAvailable;
        if (isSpent && this.#world.nowMs - pod.startedMs > usualStartMs) this.#stop(pod);
      }
      return next.isReady;
    };
    const isReady = await this.#until(isOver, this.#chance.between(10_000, 180_000));
    if (!isReady && this.#pods.has(next)) this.#stop(next);
  }

  /** Until the kubelet waits before it starts the container again. */
  async #crashLoop(container: Container): Promise<void> {
    for (let kills = this.#chance.between(2, 4); kills > 0; kills -= 1) {
      if (!(await this.#until(() => container.isUp, 3_000))) return;
      container.kill();
    }
  }

  /** No back-off is running any more, and what was ended is gone. */
  #isCalm(): boolean {
    return this.#work.size === 0 && this.#sound().every(({ isWhole }) => isWhole);
  }

  /** Pods that are expected to be ready. */
  #sound(): readonly Pod[] {
    return [...this.#pods].filter(({ defect, isReady }) => defect === undefined || isReady);
  }

  async #calm(): Promise<void> {
    while (!this.#isCalm()) await this.#world.machine.scheduler.sleep(50);
  }

  async #recover(): Promise<void> {
    await this.#calm();
    const world = this.#world;
    // Since a long time, perhaps: that it came in time was checked then.
    if (this.#unreadiness() === '') return;
    await this.#untilReady(recoveryMs - world.sinceDisturbedMs);
    this.recoveryMs = world.sinceDisturbedMs;
    world.tell('all are ready');
  }

  async #untilReady(maxMs: number): Promise<void> {
    const world = this.#world;
    if (!(await this.#until(() => this.#unreadiness() === '', maxMs)))
      world.fail(this.#unreadiness());
  }

  /** What is still missing when no pod is ending, starting or in a back-off. */
  #unreadiness(isUnready = ({ isReady }: Pod) => !isReady): string {
    const unready = this.#sound().filter(isUnready);
    const writers = this.#world.writers();
    return [
      ...unready.map(({ name, problem = '' }) => `${name} is not ready: ${problem}`),
      ...(writers === 1 ? [] : [`${writers} holders change the kernel`]),
    ].join(', ');
  }

  #lostReadiness(): string {
    for (const pod of this.#pods) {
      pod.noteReadiness();
      if (this.#isGentle && pod.wasReady && pod.unreadyMs > repairMs)
        return `${pod.name} is no longer ready, though nothing was done to it: ${pod.problem ?? ''}`;
    }
    return '';
  }

  /** An update refuses no connection, and afterwards only the last pod has the socket. */
  async #update(): Promise<void> {
    const world = this.#world;
    world.mustAnswer = true;
    world.tell('last update');
    const before = [...this.#pods];
    const last = this.#start();
    await this.#calm();
    await this.#untilReady(recoveryMs);
    for (const pod of before) this.#stop(pod);
    await this.#calm();
    await this.#untilReady(recoveryMs);
    // Until the next check of the redirect.
    await world.machine.scheduler.sleep(12_000);
    const { version, exempt } = world.kernel;
    if (version !== last.version) world.fail(`programs of version ${String(version)}`);
    if ([...exempt].join() !== last.name) world.fail(`exempt are ${[...exempt].join()}`);
    const holder = last.containers.holder.program?.process;
    const agent = last.containers.agent.program?.process;
    // The holder has the socket and its agent's connection; the agent has these, and accepts from a copy.
    const open = [holder?.openDescriptors, agent?.openDescriptors].join();
    if (open !== '2,3') world.fail(`holder and agent have open descriptors: ${open}`);
    const { owner, listener } = world.machine.files.find(handoverPath);
    if (owner !== holder || listener?.isOpen !== true) world.fail(`the path is ${owner.name}’s`);
    if (!world.machine.isListening(address.ip, address.port)) world.fail('nobody listens');
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
