/**
 * A proxy that supports only CONNECT, and one destination: every request goes to one port of this
 * machine.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export interface TunnelProxy extends AsyncDisposable {
  readonly url: string;
  /** The requested targets, each with its `Proxy-Authorization`. */
  readonly tunnels: readonly { readonly target: string; readonly authorization: string }[];
}

/** @param behaviour a status refuses; `hang` accepts the request and never answers. */
export async function openTunnelProxy(
  toPort: number,
  behaviour: 'open' | 'hang' | number = 'open',
): Promise<TunnelProxy> {
  const tunnels: { target: string; authorization: string }[] = [];
  const sockets = new Set<Duplex>();
  const server = createServer();
  server.on('connection', (socket: Socket) => sockets.add(socket));
  server.on('connect', (request, socket: Duplex) => {
    tunnels.push({
      target: request.url ?? '',
      authorization: request.headers['proxy-authorization'] ?? '',
    });
    socket.on('error', () => socket.destroy());
    if (behaviour === 'hang') return;
    if (behaviour !== 'open') {
      socket.end(`HTTP/1.1 ${behaviour} No\r\n\r\n`);
      return;
    }
    const upstream = connect(toPort, '127.0.0.1');
    sockets.add(upstream);
    upstream.on('error', () => socket.destroy());
    upstream.on('connect', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.pipe(upstream).pipe(socket);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    tunnels,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
