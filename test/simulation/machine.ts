/** A simulated machine: processes with descriptors, and TCP sockets that listen. */
import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { FileTree } from './file-tree.ts';
import { failure, OpenFile } from './open-file.ts';
import { Scheduler } from './scheduler.ts';
import { SharedFiles } from './shared-files.ts';

export class TcpListener extends OpenFile {
  /** Connections that no process has accepted yet. */
  readonly waiting: { readonly close: (resets: boolean) => void }[] = [];
  /** Of processes that accept from it: called for each new connection. */
  readonly acceptors = new Set<() => void>();
  readonly ip: string;
  readonly port: number;
  readonly #onClosed: () => void;

  constructor(ip: string, port: number, onClosed: () => void) {
    super();
    this.ip = ip;
    this.port = port;
    this.#onClosed = onClosed;
  }

  protected closed(): void {
    this.#onClosed();
    for (const end of this.waiting.splice(0)) end.close(true);
  }
}

class Lock extends OpenFile {
  readonly #onClosed: () => void;

  constructor(onClosed: () => void) {
    super();
    this.#onClosed = onClosed;
  }

  protected closed(): void {
    this.#onClosed();
  }
}

const current = new AsyncLocalStorage<Process>();

/** The process whose code runs. */
export function currentProcess(): Process {
  const found = current.getStore();
  if (found === undefined) throw new Error('no simulated process runs this code');
  return found;
}

export class Process {
  readonly number: number;
  readonly name: string;
  readonly machine: Machine;
  isAlive = true;
  stalledUntilMs = 0;
  readonly #descriptors: (OpenFile | undefined)[] = [];
  readonly #exit = Promise.withResolvers<number | undefined>();
  /** A store of its own for each event would be copied each time. */
  readonly #context = current.run(this, () => new AsyncResource('simulated process'));
  /** Events that it waits for. */
  timers = 0;
  /** Sockets of Node that are open. */
  sockets = 0;
  /** What has to be closed when the process ends, besides descriptors. */
  readonly onEnd = new Set<() => void>();

  constructor(machine: Machine, number: number, name: string) {
    this.machine = machine;
    this.number = number;
    this.name = name;
  }

  /** Its exit code; undefined after SIGKILL. */
  get exited(): Promise<number | undefined> {
    return this.#exit.promise;
  }

  enter<T>(work: () => T): T {
    return this.#context.runInAsyncScope(work);
  }

  /** After a delay as of a system call or an event of the loop. */
  soon(label: string, work: () => void): () => void {
    return this.after(0, label, work);
  }

  after(ms: number, label: string, work: () => void): () => void {
    this.timers += 1;
    let isArmed = true;
    const disarm = (): void => {
      if (isArmed) this.timers -= 1;
      isArmed = false;
    };
    const delayMs = ms + this.machine.latencyMs();
    const cancel = this.machine.scheduler.schedule(delayMs, this, label, () => {
      disarm();
      work();
    });
    return () => {
      disarm();
      cancel();
    };
  }

  /** Ends at once: its files of sockets stay, and none of its code runs again. */
  end(code?: number): void {
    if (!this.isAlive) return;
    this.isAlive = false;
    for (const close of this.onEnd) close();
    for (const file of this.#descriptors.splice(0)) file?.unrefer();
    this.#exit.resolve(code);
  }

  /** The lowest free number, as in a real process. */
  open(file: OpenFile): number {
    const free = this.#descriptors.indexOf(undefined);
    const index = free < 0 ? this.#descriptors.length : free;
    this.#descriptors[index] = file.refer();
    return index + firstDescriptor;
  }

  at(descriptor: number): OpenFile {
    const file = this.#descriptors[descriptor - firstDescriptor];
    if (file === undefined) throw failure('EBADF', 'use descriptor');
    return file;
  }

  close(descriptor: number): void {
    const file = this.at(descriptor);
    this.#descriptors[descriptor - firstDescriptor] = undefined;
    file.unrefer();
  }

  get openDescriptors(): number {
    return this.#descriptors.filter((file) => file !== undefined).length;
  }
}

const firstDescriptor = 3;

export class Machine {
  readonly scheduler: Scheduler;
  readonly files = new FileTree();
  readonly shared = new SharedFiles();
  /** Addresses that are up. */
  readonly addresses = new Set<string>();
  readonly #listeners = new Map<string, TcpListener>();
  readonly #locks = new Set<string>();
  /** Longest usual delay of an event. */
  readonly #paceMs: number;
  #processes = 0;

  /** @param time a seed, or the time of other machines too. */
  constructor(time: number | Scheduler, paceMs: number) {
    this.scheduler = typeof time === 'number' ? new Scheduler(time) : time;
    this.#paceMs = paceMs;
  }

  latencyMs(): number {
    return this.scheduler.random() ** 2 * this.#paceMs;
  }

  start(name: string, main: () => Promise<number>, onFailure: (error: unknown) => void): Process {
    const started = new Process(this, (this.#processes += 1), name);
    started.soon('start', () => {
      void main().then(
        (code) => started.end(code),
        (error: unknown) => {
          onFailure(error);
          started.end(1);
        },
      );
    });
    return started;
  }

  listen(ip: string, port: number): TcpListener {
    const key = `${ip}:${port}`;
    if (!this.addresses.has(ip)) throw failure('EADDRNOTAVAIL', 'listen');
    if (this.#listeners.has(key)) throw failure('EADDRINUSE', 'listen');
    const listener = new TcpListener(ip, port, () => this.#listeners.delete(key));
    this.#listeners.set(key, listener);
    return listener;
  }

  /** Undefined if another process has it. */
  lock(path: string): OpenFile | undefined {
    if (this.#locks.has(path)) return undefined;
    this.#locks.add(path);
    return new Lock(() => this.#locks.delete(path));
  }

  isLocked(path: string): boolean {
    return this.#locks.has(path);
  }

  listenerAt(ip: string, port: number): TcpListener | undefined {
    return this.#listeners.get(`${ip}:${port}`);
  }

  isListening(ip: string, port: number): boolean {
    return this.listenerAt(ip, port) !== undefined;
  }
}
