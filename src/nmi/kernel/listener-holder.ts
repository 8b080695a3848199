/**
 * Holds the listening socket for an agent in another container: when that agent ends, connections
 * wait in the socket's queue for the next agent instead of being refused. The holder of the next
 * pod takes the socket over while this one still runs, so an update of the DaemonSet refuses no
 * connection either.
 *
 * The newest holder has the path where holders find each other; each of the others is connected to
 * one that came after it. A holder that is neither at the path nor connected to a later one takes
 * the path over from the holder that is there. No holder waits for another one before it serves its
 * own agent. One that finds the address in use disconnects the others, and all request the socket
 * again. So it is passed on in every order of starts and ends.
 *
 * Any process that receives the socket can answer pods. The pod's own agent requests it at a path
 * that the containers of the pod share, other holders at a path in a folder that only the node's
 * root can write to.
 */
import { closeSync, lstatSync } from 'node:fs';
import { lstat, rename } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../../base/time/clock.ts';
import { nativeModule, type FlowEnd, type NativeModule } from '../../redirect/native/addon.ts';
import type { Log } from '../../base/log.ts';
import { networkCode } from '../../base/network-code.ts';
import { StartError } from '../../base/start-error.ts';
import {
  askHolder,
  awaitNote,
  descriptorOf,
  ListenerError,
  listensAt,
  noteOf,
  notes,
} from './listener-notes.ts';
import { listenAt, listenForAgent, makeOwnFolder, whyNot } from './local-socket.ts';

export interface ListenerHolderOptions {
  /** Where to listen for pods. */
  readonly address: FlowEnd;
  /** Path of the Unix socket for the agent of this pod. */
  readonly agentsPath: string;
  /** Path of the Unix socket between holders; empty for none. */
  readonly handoverPath: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Another holder takes over: resolves when this process has stopped changing the kernel. */
  readonly onSuccessor: () => Promise<void>;
  /** This process has to change the kernel again. */
  readonly onSuccessorGone: () => void;
}

/** The agent, its successor, and agents started manually in the container. */
const maxClients = 8;
const noteMs = 2_000;
/**
 * A socket without an agent refuses connections after this time, which is better than a useless wait. It
 * stays bound: with iptables, a pod on the host network could listen at the agent's port otherwise.
 */
const unusedMs = 10_000;
const inheritMs = 30_000;
const retryMs = 200;
/**
 * A holder that found nobody at the path may have replaced a socket that was put there just then. So the path
 * is looked at soon after that, and then ever more seldom: each look wakes an idle process.
 */
const pathCheckMs = { first: 1_500, longest: 15_000 };

/** @throws StartError when agents cannot be served. */
export async function openListenerHolder(options: ListenerHolderOptions): Promise<ListenerHolder> {
  const holder = new ListenerHolder(options);
  try {
    await holder.open();
  } catch (error) {
    await holder[Symbol.asyncDispose]();
    throw error;
  }
  return holder;
}

export class ListenerHolder implements AsyncDisposable {
  readonly #options: ListenerHolderOptions;
  readonly #native: NativeModule = nativeModule();
  readonly #agents = new Set<Socket>();
  readonly #successors = new Set<Socket>();
  readonly #predecessors = new Set<Socket>();
  #forAgents: Server | undefined;
  #forHolders: Server | undefined;
  #listener: number | undefined;
  /** The socket is bound but does not listen. */
  #isRefusing = false;
  /** Opened here and given to no other holder: without our agents, no other process has it. */
  #isOurs = false;
  /** Inode of our socket at the handover path. */
  #ownInode: bigint | undefined;
  /** Why there is no socket at the handover path. */
  #pathProblem: string | undefined;
  #checking: Promise<void> | undefined;
  #disarmCheck: (() => void) | undefined;
  #nextCheckMs = pathCheckMs.first;
  #disarm: (() => void) | undefined;
  /** A process that no holder is known of listens at the address. */
  #isTaken = false;
  #hasStarted = false;
  #isPaused = false;
  #isClosed = false;

