/**
 * The connections of the pages. Anybody in the cluster can open some, and a probe of the kubelet that
 * finds no room restarts the agent. So a new connection always has room: the oldest one of its class
 * ends for it. The kubelet asks right after it has connected and is answered at once, before as many
 * others can have come. Connections of the node itself are a class of their own.
 */
import type { Socket } from 'node:net';

/** Of each class. */
const maxOpen = 32;

export class PageConnections {
  readonly #ofNode = new Set<Socket>();
  readonly #ofOthers = new Set<Socket>();

  add(socket: Socket): void {
    const open = isOfNode(socket) ? this.#ofNode : this.#ofOthers;
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    const [oldest] = open;
    if (open.size <= maxOpen || oldest === undefined) return;
    open.delete(oldest);
    oldest.destroy();
  }
}

function isOfNode({ remoteAddress, localAddress }: Socket): boolean {
  return remoteAddress !== undefined && remoteAddress === localAddress;
}
