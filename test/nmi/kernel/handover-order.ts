/** One random order of starts, ends and crashes of pods on a node; restarts what the kubelet would. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { Chance } from '../../process/chaos/chance.ts';
import type { OwnTime } from '../../../lab/pods/own-time.ts';
import { ask, startMs, writesKernel, type Child, type Node } from './handover-node.ts';

export interface Order {
  run(): Promise<void>;
  /** @returns milliseconds from the last disturbance until all that run are ready. */
  recover(): Promise<number>;
  /** Starts a last pod, then ends all others. */
  update(): Promise<void>;
  history(): string;
}

const maxPods = 3;
const recoveryMs = 10_000;
const roles = ['holder', 'agent'] as const;
type Role = (typeof roles)[number];

interface Pod {
  readonly name: string;
  readonly containers: Map<Role, Child>;
}

export function openOrder(node: Node, seed: number, time: OwnTime): Order {
  return new RandomOrder(node, seed, time);
}

class RandomOrder implements Order {
  readonly #node: Node;
  readonly #chance: Chance;
  readonly #time: OwnTime;
  readonly #startedMs = performance.now();
  readonly #history: string[] = [];
  readonly #pods = new Set<Pod>();
  /** Every process that was started, with its name. */
  readonly #children: (readonly [string, Child])[] = [];
  readonly #restarts = new Set<Promise<void>>();
  readonly #findings: string[] = [];
  #disturbedMs = 0;
  #made = 0;

  constructor(node: Node, seed: number, time: OwnTime) {
    this.#node = node;
    this.#time = time;
    this.#chance = new Chance(seed);
  }

  async run(): Promise<void> {
    const steps = this.#chance.between(4, 10);
    this.#addPod();
    await this.#untilStarted();
    await this.#pause(1_500);
    for (let step = 0; step < steps; step++) {
      this.#step();
      await this.#untilStarted();
      await this.#pause(this.#chance.happens(0.3) ? 30 : 1_200);
    }
    while (this.#restarts.size > 0) await Promise.all(this.#restarts);
    await this.#untilStarted();
  }

  async recover(): Promise<number> {
    await this.#within(recoveryMs - this.#sinceDisturbed(), () => this.#assertReady());
    // The last check may have begun in time and ended later.
    const recoveredMs = this.#sinceDisturbed();
    assert.ok(recoveredMs <= recoveryMs, `it took ${Math.round(recoveredMs)} ms`);
    return recoveredMs;
  }

  async update(): Promise<void> {
    const before = [...this.#pods];
    const last = this.#addPod();
    await this.#untilStarted();
    await this.#within(recoveryMs, () => this.#assertReady());
    await Promise.all(before.map((pod) => this.#endPod(pod, 'SIGTERM')));
    const agent = last.containers.get('agent');
    await this.#within(recoveryMs, async () => {
      assert.equal(await ask(this.#node.port), String(agent?.pid), 'the last agent answers');
      this.#assertOneWriter();
    });
  }

  history(): string {
    const outputs = this.#children.map(
      ([name, child]) => `--- ${name} (${child.pid})\n${child.output().trim()}`,
    );
    return [...this.#history, ...outputs].join('\n');
  }

  #step(): void {
    const kind = this.#chance.name({ start: 3, stop: 2, kill: 1.5, crash: 4, terminate: 1.5 });
    const pod = this.#chance.pick([...this.#pods]);
    const several = this.#pods.size > 1;
    if (kind === 'start' && this.#pods.size < maxPods) {
      this.#addPod();
    } else if (kind === 'stop' && several) {
      this.#endLater(this.#endPod(pod, 'SIGTERM'));
    } else if (kind === 'kill' && several) {
      this.#endLater(this.#endPod(pod, 'SIGKILL'));
    } else {
      const hit = this.#chance.pick([['holder'], ['agent'], roles] as const);
      const signal = kind === 'terminate' ? 'SIGTERM' : 'SIGKILL';
      for (const role of hit) this.#endLater(this.#restart(pod, role, signal));
    }
  }

  #addPod(): Pod {
    const pod: Pod = { name: `pod${(this.#made += 1)}`, containers: new Map() };
    this.#pods.add(pod);
    for (const role of roles) this.#start(pod, role);
    return pod;
  }

  #start(pod: Pod, role: Role): void {
    const { name, containers } = pod;
    this.#note(`start ${name} ${role}`);
    const child = role === 'holder' ? this.#node.startHolder(name) : this.#node.startAgent(name);
    containers.set(role, child);
    this.#children.push([`${name} ${role}`, child]);
    void child.exited.then((code) => {
      if (code !== undefined && code !== 0) this.#findings.push(`${name} ${role} ended: ${code}`);
    });
  }

  async #restart(pod: Pod, role: Role, signal: NodeJS.Signals): Promise<void> {
    const child = pod.containers.get(role);
    // The container is already down.
    if (child === undefined) return;
    pod.containers.delete(role);
    const downMs = this.#chance.between(0, this.#chance.happens(0.5) ? 100 : 3_000);
    this.#note(`${signal} ${pod.name} ${role}, down for ${downMs} ms`);
    await child.end(signal);
    await delay(downMs);
    if (this.#pods.has(pod)) this.#start(pod, role);
  }

  async #endPod(pod: Pod, signal: NodeJS.Signals): Promise<void> {
    this.#pods.delete(pod);
    this.#note(`${signal} ${pod.name}`);
    await Promise.all([...pod.containers.values()].map((child) => child.end(signal)));
    this.#note(`${pod.name} has ended`);
  }

