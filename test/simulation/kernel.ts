/**
 * The model of a node's kernel, as the invariants of the redirect's port say: programs that survive
 * processes, a record for each connection that they redirect, cgroups and links of pods.
 */
import type { CallerAnswer } from '../../src/redirect/native/addon.ts';
import { RedirectError } from '../../src/redirect/redirect.ts';
import { currentProcess, type Machine, type Process } from './machine.ts';

export const agentIp = '169.254.25.79';
export const metadata = { ip: '169.254.169.254', port: 80 };

interface PodInKernel {
  readonly ip: string;
  readonly cgroupId: bigint;
  readonly link: number;
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
  readonly #records = new Map<string, bigint>();
  readonly #accepted: string[] = [];
  #nextId = 100n;
  #nextLink = 10;

  constructor(machine: Machine) {
    this.machine = machine;
    kernels.set(machine, this);
  }

  addPod(uid: string, ip: string): void {
    this.#pods.set(uid, { ip, cgroupId: (this.#nextId += 1n), link: (this.#nextLink += 1) });
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

  /** @throws RedirectError */
  install(port: number, version: number, exempt: ReadonlySet<bigint>): void {
    if (this.refusals > 0) {
      this.refusals -= 1;
      this.refusedMs = this.machine.scheduler.nowMs;
      throw new RedirectError('KERNEL_REFUSED', 'load', 'by the simulation');
    }
    this.isRedirected = true;
    this.wasClosed = true;
    this.drift = undefined;
    this.port = port;
    this.version = version;
    this.exempt = exempt;
  }

  remove(): void {
    this.isRedirected = false;
  }

  /** After a reboot nothing is pinned any more. */
  reboot(): void {
    this.isRedirected = false;
    this.wasClosed = false;
    this.drift = undefined;
    this.isFull = false;
    this.refusals = 0;
    this.machine.addresses.delete(agentIp);
    this.#records.clear();
  }

  /** Where the connect of a pod to the metadata address leads: to a port of the agent, or to that address. */
  route(uid: string, ip: string, port: number): number | 'metadata' {
    const pod = this.#pods.get(uid);
    if (!this.isRedirected || pod === undefined) return 'metadata';
    if (!this.isFull) this.#records.set(`${ip}:${port}`, pod.cgroupId);
    return this.port;
  }

  forget(ip: string, port: number): void {
    this.#records.delete(`${ip}:${port}`);
  }

  get records(): number {
    return this.#records.size;
  }

  /** The descriptor of an accepted socket, which the model knows by its client. */
  descriptorOf(client: string): number {
    const known = this.#accepted.indexOf(client);
    return known < 0 ? this.#accepted.push(client) - 1 : known;
  }

  callerOf(socket: number): CallerAnswer {
    const cgroupId = this.#records.get(this.#accepted[socket] ?? '');
    // Without a record: there was no room for one.
    return cgroupId === undefined ? { kind: 1, cgroupId: 0n } : { kind: 3, cgroupId };
  }
}

const kernels = new WeakMap<Machine, Kernel>();

/** The kernel below the process whose code runs. */
export function currentKernel(): Kernel {
  const kernel = kernels.get(currentProcess().machine);
  if (kernel === undefined) throw new Error('this machine is no node');
  return kernel;
}