  constructor(options: ListenerHolderOptions) {
    this.#options = options;
  }

  /** The agent of this pod first: it may have the socket that the other holders wait for. */
  async open(): Promise<void> {
    await this.#serveAgents();
    if (this.#options.handoverPath !== '') {
      await this.#inherit();
      if (this.#listener === undefined) this.#isTaken = this.#findTaken();
    }
    this.#hasStarted = true;
    if (this.#options.handoverPath !== '') this.#scheduleCheck();
  }

  /** Another agent of this node may still run. */
  hasPredecessor(): boolean {
    return this.#predecessors.size > 0 || this.#isTaken;
  }

  /** Opens the socket before an agent requests it: connections wait for the agent. */
  async listen(): Promise<void> {
    if (typeof (await this.#acquire()) === 'number') this.#dropWhenUnused();
  }

  /** Closes the socket at once: if no other process has it, pods are refused from now on. */
  release(): void {
    this.#isClosed = true;
    this.#drop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
    this.#disarmCheck?.();
    // The file at the path stays: by now it may be another holder's, and nobody answers at ours.
    const servers = [this.#forAgents, this.#forHolders].filter((each) => each !== undefined);
    const closed = servers.map((server) => server[Symbol.asyncDispose]());
    for (const socket of [...this.#agents, ...this.#successors, ...this.#predecessors]) {
      socket.destroy();
    }
    // No mutation: all sockets are closed by now, and Node only reports it a moment later.
    await Promise.all(closed);
  }

  async #serveAgents(): Promise<void> {
    this.#forAgents = this.#createServer(this.#agents);
    await listenForAgent(this.#forAgents, this.#options.agentsPath, 'the agent');
  }

  #createServer(clients: Set<Socket>): Server {
    // Node must not read: its reads discard the descriptor of a message.
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      clients.add(socket);
      socket.on('error', () => socket.destroy());
      socket.once('close', () => {
        clients.delete(socket);
        this.#onGone(clients);
      });
      void this.#serve(socket, clients).catch((error: unknown) => {
        this.#options.log.warn({ problem: networkCode(error) }, 'listening socket not passed on');
        socket.destroy();
      });
    });
    server.maxConnections = maxClients;
    return server;
  }

  async #serve(socket: Socket, clients: ReadonlySet<Socket>): Promise<void> {
    const native = this.#native;
    const local = descriptorOf(socket);
    const note = await awaitNote(native, local, () => socket.destroyed, noteMs);
    if (note === undefined) return void socket.destroy();
    if (note.descriptor !== undefined) this.#adopt(note.descriptor);
    const listener = await this.#acquire();
    if (socket.destroyed) return;
    if (clients === this.#successors) await this.#pause();
    if (socket.destroyed) return;
    if (clients === this.#successors) this.#isOurs = false;
    const isShared = this.hasPredecessor() || this.#successors.size > 0;
    if (typeof listener === 'string') native.sendNote(local, noteOf(listener));
    else native.sendNote(local, isShared ? notes.shared : notes.alone, listener);
    // Reads only detect the end of the connection.
    socket.resume();
  }

  /** Takes over a socket that an earlier holder gave to the sender. */
  #adopt(descriptor: number): void {
    const isMissing = !this.#isClosed && this.#listener === undefined;
    if (isMissing && listensAt(this.#native, descriptor, this.#options.address)) {
      this.#listener = descriptor;
      this.#isOurs = false;
      this.#isTaken = false;
    } else {
      closeSync(descriptor);
    }
  }

  /** The listening socket, or the error code. */
  async #acquire(): Promise<number | string> {
    if (this.#isClosed) return 'ECANCELED';
    const { handoverPath } = this.#options;
    if (this.#listener === undefined && this.#hasStarted && handoverPath !== '') {
      await this.#checkPath();
    }
    if (this.#isClosed) return 'ECANCELED';
    if (this.#listener === undefined && !this.#hasStarted) return 'EAGAIN';
    try {
      const listener = this.#listening() ?? this.#openOurs();
      this.#isTaken = false;
      return listener;
    } catch (error) {
      this.#isTaken = networkCode(error) === 'EADDRINUSE';
      // A holder has got the socket since it was connected, or an agent has not returned it yet. They
      // request it again, and the holder that has it then gives it to the one at the path.
      const holders = this.#isTaken ? [...this.#successors, ...this.#predecessors] : [];
      for (const socket of holders) socket.destroy();
      return networkCode(error);
    }
  }

  /** The socket that this process has, which listens from now on. */
  #listening(): number | undefined {
    if (this.#isRefusing && this.#listener !== undefined) {
      this.#native.setListening(this.#listener, true);
      this.#isRefusing = false;
    }
    return this.#listener;
  }

  #openOurs(): number {
    const { ip, port } = this.#options.address;
    this.#listener = this.#native.openListener(ip, port);
    this.#isOurs = true;
    return this.#listener;
  }

  #findTaken(): boolean {
    const { ip, port } = this.#options.address;
    try {
      closeSync(this.#native.openListener(ip, port));
      return false;
    } catch (error) {
      return networkCode(error) === 'EADDRINUSE';
    }
  }

  /** Takes the path, and the socket of the previous holder if there is one. */
  async #inherit(): Promise<void> {
    const deadlineMs = performance.now() + inheritMs;
    for (;;) {
      const problem = await this.#takePath();
      if (problem === undefined) return;
      if (performance.now() > deadlineMs) {
        const { handoverPath } = this.#options;
        throw new StartError(
          'UNAVAILABLE',
          `the previous agent does not answer at ${handoverPath}: ${problem}`,
          'delete its pod',
        );
      }
      await delay(retryMs);
    }
  }

  #scheduleCheck(problem?: string): void {
    this.#disarmCheck?.();
    if (this.#isClosed) return;
    const delayMs = problem === undefined ? this.#nextCheckMs : retryMs;
    if (problem === undefined) this.#nextCheckMs = Math.min(2 * delayMs, pathCheckMs.longest);
    this.#disarmCheck = this.#options.clock.schedule(delayMs, () => void this.#checkPath());
  }

  /** Takes the path unless it is ours, or a later holder is connected. */
  #checkPath(): Promise<void> {
    this.#checking ??= this.#keepPath()
      .then((problem) => this.#scheduleCheck(problem))
      .finally(() => (this.#checking = undefined));
    return this.#checking;
  }

  /** @returns the error code if it has to be tried again. */
  async #keepPath(): Promise<string | undefined> {
    if (this.#isClosed || this.#successors.size > 0) return undefined;
    const problem = this.#isOwnPath() ? undefined : await this.#takePath();
    // A later holder has the path but not the socket, perhaps for as long as a back-off.
    if (problem === 'ECONNRESET' && !this.#isPaused) await this.#pause();
    const isLast = problem === undefined && this.#successors.size === 0;
    if (isLast && this.#isPaused && !this.#isClosed) {
      this.#isPaused = false;
      this.#options.onSuccessorGone();
    }
    return problem;
  }

  async #pause(): Promise<void> {
    this.#isPaused = true;
    await this.#options.onSuccessor();
  }

  /** @returns the error code if the path has to be taken again. */
  async #takePath(): Promise<string | undefined> {
    const { handoverPath } = this.#options;
    const distrust = await whyNot(() => makeOwnFolder(dirname(handoverPath)));
    if (distrust !== undefined) {
      this.#reportPath(distrust);
      return undefined;
    }
    try {
      await this.#askPredecessor();
    } catch (error) {
      if (!(error instanceof ListenerError)) throw error;
      if (error.code !== 'ENOENT' && error.code !== 'ECONNREFUSED') return error.code;
    }
    // Connected to a later holder in the meantime: two that took over from each other would both
    // wait for the other one.
    if (!this.#isClosed && this.#successors.size === 0) await this.#serveHolders();
    return undefined;
  }

  /** A holder with another address has no socket for us but still counts as the predecessor. */
  async #askPredecessor(): Promise<void> {
    const { handoverPath: path, log } = this.#options;
    const had = this.#listening();
    this.#isOurs &&= had === undefined;
    const { descriptor, connection } = await askHolder(this.#native, path, had);
    if (descriptor !== undefined) this.#adopt(descriptor);
    if (this.#isClosed || this.#successors.size > 0) return void connection.destroy();
    this.#predecessors.add(connection);
    connection.once('close', () => {
      if (this.#isClosed) return;
      this.#predecessors.delete(connection);
      this.#dropWhenUnused();
      this.#askAgentsAgain();
      log.info({}, 'the agent before has ended');
    });
    connection.resume();
    const hasListener = this.#listener !== undefined;
    log.info({ path, listener: hasListener }, 'taking over from the agent before');
  }

  /** Binds another path and renames it, so the path always has a socket. */
  async #serveHolders(): Promise<void> {
    const { handoverPath: path } = this.#options;
    const server = this.#createServer(this.#successors);
    // Open connections stay open.
    void this.#forHolders?.[Symbol.asyncDispose]();
    this.#forHolders = server;
    const problem = await whyNot(async () => {
      const aside = `${path}.${Math.random().toString(16).slice(2, 6)}`;
      const refusal = await listenAt(server, aside, 0o600);
      if (refusal !== undefined) return refusal;
      const { ino } = await lstat(aside, { bigint: true });
      await rename(aside, path);
      this.#ownInode = ino;
      this.#nextCheckMs = pathCheckMs.first;
      return undefined;
    });
    this.#reportPath(problem);
  }

  #reportPath(problem: string | undefined): void {
    const { handoverPath: path, log } = this.#options;
    const isNew = problem !== this.#pathProblem;
    this.#pathProblem = problem;
    if (problem !== undefined && isNew) {
      log.warn({ path, problem }, 'the next agent cannot take over');
    }
  }

  /** In this thread: the file system is in memory, and another thread would have to be woken. */
  #isOwnPath(): boolean {
    if (this.#ownInode === undefined) return false;
    try {
      return lstatSync(this.#options.handoverPath, { bigint: true }).ino === this.#ownInode;
    } catch {
      return false;
    }
  }

  #onGone(clients: Set<Socket>): void {
    if (this.#isClosed || clients.size > 0) return;
    this.#dropWhenUnused();
    if (clients === this.#successors) {
      this.#askAgentsAgain();
      void this.#checkPath();
    }
  }

  /** Our agent may wait until no other one accepts: the answer to its next request reports that. */
  #askAgentsAgain(): void {
    if (this.hasPredecessor() || this.#successors.size > 0) return;
    for (const socket of this.#agents) socket.destroy();
  }

  #dropWhenUnused(): void {
    this.#disarm?.();
    this.#disarm = this.#options.clock.schedule(unusedMs, () => {
      const users = [this.#agents, this.#predecessors, this.#successors];
      if (users.some(({ size }) => size > 0) || this.#listener === undefined || this.#isRefusing) {
        return;
      }
      this.#options.log.warn({}, 'no agent takes connections, refusing them');
      this.#refuse();
    });
  }

  /**
   * A socket that another process may have is closed: an agent whose holder is down may still answer. If
   * there is none, another socket keeps the port.
   */
  #refuse(): void {
    try {
      if (!this.#isOurs) this.#drop();
      this.#native.setListening(this.#listener ?? this.#openOurs(), false);
      this.#isRefusing = true;
    } catch {
      // Another process listens, or the address is gone.
      this.#drop();
    }
  }

  #drop(): void {
    this.#disarm?.();
    this.#disarm = undefined;
    if (this.#listener !== undefined) closeSync(this.#listener);
    this.#listener = undefined;
    this.#isRefusing = false;
  }
}
