/** Which machine has an address, how long packets take, and what is cut. */
import type { Machine, Process } from './machine.ts';
import type { Scheduler } from './scheduler.ts';
import { longestMs } from './limits.ts';
import { arriveAt, TcpEnd, type Address, type Path } from './wires.ts';

export class Network {
  readonly scheduler: Scheduler;
  readonly #machines = new Map<string, Machine>();
  /** By machine: packets from and to other machines arrive only after this time. */
  readonly cutUntilMs = new Map<Machine, number>();
  /** By machine: until this time bytes from and to others come in several packets, each late by itself. */
  readonly lateUntilMs = new Map<Machine, number>();
  /** By machine: connections to others from before this time lose all that is sent. */
  readonly lostMs = new Map<Machine, number>();
  /** Sockets of processes that have ended. Node's parsers keep them in memory until they are destroyed. */
  readonly leftOver: { readonly destroy: () => unknown }[] = [];
  #port = 32_768;
  /** Longest usual time of a packet. */
  paceMs = 2;

  constructor(scheduler: Scheduler) {
    this.scheduler = scheduler;
  }

  /** Makes a machine reachable for others. */
  place(ip: string, machine: Machine): void {
    this.#machines.set(ip, machine);
    machine.addresses.add(ip);
  }

  nextPort(): number {
    this.#port = this.#port >= 60_999 ? 32_768 : this.#port + 1;
    return this.#port;
  }

  /** A connection from a process, as its machine routes it. Undefined: nobody has the address. */
  connect(
    from: Machine,
    owner: Process | undefined,
    source: Address,
    to: Address,
    onAnswer: (isRefused: boolean) => void,
  ): TcpEnd {
    const target = from.addresses.has(to.ip) ? from : this.#machines.get(to.ip);
    const path = this.#pathOf(from, target);
    const [near, far] = TcpEnd.pair(this.scheduler, path, source, to);
    near.owner = owner;
    // The SYN, and the answer to it.
    const arrive = (at: Process | undefined, what: string, work: () => void): void => {
      const delayMs = path.delayMs();
      if (delayMs < Infinity) this.scheduler.schedule(delayMs, at, what, work);
    };
    arrive(undefined, 'syn', () => {
      const listener = target?.listenerAt(to.ip, to.port) ?? target?.listenerAt('0.0.0.0', to.port);
      const isRefused = listener === undefined || !arriveAt(listener, far);
      arrive(owner, 'syn-ack', () => onAnswer(isRefused));
    });
    return near;
  }

  #pathOf(one: Machine, other: Machine | undefined): Path {
    const { scheduler } = this;
    const beganMs = scheduler.nowMs;
    const isLocal = one === other || other === undefined;
    /** Of both machines, the later one. */
    const of = (times: ReadonlyMap<Machine, number>): number =>
      isLocal ? 0 : Math.max(times.get(one) ?? 0, times.get(other) ?? 0);
    const isLate = (): boolean => of(this.lateUntilMs) > scheduler.nowMs;
    return {
      delayMs: () => {
        const usualMs = scheduler.random() ** 2 * this.paceMs;
        if (isLocal) return usualMs / 10;
        if (of(this.lostMs) > beganMs) return Infinity;
        const cutMs = Math.max(0, of(this.cutUntilMs) - scheduler.nowMs);
        return usualMs + cutMs + (isLate() ? scheduler.random() * longestMs.packet : 0);
      },
      packets: () => (isLate() ? 1 + Math.floor(scheduler.random() * 4) : 1),
    };
  }
}

let current: Network | undefined;

/** The network of the run. */
export function currentNetwork(): Network {
  if (current === undefined) throw new Error('no simulation runs');
  return current;
}

export function useNetwork(network: Network): void {
  current = network;
}
