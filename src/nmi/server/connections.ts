/** The open connections of one listener, and how they end. */
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { CallerConnection } from '../callers/caller.ts';
import { Counts } from './caller-limits.ts';
import type { ConnectionLimits } from './connection-limits.ts';

export interface Connection {
  readonly caller: CallerConnection;
  /** Responses that are not finished. */
  readonly open: Set<ServerResponse>;
}

/**
 * Look-ups of callers at once: as many as the listener's backlog, which one turn may accept entirely.
 * Node meanwhile buffers what clients send, at most 64 KiB each.
 */
export const maxLookUps = 1_024;

export class Connections {
  readonly #bySocket = new Map<Socket, Connection>();
  /** Connections during the look-up of their caller, with their address. */
  readonly #lookUps = new Map<Socket, string>();
  readonly #limits: ConnectionLimits;
  /** By limit key, the oldest connection first. */
  readonly #byCaller = new Map<string, Set<Socket>>();
  /** Number of look-ups, by address. */
  readonly #lookUpCounts = new Counts();

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#bySocket.size;
  }

  get(socket: Socket): Connection | undefined {
    return this.#bySocket.get(socket);
  }

  /**
   * Keeps a connection during the look-up of its caller, until that ends or the connection closes.
   * @returns the limit that is reached, if any.
   */
  beginLookUp(socket: Socket, ip: string): 'per_caller' | 'total' | undefined {
    if (this.#lookUps.size >= maxLookUps) return 'total';
    if (this.#lookUpCounts.get(ip) >= this.#limits.each) return 'per_caller';
    this.#lookUps.set(socket, ip);
    this.#lookUpCounts.add(ip);
    socket.once('close', () => this.endLookUp(socket));
    return undefined;
  }

  /** @returns whether the connection was still kept for it. */
  endLookUp(socket: Socket): boolean {
    const ip = this.#lookUps.get(socket);
    if (ip !== undefined) this.#lookUpCounts.remove(ip);
    return this.#lookUps.delete(socket);
  }

  /**
   * A caller with too many loses its oldest connection without an answer under way: an idle one, or one with
   * a request that does not arrive.
   * @returns the connection, which is removed when it closes; undefined when its caller waits for answers
   *   on all that it may have.
   */
  add(
    socket: Socket,
    caller: CallerConnection,
    onTooMany: () => void = () => undefined,
  ): Connection | undefined {
    // The key changes once the pod is known; the removal needs the same key as the addition.
    const { limitKey } = caller;
    const own = this.#byCaller.get(limitKey) ?? new Set();
    if (own.size >= this.#each) {
      onTooMany();
      const unused = this.#findUnused(own);
      if (unused === undefined) return undefined;
      own.delete(unused);
      this.#bySocket.delete(unused);
      unused.destroy();
    }
    this.#byCaller.set(limitKey, own.add(socket));
    const connection: Connection = { caller, open: new Set() };
    this.#bySocket.set(socket, connection);
    socket.once('close', () => {
      this.#bySocket.delete(socket);
      own.delete(socket);
      if (own.size === 0 && this.#byCaller.get(limitKey) === own) this.#byCaller.delete(limitKey);
    });
    return connection;
  }

  get #each(): number {
    const { total, each, eachWhenShort } = this.#limits;
    return 2 * this.size < total ? each : eachWhenShort;
  }

  #findUnused(sockets: ReadonlySet<Socket>): Socket | undefined {
    for (const socket of sockets) if (this.#bySocket.get(socket)?.open.size === 0) return socket;
    return undefined;
  }

  /** Ends the connections of these callers at once; returns how many there were. */
  reset(isMeant: (caller: CallerConnection) => boolean): number {
    const meant = [...this.#bySocket].filter(([, { caller }]) => isMeant(caller));
    for (const [socket] of meant) {
      // libuv does not reset a socket with a pending shutdown, and Node then never closes it: there
      // would be no event, and the descriptor would leak.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
    return meant.length;
  }

  /** Answers under way close their connections. */
  endAfterAnswers(): void {
    for (const { open } of this.#bySocket.values()) {
      for (const response of open) response.shouldKeepAlive = false;
    }
  }

  destroyIdle(): void {
    for (const [socket, { open }] of this.#bySocket) if (open.size === 0) socket.destroy();
  }

  destroyAll(): void {
    for (const socket of [...this.#lookUps.keys(), ...this.#bySocket.keys()]) socket.destroy();
  }
}
