/**
 * The connections of the pages. Any client in the cluster can open some, and a probe of the kubelet
 * that finds no room restarts the agent. So a new connection always has room: it closes the oldest
 * connection of the address with the most connections in its class. The kubelet sends its request
 * right after it has connected and is answered at once, before that many others can have connected.
 * Connections of the node itself are a class of their own.
 */
import type { Socket } from 'node:net';

/** Per class. */
const maxOpen = 32;

export class PageConnections {
  readonly #ofNode = new Map<Socket, string>();
  readonly #ofOthers = new Map<Socket, string>();

  add(socket: Socket): void {
    const open = isOfNode(socket) ? this.#ofNode : this.#ofOthers;
    open.set(socket, socket.remoteAddress ?? '');
    socket.once('close', () => open.delete(socket));
    if (open.size <= maxOpen) return;
    const surplus = oldestOfMost(open);
    if (surplus === undefined) return;
    open.delete(surplus);
    surplus.destroy();
  }

  destroyAll(): void {
    for (const open of [this.#ofNode, this.#ofOthers]) {
      for (const socket of [...open.keys()]) socket.destroy();
    }
  }
}

/** A scrape from another node keeps its connection while one pod opens as many as it can. */
function oldestOfMost(open: ReadonlyMap<Socket, string>): Socket | undefined {
  const counts = new Map<string, number>();
  for (const address of open.values()) counts.set(address, (counts.get(address) ?? 0) + 1);
  const most = Math.max(...counts.values());
  for (const [socket, address] of open) if (counts.get(address) === most) return socket;
  return undefined;
}

function isOfNode({ remoteAddress, localAddress }: Socket): boolean {
  return remoteAddress !== undefined && remoteAddress === localAddress;
}
