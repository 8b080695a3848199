/**
 * A TCP proxy that breaks connections as networks do: it cuts them, leads them nowhere without a
 * word, or is not there. What goes through it is the server's own TLS.
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface FaultProxy extends AsyncDisposable {
  /** The server's URL with another port: certificates for its host still hold. */
  readonly url: string;
  /** Open now. */
  readonly connections: number;
  /** Since the start. */
  readonly accepted: number;
  /** Reset of all connections, on both sides. */
  cut(): void;
  /** The next connection is reset after so many bytes from the server, its handshake included. */
  cutNextAfter(bytes: number): void;
  /** Connections that are open now carry nothing any more, and do not end either. */
  freeze(): void;
  /** As `freeze`, and those that are made from now on too. */
  blackHole(): void;
  /** Everything frozen goes on, with what was held back. */
  thaw(): void;
  /** All connections are reset and new ones refused. */
  stop(): Promise<void>;
  /** At the same address as before. */
  start(): Promise<void>;
}

interface Pair {
  readonly client: Socket;
  readonly server: Socket;
}

export interface FaultProxyOptions {
  /** What the server sends is handed on in pieces of so many bytes, one a turn of the event loop. */
  readonly pieceBytes?: number | undefined;
}

export async function openFaultProxy(
  serverUrl: string,
  { pieceBytes }: FaultProxyOptions = {},
): Promise<FaultProxy> {
  const target = new URL(serverUrl);
  const pairs = new Set<Pair>();
  const frozen = new Set<Pair>();
  let cutAfter: number | undefined;
  let isBlackHole = false;
  let accepted = 0;
  let port = 0;
  let listener: Server | undefined;

  function serve(client: Socket): void {
    accepted += 1;
    const server = connect(Number(target.port), target.hostname);
    const pair = { client, server };
    pairs.add(pair);
    client.setNoDelay();
    server.setNoDelay();
    let left = cutAfter;
    cutAfter = undefined;
    pump(pair, client, server);
    if (pieceBytes !== undefined) {
      trickle(pair, pieceBytes);
    } else
      pump(pair, server, client, (bytes) => {
        if (left === undefined) return bytes;
        const part = bytes.subarray(0, left);
        left -= part.length;
        return part;
      });
    function afterWrite(): void {
      if (left === 0) reset(pair);
    }
    server.on('data', afterWrite);
    for (const socket of [client, server]) {
      socket.on('error', () => undefined);
      socket.on('close', () => {
        // A frozen one must not tell the other side.
        if (!frozen.has(pair)) reset(pair);
      });
    }
    if (isBlackHole) hold(pair);
  }

  function pump(
    pair: Pair,
    from: Socket,
    to: Socket,
    pass: (bytes: Buffer) => Buffer = (bytes) => bytes,
  ): void {
    from.on('data', (bytes: Buffer) => {
      // Not held back for long: what is paused here fills the sender's window.
      if (!to.write(pass(bytes)) && !frozen.has(pair)) from.pause();
    });
    to.on('drain', () => {
      if (!frozen.has(pair)) from.resume();
    });
    from.on('end', () => to.end());
  }

  /** One piece after the other, each a segment of its own. */
  function trickle({ client, server }: Pair, size: number): void {
    let last = Promise.resolve();
    server.on('data', (bytes: Buffer) => {
      last = last.then(async () => {
        for (let at = 0; at < bytes.length && !client.destroyed; at += size) {
          client.write(bytes.subarray(at, at + size));
          await new Promise((resolve) => setImmediate(resolve));
        }
      });
    });
    server.on('end', () => void last.then(() => client.end()));
  }

  function hold(pair: Pair): void {
    frozen.add(pair);
    pair.client.pause();
    pair.server.pause();
  }

  function reset(pair: Pair): void {
    pairs.delete(pair);
    frozen.delete(pair);
    pair.client.resetAndDestroy();
    pair.server.resetAndDestroy();
  }

  async function start(): Promise<void> {
    const server = createServer(serve);
    server.listen(port, target.hostname);
    await once(server, 'listening');
    const address = server.address();
    port = typeof address === 'object' && address !== null ? address.port : 0;
    listener = server;
  }

  async function stop(): Promise<void> {
    const closing = listener;
    listener = undefined;
    closing?.close();
    for (const pair of pairs) reset(pair);
    if (closing !== undefined) await once(closing, 'close');
  }

  await start();
  return {
    url: `${target.protocol}//${target.hostname}:${port}`,
    get connections() {
      return pairs.size;
    },
    get accepted() {
      return accepted;
    },
    cut() {
      for (const pair of pairs) reset(pair);
    },
    cutNextAfter(bytes) {
      cutAfter = bytes;
    },
    freeze() {
      for (const pair of pairs) hold(pair);
    },
    blackHole() {
      isBlackHole = true;
      for (const pair of pairs) hold(pair);
    },
    thaw() {
      isBlackHole = false;
      const held = [...frozen];
      frozen.clear();
      for (const { client, server } of held) {
        client.resume();
        server.resume();
      }
    },
    stop,
    start,
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}
