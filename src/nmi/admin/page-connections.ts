/**
 * The connections of the pages. Anybody in the cluster can open some, and a probe of the kubelet that
 * finds no room restarts the agent. So a new connection always has room: the oldest one of the address
 * that has most of its class ends for it. The kubelet asks right after it has connected and is answered at
 * once, before as many others can have come. Connections of the node itself are a class of their own.
 */
import type { Socket } from 'node:net';

/** Of each class. */
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

/** A scrape of another node keeps its place while one pod opens all it can. */
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
