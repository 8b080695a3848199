/** The network between a client and a server, which can fail in the ways a real one does. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

export interface Wire extends AsyncDisposable {
  /** The server's URL with another port: certificates for its host still hold. */
  readonly url: string;
  /** Connections that are open now. */
  readonly connections: number;
  /** Resets all connections. */
  cut(): void;
  /** Those that are open now stay so and carry nothing any more, as through a lost firewall state. */
  silence(): void;
}

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
}

export async function openWire(serverUrl: string): Promise<Wire> {
  const target = new URL(serverUrl);
  const pairs = new Set<Pair>();
  const server = createServer((near) => {
    const pair = { near, far: connect(Number(target.port), target.hostname) };
    pairs.add(pair);
    const end = (): void => {
      pairs.delete(pair);
      pair.near.destroy();
      pair.far.destroy();
    };
    for (const socket of [pair.near, pair.far])
      socket.setNoDelay().on('error', end).on('close', end);
    pair.near.pipe(pair.far);
    pair.far.pipe(pair.near);
  });
  server.listen(0, target.hostname);
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `${target.protocol}//${target.hostname}:${port}`,
    get connections() {
      return pairs.size;
    },
    cut() {
      for (const { near } of [...pairs]) near.resetAndDestroy();
    },
    silence() {
      for (const { near, far } of pairs) {
        near.unpipe(far).pause();
        far.unpipe(near).pause();
      }
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const { near, far } of [...pairs]) {
        near.destroy();
        far.destroy();
      }
      await closed;
    },
  };
}
