/** Ports of 127.0.0.1 without a listener now. */
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Two different ports: both are bound before either is released. */
export async function twoFreePorts(): Promise<readonly [number, number]> {
  const held = [createServer(), createServer()] as const;
  for (const server of held) await once(server.listen(0, '127.0.0.1'), 'listening');
  const ports = held.map((server) => {
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  });
  for (const server of held) await once(server.close(), 'close');
  const [one = 0, other = 0] = ports;
  return [one, other];
}

export async function freePort(): Promise<number> {
  const [port] = await twoFreePorts();
  return port;
}
