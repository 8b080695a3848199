/** The open connections of one listener, and how they end. */
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { LinkedList, type Linked } from '../../base/linked-list.ts';
import type { CallerConnection } from '../callers/caller.ts';
import type { ConnectionLimits } from './connection-limits.ts';

export class Connection implements Linked<Connection> {
  readonly socket: Socket;
  readonly caller: CallerConnection;
  before: Connection | undefined = undefined;
  after: Connection | undefined = undefined;
  #open: Set<ServerResponse> | undefined;

  constructor(socket: Socket, caller: CallerConnection) {
    this.socket = socket;
    this.caller = caller;
  }

  /** Responses that are not finished. The fast path has none. */
  get open(): Set<ServerResponse> {
    return (this.#open ??= new Set());
  }

  get isIdle(): boolean {
    return this.#open === undefined || this.#open.size === 0;
  }
}

/** Of a socket, until it closes. */
const connectionKey = Symbol('connection');
type OwnSocket = Socket & { [connectionKey]?: Connection | undefined };

/** Callers without a connection that are remembered: more than a node has pods. */
// No mutation: fewer are only removed more often.
const maxUnconnected = 1_024;

export class Connections {
  #size = 0;
  readonly #limits: ConnectionLimits;
  /** By limit key, the oldest connection first; a list may be empty. */
  readonly #byCaller = new Map<string, LinkedList<Connection>>();

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#size;
  }

  get(socket: OwnSocket): Connection | undefined {
    return socket[connectionKey];
  }

  /**
   * A caller with too many loses its oldest connection without an answer under way: an idle one, or one with
   * a request that does not arrive.
   * @returns the connection, which is removed when it closes; undefined when its caller waits for answers
   *   on all that it may have.
   */
  add(
    socket: OwnSocket,
    caller: CallerConnection,
    onTooMany: () => void = () => undefined,
  ): Connection | undefined {
    // The key changes once the pod is known; the removal needs the same list as the addition.
    const own = this.#ofCaller(caller.limitKey);
    if (own.size >= this.#each) {
      onTooMany();
      const unused = this.#findUnused(own);
      if (unused === undefined) return undefined;
      this.#remove(unused, own);
      unused.socket.destroy();
    }
    const connection = new Connection(socket, caller);
    socket[connectionKey] = connection;
    own.add(connection);
    this.#size += 1;
    socket.once('close', () => this.#remove(connection, own));
    return connection;
  }

  #ofCaller(limitKey: string): LinkedList<Connection> {
    let own = this.#byCaller.get(limitKey);
    if (own !== undefined) return own;
    // Not when the last connection closes: the next one comes soon.
    if (this.#byCaller.size >= this.#size + maxUnconnected) {
      for (const [key, { size }] of this.#byCaller) if (size === 0) this.#byCaller.delete(key);
    }
    own = new LinkedList();
    this.#byCaller.set(limitKey, own);
    return own;
  }

  #remove(connection: Connection, own: LinkedList<Connection>): void {
    const socket: OwnSocket = connection.socket;
    if (socket[connectionKey] === undefined) return;
    socket[connectionKey] = undefined;
    own.remove(connection);
    this.#size -= 1;
  }

  *#all(): Generator<Connection, void> {
    for (const own of this.#byCaller.values()) yield* own;
  }

  get #each(): number {
    const { total, each, eachWhenShort } = this.#limits;
    return 2 * this.size < total ? each : eachWhenShort;
  }

  #findUnused(own: LinkedList<Connection>): Connection | undefined {
    // Not by its iterator, which makes an object for each of hundreds, for each connection too many.
    let connection = own.first;
    while (connection?.isIdle === false) connection = connection.after;
    return connection;
  }

  /** Ends the connections of these callers at once; returns how many there were. */
  reset(isMeant: (caller: CallerConnection) => boolean): number {
    const meant = [...this.#all()].filter(({ caller }) => isMeant(caller));
    for (const { socket } of meant) {
      // libuv does not reset a socket with a pending shutdown, and Node then never closes it: there
      // would be no event, and the descriptor would leak.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
    return meant.length;
  }

  /** Answers under way close their connections. */
  endAfterAnswers(): void {
    for (const { open } of this.#all()) {
      for (const response of open) response.shouldKeepAlive = false;
    }
  }

  destroyIdle(): void {
    for (const { socket, isIdle } of this.#all()) if (isIdle) socket.destroy();
  }

  destroyAll(): void {
    for (const { socket } of this.#all()) socket.destroy();
  }
}
