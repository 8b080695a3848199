/** The open connections of one listener, and how they end. */
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { CallerConnection } from '../grants/caller.ts';
import { Counts } from './caller-limits.ts';
import type { Decision } from './decision-cache.ts';

export interface Connection {
  readonly caller: CallerConnection;
  /** Responses that are not finished. */
  readonly open: Set<ServerResponse>;
  /** What the fast path decided for the first request that `node:http` reads; that one takes it. */
  handed: Decision | undefined;
}

/**
 * Held at once: as many as the listener's backlog, all of which one turn may accept. Node reads ahead
 * what clients send meanwhile, 64 KiB each at most.
 */
export const maxHeld = 1_024;

export class Connections {
  readonly #bySocket = new Map<Socket, Connection>();
  /** Whose caller is being looked up, with their address. */
  readonly #held = new Map<Socket, string>();
  readonly #each: number;
  /** By limit key. */
  readonly #counts = new Counts();
  /** Of those held, by address. */
  readonly #heldCounts = new Counts();

  /** @param each how many one caller may have. */
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
   * Keeps a connection whose caller is being looked up, until it is released or closed.
   * @returns who has too many of them, if so.
   */
  hold(socket: Socket, ip: string): 'per_caller' | 'total' | undefined {
    if (this.#held.size >= maxHeld) return 'total';
    if (this.#heldCounts.get(ip) >= this.#each) return 'per_caller';
    this.#held.set(socket, ip);
    this.#heldCounts.add(ip);
    socket.once('close', () => this.release(socket));
    return undefined;
  }

  /** @returns whether it was still held. */
  release(socket: Socket): boolean {
    const ip = this.#held.get(socket);
    if (ip === undefined) return false;
    this.#heldCounts.remove(ip);
    return this.#held.delete(socket);
  }

  /** @returns the connection, which is forgotten when it closes; undefined when its caller has too many. */
  add(socket: Socket, caller: CallerConnection): Connection | undefined {
    // Who it is may become known later; it leaves as what it came.
    const { limitKey } = caller;
    if (this.#counts.get(limitKey) >= this.#each) return undefined;
    this.#counts.add(limitKey);
    const connection: Connection = { caller, open: new Set(), handed: undefined };
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
      // libuv resets no socket whose end is on its way to the kernel, and Node then never closes it:
      // neither the event nor the descriptor would come back.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
    return meant.length;
  }

  /** Answers under way are the last of their connections. */
  endAfterAnswers(): void {
    for (const { open } of this.#bySocket.values()) {
      for (const response of open) response.shouldKeepAlive = false;
    }
  }

  destroyIdle(): void {
    for (const [socket, { open }] of this.#bySocket) if (open.size === 0) socket.destroy();
  }

  destroyAll(): void {
    for (const socket of [...this.#held.keys(), ...this.#bySocket.keys()]) socket.destroy();
  }
}
