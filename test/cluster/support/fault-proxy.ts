/**
 * A TCP proxy that breaks connections as networks do: it cuts them, drops their data silently, or
 * refuses them. It forwards the server's own TLS.
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface FaultProxy extends AsyncDisposable {
  /** The server's URL with another port: certificates for its host are still valid. */
  readonly url: string;
  /** Number of open connections. */
  readonly connections: number;
  /** Number of connections since the start. */
  readonly accepted: number;
  /** Bytes from the server since the start, TLS included. */
  readonly receivedBytes: number;
  /** Resets all connections, on both sides. */
  cut(): void;
  /**
   * The next connection is reset after this many bytes from the server, including its handshake.
   */
  cutNextAfter(bytes: number): void;
  /** Open connections carry nothing from now on, but stay open. */
  freeze(): void;
  /** Like `freeze`, also for connections made from now on. */
  blackHole(): void;
  /** Frozen connections continue, with the data held back meanwhile. */
  thaw(): void;
  /** Resets all connections and refuses new ones. */
  stop(): Promise<void>;
  /** At the same address as before. */
  start(): Promise<void>;
}

interface Pair {
  readonly client: Socket;
  readonly server: Socket;
}

export interface FaultProxyOptions {
  /**
   * Forwards what the server sends in pieces of this many bytes, one per turn of the event loop.
   */
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
  let receivedBytes = 0;
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
    server.on('data', (bytes: Buffer) => {
      receivedBytes += bytes.length;
      afterWrite();
    });
    for (const socket of [client, server]) {
      socket.on('error', () => undefined);
      socket.on('close', () => {
        // When a frozen connection closes, the other side must not notice.
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
      // Not paused for long: paused data here fills the sender's window.
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
    get receivedBytes() {
      return receivedBytes;
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
