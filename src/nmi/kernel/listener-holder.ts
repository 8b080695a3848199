/**
 * Holds the listening socket for an agent in another container: when that agent ends, connections
 * wait in the socket's queue for the next agent instead of being refused. The holder of the next
 * pod takes the socket over while this one still runs, so an update of the DaemonSet refuses no
 * connection either.
 *
 * Any process that receives the socket can answer pods. The pod's own agent requests it at a path
 * that the containers of the pod share, other holders at a path in a folder that only the node's
 * root can write to.
 */
import { randomBytes } from 'node:crypto';
import { closeSync } from 'node:fs';
import { lstat, rename, unlink } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../../cache/clock.ts';
import { nativeModule, type FlowEnd, type NativeModule } from '../../redirect/native/addon.ts';
import type { Log } from '../base/log.ts';
import { networkCode } from '../base/network-code.ts';
import { StartError } from '../base/start-error.ts';
import { askHolder, awaitNote, ListenerError, listensAt, noteOf, notes } from './listener-notes.ts';
import { listenAt, makeFolder } from './local-socket.ts';

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
  /** The last other holder has disconnected. */
  readonly onSuccessorGone: () => void;
}

export interface ListenerHolder extends AsyncDisposable {
  /** The previous holder still runs, so its agent may run too. */
  hasPredecessor(): boolean;
  /** Closes the socket at once: if no other process has it, pods are refused from now on. */
  release(): void;
}

/** The agent, its successor, and agents started manually in the container. */
const maxClients = 8;
const noteMs = 2_000;
/** A socket without an agent is closed after this time: refusing is better than a useless wait. */
const unusedMs = 10_000;
const inheritMs = 30_000;
const retryMs = 200;

/** @throws StartError when agents cannot be served. */
export async function openListenerHolder(options: ListenerHolderOptions): Promise<ListenerHolder> {
  const holder = new Holder(options);
  try {
    await holder.open();
  } catch (error) {
    await holder[Symbol.asyncDispose]();
    throw error;
  }
  return holder;
}

class Holder implements ListenerHolder {
  readonly #options: ListenerHolderOptions;
  readonly #native: NativeModule = nativeModule();
  readonly #agents = new Set<Socket>();
  readonly #successors = new Set<Socket>();
  #forAgents: Server | undefined;
  #forHolders: Server | undefined;
  #listener: number | undefined;
  #predecessor: Socket | undefined;
  /** Inode of our socket at the handover path. */
  #ownInode: bigint | undefined;
  #disarm: (() => void) | undefined;
  #isClosed = false;

  constructor(options: ListenerHolderOptions) {
    this.#options = options;
  }

  async open(): Promise<void> {
    const { agentsPath, handoverPath } = this.#options;
    if (handoverPath !== '') {
      await this.#inherit();
      await this.#serveHolders();
    }
    const server = this.#createServer(this.#agents);
    this.#forAgents = server;
    const problem = await whyNot(async () => {
      await makeFolder(dirname(agentsPath), 0o755);
      // The other container runs as another user.
      return listenAt(server, agentsPath, 0o666);
    });
    if (problem === undefined) return;
    throw new StartError(
      'UNAVAILABLE',
      `cannot listen on the socket for the agent at ${agentsPath}: ${problem}`,
      'check the volume that both containers mount at the folder of that path',
    );
  }

  hasPredecessor(): boolean {
    return this.#predecessor !== undefined;
  }