  #endLater(work: Promise<void>): void {
    const tracked = work.finally(() => this.#restarts.delete(tracked));
    this.#restarts.add(tracked);
  }

  async #assertReady(): Promise<void> {
    assert.deepEqual(this.#findings, []);
    const agents: string[] = [];
    for (const { name, containers } of this.#pods) {
      for (const role of roles) {
        assert.match(containers.get(role)?.output() ?? '', /^ready/m, `${name} ${role} is ready`);
      }
      agents.push(String(containers.get('agent')?.pid));
    }
    const answered = await ask(this.#node.port);
    assert.ok(agents.includes(answered), `answered by ${answered}, not by one of ${agents.join()}`);
    this.#assertOneWriter();
  }

  #assertOneWriter(): void {
    const holders = [...this.#pods].flatMap(({ containers }) => containers.get('holder') ?? []);
    const writers = holders.filter((holder) => writesKernel(holder)).map(({ pid }) => pid);
    assert.equal(writers.length, 1, `holders that write to the kernel: ${writers.join()}`);
  }

  /** A busy machine takes seconds to load the program, which is not the program's time. */
  async #untilStarted(): Promise<void> {
    const running = [...this.#pods].flatMap(({ containers }) => [...containers.values()]);
    const startsOf = running.map(async (child) => {
      if (child.output().startsWith('started')) return;
      await Promise.race([child.until(/^started/, startMs), child.exited]);
      this.#disturbedMs = this.#time.nowMs();
    });
    await Promise.all(startsOf);
  }

  #note(what: string): void {
    this.#disturbedMs = this.#time.nowMs();
    this.#history.push(`${Math.round(performance.now() - this.#startedMs)} ms: ${what}`);
  }

  #sinceDisturbed(): number {
    return this.#time.nowMs() - this.#disturbedMs;
  }

  async #within(maxMs: number, check: () => Promise<void>): Promise<void> {
    const endMs = this.#time.nowMs() + maxMs;
    for (;;) {
      try {
        return await check();
      } catch (error) {
        if (this.#time.nowMs() >= endMs) throw error;
      }
      await delay(10);
    }
  }

  async #pause(maxMs: number): Promise<void> {
    await delay(this.#chance.between(0, maxMs));
  }
}
