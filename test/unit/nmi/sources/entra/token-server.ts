/**
 * A token endpoint over TLS that returns answers set by a test and records its requests, and a proxy
 * in front of it.
 */
import { once } from 'node:events';
import { createServer as createProxy, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { connect, type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { createLabAuthority } from '../../../../../lab/fakes/authority.ts';

/** It signed the certificate of every token server. */
export const authority = await createLabAuthority();
const tls = await authority.issueServer(['localhost', 'login.entra.test', '127.0.0.1']);

export interface Received {
  readonly method: string;
  readonly target: string;
  readonly headers: IncomingMessage['headers'];
  readonly form: URLSearchParams;
}

export type Answer = (response: ServerResponse, received: Received) => void;

export interface TokenServer extends AsyncDisposable {
  readonly port: number;
  readonly authority: string;
  readonly received: readonly Received[];
  /** TCP connections so far. */
  readonly connections: number;
  /** The answers to the next requests, in order; the last one repeats. */
  answerWith(...answers: readonly Answer[]): void;
}

export async function openTokenServer(): Promise<TokenServer> {
  // It offers h2 without supporting it: a client that selects HTTP/2 fails.
  const server = createServer({ ...tls, ALPNProtocols: ['h2', 'http/1.1'] });
  const received: Received[] = [];
  let connections = 0;
  let answers: readonly Answer[] = [];
  server.on('connection', () => connections++);
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    void text(request).then((body) => {
      const { method = '', url = '', headers } = request;
      const seen = { method, target: url, headers, form: new URLSearchParams(body) };
      received.push(seen);
      const [answer, ...later] = answers;
      if (later.length > 0) answers = later;
      if (answer === undefined) response.writeHead(500).end();
      else answer(response, seen);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    port,
    authority: `https://localhost:${port}`,
    received,
    get connections() {
      return connections;
    },
    answerWith(...next) {
      answers = next;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await once(server.close(), 'close');
    },
  };
}

export function json(
  status: number,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return raw(status, JSON.stringify(body), { 'Content-Type': 'application/json', ...headers });
}

export function raw(
  status: number,
  body: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return (response) => {
    response.writeHead(status, { 'Content-Type': 'text/html', ...headers }).end(body);
  };
}

export interface TunnelProxy extends AsyncDisposable {
  readonly url: string;
  /** The requested targets, each with its `Proxy-Authorization`. */
  readonly tunnels: readonly { readonly target: string; readonly authorization: string }[];
}

/**
 * It supports only CONNECT, and every request goes to one port of this machine.
 * @param behaviour a status refuses; `hang` accepts the request and never answers.
 */
export async function openTunnelProxy(
  toPort: number,
  behaviour: 'open' | 'hang' | number = 'open',
): Promise<TunnelProxy> {
  const tunnels: { target: string; authorization: string }[] = [];
  const sockets = new Set<Duplex>();
  const server = createProxy();
  server.on('connection', (socket: Socket) => sockets.add(socket));
  server.on('connect', ({ url = '', headers }, socket: Duplex) => {
    tunnels.push({ target: url, authorization: headers['proxy-authorization'] ?? '' });
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
      await once(server.close(), 'close');
    },
  };
}
