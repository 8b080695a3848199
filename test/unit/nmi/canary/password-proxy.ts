/** A proxy that opens tunnels for clients with its password, or fails in ways that leak it. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export interface PasswordProxy extends AsyncDisposable {
  /** With user name and password. */
  readonly url: string;
  /** Answers with this status, and with the password in its text; undefined opens tunnels. */
  refuseWith: number | undefined;
  /** Hosts with ports to which it opened tunnels, and URLs of requests without a tunnel. */
  readonly asked: ReadonlySet<string>;
  cut(): void;
}

export async function openPasswordProxy(password: string): Promise<PasswordProxy> {
  const sockets = new Set<Duplex>();
  const wanted = `Basic ${Buffer.from(`agent:${password}`).toString('base64')}`;
  let refuseWith: number | undefined;
  const asked = new Set<string>();
  const server = createServer();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('connect', (request, socket: Duplex) => {
    const isKnown = request.headers['proxy-authorization'] === wanted;
    const status = isKnown ? refuseWith : 407;
    if (status !== undefined) {
      socket.end(
        `HTTP/1.1 ${status} not ${password}\r\nX-Password: ${password}\r\n\r\n${password}`,
      );
      return;
    }
    asked.add(request.url ?? '');
    const [host = '', port = ''] = (request.url ?? '').split(':');
    const upstream = connect(Number(port), host);
    sockets.add(upstream);
    upstream.on('error', () => socket.destroy());
    upstream.on('close', () => {
      sockets.delete(upstream);
      socket.destroy();
    });
    socket.on('close', () => upstream.destroy());
    upstream.on('connect', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.pipe(upstream).pipe(socket);
    });
  });
  server.on('request', (request, response) => {
    asked.add(request.url ?? '');
    response.writeHead(502).end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: `http://agent:${password}@127.0.0.1:${port}`,
    get refuseWith() {
      return refuseWith;
    },
    set refuseWith(status) {
      refuseWith = status;
    },
    asked,
    cut,
    async [Symbol.asyncDispose]() {
      cut();
      server.close();
      await once(server, 'close');
    },
  };
}
