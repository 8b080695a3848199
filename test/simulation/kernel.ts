/**
 * The model of a node's kernel, as the invariants of the redirect's port say: programs that survive
 * processes, a record for each connection that they redirect, cgroups and links of pods.
 */
import type { CallerAnswer } from '../../src/redirect/native/addon.ts';
import { RedirectError } from '../../src/redirect/redirect.ts';
import { currentProcess, type Machine, type Process } from './machine.ts';

/** `RECENT_NS` of src/redirect/native/nmi.bpf.c. */
const recentMs = 10_000;

export const agentIp = '169.254.25.79';
export const metadata = { ip: '169.254.169.254', port: 80 };

/** What programs of one layout share. */
interface Maps {
  readonly layout: number;
  readonly records: Map<string, bigint>;
  /** The programs in front of the agents write into other maps. */
  isLeft: boolean;
}

interface PodInKernel {
  readonly ip: string;
  readonly cgroupId: bigint;
  readonly link: number | undefined;
}

export class Kernel {
  readonly machine: Machine;
  isRedirected = false;
  /** The port that the programs redirect to. */
  port = 2_579;
  version = 1;
  /** Cgroups that the programs let through: of agents. */
  exempt: ReadonlySet<bigint> = new Set();
  /** Of the programs that a process installs. */
  versionOf: (process: Process) => number = () => 1;
  /** Of the maps that programs of a version share. */
  layoutOf: (version: number) => number = () => 1;
  /** The pod of an agent, whose sockets one program answers. */
  agentOf: (process: Process) => string = () => '';
  onInstalled: (by: Process) => void = () => undefined;
  /** How long an installation takes, besides the usual pace. */
  longestInstallMs = 0;
  /** What is wrong with the programs. */
  drift: string | undefined;
  /** So many installations fail. */
  refusals = 0;
  /** When the last one failed. */
  refusedMs = 0;
  /** Connections get no record: the map is full. */
  isFull = false;
  /** Since the last boot. */
  wasClosed = false;
  letThrough: ReadonlySet<bigint> = new Set();
  readonly #pods = new Map<string, PodInKernel>();
  /** Of the programs that redirect. */
  #front: Maps = { layout: 1, records: new Map(), isLeft: false };
  /** Of the program that answers the sockets of an agent. */
  readonly #answering = new Map<string, Maps>();
  /** When a connection got no record for lack of room. */
  #unrecordedMs = -Infinity;
  readonly #accepted: string[] = [];
  #nextId = 100n;
  #nextLink = 10;

  constructor(machine: Machine) {
    this.machine = machine;
    kernels.set(machine, this);
  }

  /** @param hasLink of its own; false on a bridge. */
  addPod(uid: string, ip: string, hasLink = true): void {
    const link = hasLink ? (this.#nextLink += 1) : undefined;
    this.#pods.set(uid, { ip, cgroupId: (this.#nextId += 1n), link });
  }

  removePod(uid: string): void {
    this.#pods.delete(uid);
  }

  cgroupOf(uid: string): bigint | undefined {
    return this.#pods.get(uid)?.cgroupId;
  }

  linkOf(ip: string): number | undefined {
    for (const pod of this.#pods.values()) if (pod.ip === ip) return pod.link;
    return undefined;
  }

  hasLink(link: number): boolean {
    return [...this.#pods.values()].some((pod) => pod.link === link);
  }

  /** As `joinPinned` of src/redirect/ebpf/programs.ts. */
  join(agent: string, version: number): void {
    if (!this.isRedirected || this.#answering.has(agent)) return;
    const layout = this.layoutOf(version);
    const own: Maps = { layout, records: new Map(), isLeft: true };
    this.#answering.set(agent, layout === this.#front.layout ? this.#front : own);
  }

  /** @throws RedirectError */
  install(agent: string, port: number, version: number, exempt: ReadonlySet<bigint>): void {
    if (this.refusals > 0) {
      this.refusals -= 1;
      this.refusedMs = this.machine.scheduler.nowMs;
      throw new RedirectError('KERNEL_REFUSED', 'load', 'by the simulation');
    }
    const layout = this.layoutOf(version);
    if (!this.isRedirected || layout !== this.#front.layout) {
      this.#front.isLeft = true;
      this.#front = { layout, records: new Map(), isLeft: false };
    }
    this.#answering.set(agent, this.#front);
    this.isRedirected = true;
    this.wasClosed = true;
    this.drift = undefined;
    this.port = port;
    this.version = version;
    this.exempt = exempt;
  }

  remove(): void {
    this.isRedirected = false;
    this.#answering.clear();
  }

  /** After a reboot nothing is pinned any more. */
  reboot(): void {
    this.isRedirected = false;
    this.wasClosed = false;
    this.drift = undefined;
    this.isFull = false;
    this.refusals = 0;
    this.machine.addresses.delete(agentIp);
    this.#front.records.clear();
    this.#answering.clear();
  }

  /** Where the connect of a pod to the metadata address leads: to a port of the agent, or to that address. */
  route(uid: string, ip: string, port: number): number | 'metadata' {
    const pod = this.#pods.get(uid);
    if (!this.isRedirected || pod === undefined) return 'metadata';
    if (this.isFull) this.#unrecordedMs = this.machine.scheduler.nowMs;
    else this.#front.records.set(`${ip}:${port}`, pod.cgroupId);
    return this.port;
  }

  forget(ip: string, port: number): void {
    this.#front.records.delete(`${ip}:${port}`);
  }

  get records(): number {
    return this.#front.records.size;
  }

  /** The descriptor of an accepted socket, which the model knows by its client. */
  descriptorOf(client: string): number {
    const known = this.#accepted.indexOf(client);
    return known < 0 ? this.#accepted.push(client) - 1 : known;
  }

  /** Undefined if no program answers the sockets of this agent. */
  callerOf(agent: string, socket: number): CallerAnswer | undefined {
    const maps = this.#answering.get(agent);
    if (maps === undefined) return undefined;
    const cgroupId = maps.records.get(this.#accepted[socket] ?? '');
    if (cgroupId !== undefined) return { kind: 3, cgroupId };
    const wasShort = this.machine.scheduler.nowMs - this.#unrecordedMs < recentMs;
    return { kind: maps.isLeft || wasShort ? 1 : 0, cgroupId: 0n };
  }

  isAnswered(agent: string): boolean {
    return this.#answering.has(agent);
  }
}

const kernels = new WeakMap<Machine, Kernel>();

/** The kernel below the process whose code runs. */
export function currentKernel(): Kernel {
  const kernel = kernels.get(currentProcess().machine);
  if (kernel === undefined) throw new Error('this machine is no node');
  return kernel;
}
