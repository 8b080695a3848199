/** The open connections of one listener, and how they end. */
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { CallerConnection } from '../callers/caller.ts';
import { Counts } from './caller-limits.ts';

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
  readonly #each: number;
  /** By limit key. */
  readonly #counts = new Counts();
  /** Number of look-ups, by address. */
  readonly #lookUpCounts = new Counts();

  /** @param each maximum of one caller. */
  constructor(each: number) {
    this.#each = each;
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
    if (this.#lookUpCounts.get(ip) >= this.#each) return 'per_caller';
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
   * @returns the connection, which is removed when it closes; undefined when its caller has too
   *   many.
   */
  add(socket: Socket, caller: CallerConnection): Connection | undefined {
    // The key changes once the pod is known; the removal needs the same key as the addition.
    const { limitKey } = caller;
    if (this.#counts.get(limitKey) >= this.#each) return undefined;
    this.#counts.add(limitKey);
    const connection: Connection = { caller, open: new Set() };
    this.#bySocket.set(socket, connection);
    socket.once('close', () => {
      this.#bySocket.delete(socket);
      this.#counts.remove(limitKey);
    });
    return connection;
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
