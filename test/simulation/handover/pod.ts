/** A pod of two containers, as a kubelet runs it. */
import { startAgent, startHolder, type Defect, type Place } from './programs.ts';
import type { Program, World } from './world.ts';

export const roles = ['holder', 'agent'] as const;
export type Role = (typeof roles)[number];

/** The first restart is at once; the kubelet doubles the pause each time, here up to 40 s. */
const backOffsMs = [0, 10_000, 20_000, 40_000] as const;
/** Until the kubelet has noticed the end, and has started the container again. */
const kubeletMs = 1_000;
const graceMs = 30_000;
/** Of the chart's readiness probes, with the default threshold of Kubernetes. */
const probes = { periodMs: 5_000, failures: 3 } as const;
/** Of the supervisor of each process, src/redirect/native/supervise.c. */
const supervisor = { firstPauseMs: 100, windowMs: 600_000, maxFailures: 5 } as const;

export class Pod implements Place {
  readonly name: string;
  readonly agentsPath: string;
  readonly #world: World;
  readonly containers: Readonly<Record<Role, Container>>;
  readonly version: number;
  readonly defect: Defect | undefined;
  isEnding = false;
  /** As the kubelet reports it, which sees a start of readiness at once here. */
  isAvailable = false;
  startedMs = 0;
  #readyMs: number | undefined;

  constructor(world: World, name: string, version = 1, defect?: Defect) {
    this.#world = world;
    this.name = name;
    this.version = version;
    this.defect = defect;
    this.agentsPath = `/${name}/listener.sock`;
    this.containers = {
      holder: new Container(world, this, 'holder'),
      agent: new Container(world, this, 'agent'),
    };
  }

  start(): void {
    const { name, version, defect } = this;
    this.#world.tell(
      `start ${name} of version ${version}${defect === undefined ? '' : `, ${defect}`}`,
    );
    for (const role of roles) this.containers[role].startAfter(0);
    this.startedMs = this.#world.nowMs;
    this.#probe(0);
  }

  isAgentRunning(): boolean {
    const { program } = this.containers.agent;
    return program?.isStarted === true && program.process.isAlive;
  }

  get isWhole(): boolean {
    return roles.every((role) => this.containers[role].isUp);
  }

  get isReady(): boolean {
    return !this.isEnding && this.problem === undefined;
  }

  /** Why it is not ready. */
  get problem(): string | undefined {
    const { holder, agent } = this.containers;
    if (holder.program?.isReady !== true || agent.program?.isReady !== true) {
      return 'a container is not ready';
    }
    return holder.program.problem();
  }

  get wasReady(): boolean {
    return this.#readyMs !== undefined;
  }

  get unreadyMs(): number {
    return this.#world.nowMs - (this.#readyMs ?? -Infinity);
  }

  /** After each event. */
  noteReadiness(): void {
    if (!this.isReady) return;
    this.#readyMs = this.#world.nowMs;
    this.isAvailable = true;
  }

  #probe(failures: number): void {
    this.#world.machine.scheduler.schedule(probes.periodMs, undefined, 'probe', () => {
      if (this.isEnding) return;
      const now = this.isReady ? 0 : failures + 1;
      if (now >= probes.failures) this.isAvailable = false;
      this.#probe(now);
    });
  }

  /** SIGTERM, and SIGKILL after the grace period. */
  async stop(): Promise<void> {
    this.isEnding = true;
    this.#world.disturb(`SIGTERM ${this.name}`);
    const { scheduler } = this.#world.machine;
    const order = scheduler.random() < 0.5 ? roles : roles.toReversed();
    for (const role of order) {
      this.containers[role].program?.stop();
      await scheduler.sleep(scheduler.random() * 20);
    }
    const cancel = scheduler.schedule(graceMs, undefined, 'grace', () => this.kill());
    await Promise.all(roles.map((role) => this.containers[role].ended()));
    cancel();
  }

  kill(): void {
    this.isEnding = true;
    this.#world.disturb(`SIGKILL ${this.name}`);
    for (const role of roles) this.containers[role].program?.process.end();
  }
}

export class Container {
  readonly #world: World;
  readonly #pod: Pod;
  readonly #role: Role;
  program: Program | undefined;
  #restarts = 0;
  /** Times of the failures within the window of the supervisor. */
  #failures: readonly number[] = [];
  /** The container ends with its process, without the supervisor. */
  #isEnding = false;

  constructor(world: World, pod: Pod, role: Role) {
    this.#world = world;
    this.#pod = pod;
    this.#role = role;
  }

  get isUp(): boolean {
    return this.program?.isStarted === true && !this.program.isStopping;
  }

  get name(): string {
    return `${this.#pod.name}-${this.#role}`;
  }

  startAfter(delayMs: number): void {
    const { scheduler } = this.#world.machine;
    scheduler.schedule(delayMs + scheduler.random() * kubeletMs, undefined, 'kubelet', () => {
      if (!this.#pod.isEnding) this.#start();
    });
  }

  /** Only its process: its supervisor notices that first. */
  crash(): void {
    if (this.program === undefined) return;
    this.#world.disturb(`SIGKILL the process of ${this.name}`);
    this.program.process.end();
  }

  kill(): void {
    if (this.program === undefined) return;
    this.#isEnding = true;
    this.#world.disturb(`SIGKILL ${this.name}`);
    this.program.process.end();
  }

  terminate(): void {
    if (this.program === undefined) return;
    this.#isEnding = true;
    this.#world.disturb(`SIGTERM ${this.name}`);
    this.program.stop();
  }

  async ended(): Promise<void> {
    await this.program?.process.exited;
  }

  #start(): void {
    this.#isEnding = false;
    const start = this.#role === 'holder' ? startHolder : startAgent;
    const program = start(this.#world, this.name, this.#pod);
    this.program = program;
    void program.process.exited.then(() => this.#restart());
  }

  #restart(): void {
    this.program = undefined;
    if (this.#pod.isEnding) return;
    const now = this.#world.nowMs;
    this.#failures = [...this.#failures, now].filter((each) => now - each < supervisor.windowMs);
    const count = this.#failures.length;
    if (!this.#isEnding && count < supervisor.maxFailures) {
      const pauseMs = supervisor.firstPauseMs * 2 ** (count - 1);
      this.#world.machine.scheduler.schedule(pauseMs, undefined, 'supervisor', () => {
        if (!this.#pod.isEnding) this.#start();
      });
      return;
    }
    this.#failures = [];
    const backOffMs = backOffsMs[Math.min(this.#restarts, backOffsMs.length - 1)] ?? 0;
    this.#restarts += 1;
    this.#world.tell(`${this.name} is down for ${backOffMs} ms`);
    this.startAfter(backOffMs);
  }
}
