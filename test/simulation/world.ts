/** All that a run simulates, its clock, its story, and the first invariant that was broken. */
import type { Logger } from '../../src/base/logger.ts';
import type { Fault } from './fault.ts';
import { Machine, type Process } from './machine.ts';
import { Scheduler } from './scheduler.ts';
import { openLabCloud, type Cloud } from './cloud.ts';
import { Conditions } from './conditions.ts';
import type { WholeCode } from './load.ts';
import { most } from './limits.ts';
import { Network, useNetwork } from './network.ts';
import { Node } from './node.ts';
import { Truth } from './truth.ts';

export interface Loaded {
  readonly code: WholeCode;
  readonly fault: Fault | undefined;
  /** A file for the API server at its address. */
  readonly kubeconfig: string;
}

export class World {
  readonly scheduler: Scheduler;
  readonly network: Network;
  readonly loaded: Loaded;
  readonly story: string[] = [];
  readonly truth: Truth;
  readonly nodes: readonly Node[];
  readonly processes = new Set<Process>();
  cloud!: Cloud;
  conditions!: Conditions;
  /** The end of the latest fault of the API server, the network or a process. */
  faultUntilMs = 0;
  /** What the coverage counts: a fault and the state that it met. */
  readonly pairs = new Map<string, number>();
  answers = 0;
  tokens = 0;
  #broken: string | undefined;

  constructor(loaded: Loaded, seed: number, paceMs: number) {
    this.loaded = loaded;
    this.scheduler = new Scheduler(seed);
    this.network = new Network(this.scheduler);
    this.network.paceMs = paceMs;
    useNetwork(this.network);
    this.truth = new Truth(() => this.nowMs);
    this.nodes = ['node-1', 'node-2'].map((name, index) => new Node(this, name, index, paceMs));
  }

  async open(): Promise<void> {
    const machine = new Machine(this.scheduler, this.network.paceMs);
    this.cloud = await openLabCloud(this, machine);
    this.conditions = new Conditions(this);
  }

  get nowMs(): number {
    return this.scheduler.nowMs;
  }

  tell(text: string): void {
    this.story.push(`${(this.nowMs / 1_000).toFixed(2)} s: ${text}`);
  }

  /** A fault begins, and ends after some time. */
  disturb(text: string, forMs = 0): void {
    this.tell(text);
    this.faultUntilMs = Math.max(this.faultUntilMs, this.nowMs + forMs);
  }

  /** Ends the run with the next check. */
  break(problem: string): void {
    if (this.#broken !== undefined) return;
    this.#broken = `at ${(this.nowMs / 1_000).toFixed(2)} s: ${problem}`;
  }

  /** The warnings and errors of a process are part of the story. */
  logOf(name: string): Logger {
    const tell = (fields: object, text: string): void =>
      this.tell(`  ${name}: ${text} ${brief(fields)}`);
    const log: Logger = {
      debug: () => undefined,
      info: () => undefined,
      warn: tell,
      error: tell,
      child: () => log,
    };
    return log;
  }

  after(ms: number, label: string, work: () => void): () => void {
    return this.scheduler.schedule(ms, undefined, label, work);
  }

  start(name: string, machine: Machine, main: () => Promise<number>): Process {
    const started = machine.start(name, main, (error) => {
      // A start that cannot go on says why, and its container is started again.
      const isExpected = error instanceof Error && error.name === 'StartError';
      this.tell(`${name} failed: ${String(error)}`);
      if (!isExpected) this.break(`${name} ended by a bug: ${stackOf(error)}`);
    });
    this.processes.add(started);
    void started.exited.then(() => this.processes.delete(started));
    return started;
  }

  /** After every event. */
  check(): void {
    if (this.#broken !== undefined) throw new Error(this.#broken);
    if (this.scheduler.count % 64 !== 0) return;
    for (const { name, sockets, openDescriptors, timers } of this.processes) {
      if (sockets > most.sockets) this.break(`${name} has ${sockets} sockets`);
      if (openDescriptors > most.descriptors) this.break(`${name} has ${openDescriptors} files`);
      if (timers > most.timers) this.break(`${name} has ${timers} timers`);
    }
    for (const node of this.nodes) node.check();
  }

  end(): void {
    for (const each of this.processes) each.end();
    for (const socket of this.network.leftOver) socket.destroy();
  }
}

function brief(fields: object): string {
  return JSON.stringify(fields, (_, value: unknown) =>
    value instanceof Error ? value.message : value,
  ).slice(0, 200);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