  release(): void {
    this.#isClosed = true;
    this.#drop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
    this.#predecessor?.destroy();
    if (await this.#isOwnPath()) await whyNot(() => unlink(this.#options.handoverPath));
    const closed = [this.#forAgents, this.#forHolders].map((server) => closeServer(server));
    for (const socket of [...this.#agents, ...this.#successors]) socket.destroy();
    await Promise.all(closed);
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
    // An agent that received the socket from an earlier holder has not returned it yet.
    const isOnItsWay = clients === this.#successors && listener === 'EADDRINUSE';
    if (socket.destroyed || isOnItsWay) return void socket.destroy();
    if (clients === this.#successors) await this.#options.onSuccessor();
    if (socket.destroyed) return;
    if (typeof listener === 'string') native.sendNote(local, noteOf(listener));
    else native.sendNote(local, this.hasPredecessor() ? notes.shared : notes.alone, listener);
    // Reads only detect the end of the connection.
    socket.resume();
  }

  /** Takes over a socket that an earlier holder gave to the sender. */
  #adopt(descriptor: number): void {
    const isMissing = !this.#isClosed && this.#listener === undefined;
    if (isMissing && listensAt(this.#native, descriptor, this.#options.address)) {
      this.#listener = descriptor;
    } else {
      closeSync(descriptor);
    }
  }

  /** The listening socket, or the error code. */
  async #acquire(): Promise<number | string> {
    if (this.#isClosed) return 'ECANCELED';
    const { address, handoverPath } = this.#options;
    // Another holder may have replaced the path when it restarted.
    const isOvertaken = handoverPath !== '' && !(await this.#isOwnPath());
    if (this.#listener === undefined && isOvertaken && (await this.#askPredecessor()) === 'found') {
      await this.#serveHolders();
    }
    if (this.#listener !== undefined) return this.#listener;
    try {
      return (this.#listener = this.#native.openListener(address.ip, address.port));
    } catch (error) {
      return networkCode(error);
    }
  }

  /** Takes the socket of the previous holder, if there is one. */
  async #inherit(): Promise<void> {
    const deadlineMs = performance.now() + inheritMs;
    for (;;) {
      const outcome = await this.#askPredecessor();
      if (outcome === 'found' || outcome === 'ENOENT' || outcome === 'ECONNREFUSED') return;
      if (performance.now() > deadlineMs) {
        const { handoverPath } = this.#options;
        throw new StartError(
          'UNAVAILABLE',
          `the previous agent does not answer at ${handoverPath}: ${outcome}`,
          'delete its pod',
        );
      }
      await delay(retryMs);
    }
  }

  /**
   * A holder with another address has no socket for us but still counts as the predecessor.
   * @returns the error code, or `found`.
   */
  async #askPredecessor(): Promise<string> {
    const { handoverPath: path, log } = this.#options;
    try {
      const { descriptor, connection } = await askHolder(this.#native, path);
      if (descriptor !== undefined) this.#adopt(descriptor);
      this.#predecessor = connection;
      connection.once('close', () => {
        this.#predecessor = undefined;
        this.#dropWhenUnused();
        log.info({}, 'the agent before has ended');
      });
      connection.resume();
      const hasListener = this.#listener !== undefined;
      log.info({ path, listener: hasListener }, 'taking over from the agent before');
      return 'found';
    } catch (error) {
      if (!(error instanceof ListenerError)) throw error;
      return error.code;
    }
  }

  /** Binds another path and renames it, so the path always has a socket. */
  async #serveHolders(): Promise<void> {
    const { handoverPath: path, log } = this.#options;
    const server = this.#createServer(this.#successors);
    // Open connections stay open.
    void closeServer(this.#forHolders);
    this.#forHolders = server;
    const problem = await whyNot(async () => {
      await makeFolder(dirname(path), 0o700);
      const { uid, mode } = await lstat(dirname(path));
      // Another user could put a socket there and receive the connections of pods.
      if (uid !== process.geteuid?.() || (mode & 0o022) !== 0) return 'others can write there';
      const aside = `${path}.${randomBytes(2).toString('hex')}`;
      const refusal = await listenAt(server, aside, 0o600);
      if (refusal !== undefined) return refusal;
      await rename(aside, path);
      this.#ownInode = (await lstat(path, { bigint: true })).ino;
      return undefined;
    });
    if (problem !== undefined) log.warn({ path, problem }, 'the next agent cannot take over');
  }

  async #isOwnPath(): Promise<boolean> {
    if (this.#ownInode === undefined) return false;
    try {
      return (await lstat(this.#options.handoverPath, { bigint: true })).ino === this.#ownInode;
    } catch {
      return false;
    }
  }

  #onGone(clients: Set<Socket>): void {
    if (this.#isClosed || clients.size > 0) return;
    if (clients === this.#agents) {
      this.#dropWhenUnused();
    } else {
      // The other holder has put its own socket at the path.
      void this.#serveHolders();
      this.#options.onSuccessorGone();
    }
  }

  #dropWhenUnused(): void {
    this.#disarm?.();
    this.#disarm = this.#options.clock.schedule(unusedMs, () => {
      if (this.#agents.size > 0 || this.hasPredecessor() || this.#listener === undefined) return;
      this.#options.log.warn({}, 'no agent takes connections, refusing them');
      this.#drop();
    });
  }

  #drop(): void {
    this.#disarm?.();
    this.#disarm = undefined;
    if (this.#listener !== undefined) closeSync(this.#listener);
    this.#listener = undefined;
  }
}

/** The code of a failed system call, or a reason in words; undefined when the work succeeded. */
async function whyNot(work: () => Promise<string | undefined | void>): Promise<string | undefined> {
  try {
    return (await work()) ?? undefined;
  } catch (error) {
    return networkCode(error);
  }
}

function closeServer(server: Server | undefined): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (server === undefined) resolve();
  else server.close(() => resolve());
  return promise;
}

/** Undocumented property: Node itself passes descriptors only to its own children. */
function descriptorOf(socket: Socket & { readonly _handle?: { readonly fd?: number } }): number {
  const descriptor = socket._handle?.fd;
  if (descriptor === undefined || descriptor < 0) throw new Error('a socket without a descriptor');
  return descriptor;
}
