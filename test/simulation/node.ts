/** A node: its kernel, the pods of the agent on it, and the pods that request tokens. */
import { Machine } from './machine.ts';
import { AgentPod } from './agent-pod.ts';
import { Kernel } from './kernel.ts';
import type { PodClient } from './pod-client.ts';
import { most } from './limits.ts';
import type { PodFacts } from './truth.ts';
import type { World } from './world.ts';

const maxAgents = 2;

export interface Tenant {
  readonly facts: PodFacts;
  /** When its processes had ended. */
  readonly leftMs: number;
  /** When the API server knew; infinite before. */
  knownMs: number;
}

export class Node {
  readonly world: World;
  readonly name: string;
  readonly ip: string;
  readonly machine: Machine;
  readonly kernel: Kernel;
  readonly agents = new Set<AgentPod>();
  readonly clients = new Set<PodClient>();
  readonly #subnet: number;
  #started = 0;
  /** Its wall clock against the true time. */
  aheadMs = 0;
  hadWrongClock = false;
  /** When a process of the agent last started, ended or stood still. */
  disturbedMs = 0;
  /** When something was last killed that an update would not kill. */
  brokenMs = -Infinity;
  /** When a process of the agent last began. */
  agentBeganMs = 0;
  /** Who had an address before, until the API server knows that the pod is gone. */
  readonly before = new Map<string, Tenant>();

  constructor(world: World, name: string, index: number, paceMs: number) {
    this.world = world;
    this.name = name;
    this.ip = `10.0.0.${11 + index}`;
    this.#subnet = index;
    this.machine = new Machine(world.scheduler, paceMs);
    this.kernel = new Kernel(this.machine);
    world.network.place(this.ip, this.machine);
    this.machine.files.make('/host', { number: 0, name: 'the node' }, 0o700);
  }

  podIp(slot: number): string {
    return `10.1.${this.#subnet}.${slot}`;
  }

  get isFull(): boolean {
    return this.agents.size >= maxAgents;
  }

  disturbed(): void {
    this.disturbedMs = Math.max(this.disturbedMs, this.world.nowMs);
  }

  broken(): void {
    this.brokenMs = this.world.nowMs;
    this.disturbed();
  }

  startAgent(): AgentPod {
    const pod = new AgentPod(this, `${this.name}-agent${(this.#started += 1)}`);
    this.machine.files.make(`/${pod.name}`, { number: 0, name: 'the kubelet' }, 0o700);
    this.agents.add(pod);
    this.kernel.addPod(pod.name, '');
    // Its redirect may be there before it listens.
    if (this.agents.size === 1) this.broken();
    this.world.tell(`${pod.name} starts`);
    pod.start();
    return pod;
  }

  stopAgent(pod: AgentPod): void {
    if (!this.agents.delete(pod)) return;
    void pod.stop();
  }

  /** A surge: the new pod first, then the old ones. */
  async update(): Promise<void> {
    if (this.isFull) return;
    const old = [...this.agents];
    const next = this.startAgent();
    await next.untilReady(60_000);
    if (!next.isReady || !this.agents.has(next)) return;
    for (const pod of old) this.stopAgent(pod);
  }

  /** What is missing of an undisturbed node; empty if nothing. */
  problem(): string {
    const unready = [...this.agents].filter((pod) => !pod.isReady);
    if (unready.length > 0) return `${unready.map(({ name }) => name).join()} not ready`;
    return this.agents.size === 0 ? `${this.name} has no agent` : '';
  }

  /** All of its processes end at once, and what was in its kernel is gone. */
  reboot(): void {
    this.world.disturb(`${this.name} reboots`);
    for (const pod of this.agents) pod.kill();
    this.agents.clear();
    for (const client of this.clients) client.pause(3_000);
    this.kernel.reboot();
    this.machine.shared.clear();
    this.broken();
    this.startAgent();
  }

  check(): void {
    if (this.kernel.records > most.records) {
      this.world.break(`the kernel of ${this.name} has ${this.kernel.records} records`);
    }
    for (const client of this.clients) client.check();
  }
}
