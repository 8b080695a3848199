/** A proxy that opens tunnels for clients with its password, or fails in ways that leak it. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export async function openPasswordProxy(password: string) {
  const sockets = new Set<Duplex>();
  const wanted = `Basic ${Buffer.from(`agent:${password}`).toString('base64')}`;
  const state = {
    /** Answers with this status, and with the password in its text; undefined opens tunnels. */
    refuseWith: undefined as number | undefined,
    /** Hosts with ports to which it opened tunnels, and URLs of requests without a tunnel. */
    asked: new Set<string>(),
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
  const server = createServer();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('connect', (request, socket: Duplex) => {
    const isKnown = request.headers['proxy-authorization'] === wanted;
    const status = isKnown ? state.refuseWith : 407;
    if (status !== undefined) {
      const head = `HTTP/1.1 ${status} not ${password}\r\nX-Password: ${password}\r\n\r\n`;
      socket.end(head + password);
      return;
    }
    state.asked.add(request.url ?? '');
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
    state.asked.add(request.url ?? '');
    response.writeHead(502).end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return Object.assign(state, {
    /** With user name and password. */
    url: `http://agent:${password}@127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      state.cut();
      server.close();
      await once(server, 'close');
    },
  });
}
